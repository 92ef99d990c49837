"""What tests of the scheduler's core are made of: workflows, inputs, and a lab that commits what the core decides."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodeflow_scheduler.domain.admission import Limits
from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.events import Event
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.messages import (
    AttemptRef,
    Cancel,
    Held,
    Input,
    Lease,
    ManagerAttached,
    Outcome,
    Outgoing,
    Report,
    SessionClosed,
    SessionOpened,
    ShardsAcquired,
    Submit,
    Turn,
    Updates,
)
from nodeflow_scheduler.domain.placement import Grant, Placement
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.wire.log import decode_chunk, encode_chunk
from nodeflow_shared.errors import NodeflowError

SHARD, TOKEN, START_MS = 5, 7, 1_000_000
REFUSED = frozenset({SHARD})
"""What an append was refused for."""
NO_SHARDS: frozenset[int] = frozenset()

BROKEN = Failure(kind=FailureKind.USER, reason="RAISED", message="it raised", error_type="ValueError")
FLAKY = Failure(kind=FailureKind.TRANSIENT, reason="TIMEOUT", message="too slow", retryable=True)


def workflow(nodes: Mapping[str, Mapping[str, Any]], **fields: Any) -> Workflow:  # Any: JSON of a document
    """A compiled document; each node gets a function unless it names one."""
    full = {name: {"function": "m:f", **node} for name, node in nodes.items()}
    document = {"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "w", "nodes": full, **fields}
    return compile_document(json.dumps(document).encode(), "application/json", "")


def chain(length: int, **node: Any) -> Workflow:  # Any: JSON of a document
    """Nodes `n0`, `n1`, … that wait for each other."""
    return workflow({f"n{n}": {**({"needs": [f"n{n - 1}"]} if n else {}), **node} for n in range(length)})


@dataclass
class Caller:
    """Who waits for an answer."""

    answers: list[Execution | NodeflowError] = field(default_factory=list)

    def answer(self, answer: Execution | NodeflowError) -> None:
        self.answers.append(answer)

    @property
    def only(self) -> Execution | NodeflowError:
        (answer,) = self.answers
        return answer


def submit(
    compiled: Workflow,
    execution_id: str = "e1",
    *,
    caller: Caller | None = None,
    digest: bytes = b"d",
    shard: int = SHARD,
    inputs: bytes = b"{}",
) -> Submit:
    return Submit(
        execution_id=execution_id,
        shard=shard,
        tenant="t",
        workflow=compiled,
        inputs=inputs,
        labels={"team": "a"},
        request_id="r",
        request_digest=digest,
        handle=caller or Caller(),
    )


def cancel(execution_id: str = "e1", *, caller: Caller | None = None, tenant: str = "t", shard: int = SHARD) -> Cancel:
    return Cancel(execution_id=execution_id, shard=shard, tenant=tenant, reason="enough", handle=caller or Caller())


def opened(session_id: str = "s1", *, slots: int = 100, credits: int = 0, manager: str = "wm") -> SessionOpened:  # noqa: A002 -- the field's name
    return SessionOpened(
        manager=manager, session_id=session_id, worker_id=f"worker of {session_id}", slots=slots, credits=credits
    )


def held(
    session_id: str = "s1",
    live: Sequence[AttemptRef] = (),
    results: Sequence[Report] = (),
    *,
    generation: int = 1,
) -> Held:
    return Held(session_id=session_id, generation=generation, live=list(live), results=list(results))


def updates(
    session_id: str = "s1",
    *,
    started: Sequence[AttemptRef] = (),
    results: Sequence[Report] = (),
    refused: Sequence[AttemptRef] = (),
) -> Updates:
    return Updates(session_id=session_id, started=list(started), results=list(results), refused=list(refused))


def ref(task: int, attempt: int = 1, *, execution_id: str = "e1", token: int = TOKEN, shard: int = SHARD) -> AttemptRef:
    return AttemptRef(execution_id, task, attempt, shard, token)


def report(
    task: int,
    outcome: Outcome = b"1",
    attempt: int = 1,
    *,
    execution_id: str = "e1",
    token: int = TOKEN,
    shard: int = SHARD,
    result_id: int | None = None,
) -> Report:
    return Report(execution_id, task, attempt, shard, token, task + 1 if result_id is None else result_id, outcome)


def acquired(
    *executions: Execution, token: int = TOKEN, offset: int = 0, time_ms: int = 0, shard: int = SHARD
) -> ShardsAcquired:
    return ShardsAcquired(leases=[Lease(shard, token, offset, time_ms)], executions=list(executions))


def closed(session_id: str = "s1") -> SessionClosed:
    return SessionClosed(session_id=session_id, reason="LEASE_ENDED")


ATTACHED = ManagerAttached(manager="wm")


class Lab:
    """A core with a shard and a worker; every turn is committed at once, and its log is kept as bytes."""

    def __init__(self, limits: Limits | None = None, *, managers: Sequence[str] = ("wm",)) -> None:
        self.core = Core(managers, limits)
        self.now_ms = START_MS
        self.log: dict[str, list[bytes]] = {}
        self.turn = Turn(0, 0)
        self.outgoing = Outgoing()

    @classmethod
    def ready(cls, limits: Limits | None = None, *, slots: int = 100) -> Lab:
        """A lab whose shard is acquired and whose worker may be given attempts."""
        lab = cls(limits)
        lab.step(acquired())
        lab.step(opened(slots=slots), held(), ATTACHED)
        return lab

    def step(self, *inputs: Input, after_ms: int = 0, refused: frozenset[int] = NO_SHARDS) -> list[Event]:
        """One turn, committed; returns the events of all executions in it."""
        self.now_ms += after_ms
        self.turn = self.core.step(inputs, self.now_ms)
        return self.commit(self.turn, refused)

    def commit(self, turn: Turn, refused: frozenset[int] = NO_SHARDS) -> list[Event]:
        """The log's answer to a turn."""
        events: list[Event] = []
        for write in turn.writes:
            if write.shard in refused:
                continue
            for draft in write.drafts:
                data = encode_chunk(draft.events, draft.now_ms, draft.token)
                self.log.setdefault(draft.execution.execution_id, []).append(data)
                events += draft.events
        self.outgoing = self.core.commit(turn, refused)
        for reply in self.outgoing.replies:
            reply.handle.answer(reply.answer)
        return events

    def assigned(self) -> dict[str, list[tuple[str, int, int]]]:
        """Hands out what waits: execution, task and attempt by session."""
        return {name: [grant.key for grant in grants] for name, grants in assign_all(self.core.placement).items()}

    def execution(self, execution_id: str = "e1") -> Execution:
        return self.core.executions[execution_id]

    def replayed(self, execution_id: str = "e1") -> Execution:
        """The execution as a scheduler finds it that reads the log."""
        live = self.execution(execution_id)
        execution = Execution(execution_id, live.shard, live.workflow)
        replay(execution, self.log[execution_id])
        execution.derive()
        return execution

    def live_grants(self) -> list[Grant]:
        """What is waiting in line."""
        return list(self.core.placement.ready)


def assign_all(placement: Placement) -> dict[str, list[Grant]]:
    """Hands out to slots, and then to credits, whatever it weighs."""
    assigned: dict[str, list[Grant]] = {}
    for by_slots in (True, False):
        for session_id, grants in placement.assign(by_slots=by_slots, most=sys.maxsize).items():
            assigned.setdefault(session_id, []).extend(grants)
    return assigned


def running(lab: Lab, count: int = 1, execution_id: str = "e1", **node: object) -> None:
    """Submits an execution of independent nodes and hands all of them out."""
    lab.step(submit(workflow({f"n{n}": dict(node) for n in range(count)}), execution_id))
    lab.assigned()


def replay(execution: Execution, chunks: Sequence[bytes]) -> None:
    """Applies chunks of the log."""
    for chunk in chunks:
        decoded = decode_chunk(chunk)
        for event in decoded.events:
            execution.apply(event, decoded.time_ms, decoded.token)


def columns(execution: Execution) -> dict[str, object]:
    """All that an execution is, to compare."""
    pending = [task for task, state in enumerate(execution.states[: len(execution.waiting)]) if state == 1]
    return {
        "state": execution.state,
        "sequence": execution.sequence,
        "time_ms": execution.time_ms,
        "start_ms": execution.start_ms,
        "finish_ms": execution.finish_ms,
        "started": execution.started,
        "cancel_reason": execution.cancel_reason,
        "failure": execution.failure,
        "result": execution.result,
        "states": bytes(execution.states),
        "attempts": execution.attempts,
        "tokens": execution.tokens,
        "outputs": execution.outputs,
        "artifacts": execution.artifacts,
        "finishes_ms": execution.finishes_ms,
        # What no longer waits has no use for the count.
        "waiting": {task: execution.waiting[task] for task in pending},
        "failed_counts": execution.failed_counts,
        "lost_counts": execution.lost_counts,
        "failures": execution.failures,
        "retries_ms": execution.retries_ms,
        "starts_ms": execution.starts_ms,
        "worker_ids": execution.worker_ids,
        "expansions": execution.expansions,
        "open_count": execution.open_count,
        "ready": sorted(execution.ready),
        "settled": sorted(execution.settled),
        "broken": execution.broken,
    }
