"""Promise I7: replaying the events of an execution gives exactly its state, whatever happened to it.

Random graphs are driven through the core by random results, failures, starts, losses, refusals, cancellations and
time; the log is kept as bytes. At every moment the log, and a snapshot with the log after it, must give the live state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.making import (
    BROKEN,
    FLAKY,
    SHARD,
    Lab,
    cancel,
    closed,
    columns,
    held,
    opened,
    replay,
    submit,
    updates,
    workflow,
)

from nodeflow_scheduler.domain.events import Event, TasksCancelled, TasksCompleted, TasksSkipped, sequence_count
from nodeflow_scheduler.domain.execution import Execution, IllegalTransition
from nodeflow_scheduler.domain.explanation import Explanation, TaskReason
from nodeflow_scheduler.domain.lifecycle import FINAL_TASK_STATES
from nodeflow_scheduler.domain.messages import AttemptRef, Input, Outcome, Produced, Report, Stopped, Tick
from nodeflow_scheduler.domain.placement import Key
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.wire.log import decode_chunk
from nodeflow_scheduler.wire.snapshot import encode_snapshot, restore_snapshot

OUTCOMES: list[Outcome] = [
    b"[1,2,3]",
    b"[]",
    b"7",
    b"null",
    Stored(content_type="text/plain", data=b"plain", size_bytes=5),
    Stored(digest="sha256:5", size_bytes=70_000),
    Produced(b"7", {"out/a.csv": Stored(digest="sha256:6", size_bytes=3)}),
    FLAKY,
    BROKEN,
    Stopped(),
    b"x" * 70_000,
]


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Graphs of up to seven nodes, with every kind of node and every failure policy."""
    count = draw(st.integers(1, 7))
    nodes: dict[str, dict[str, Any]] = {}  # Any: JSON of a document
    for number in range(count):
        parents = draw(st.lists(st.sampled_from(range(number)), max_size=3, unique=True)) if number else []
        node: dict[str, Any] = {"needs": [f"n{each}" for each in parents]} if parents else {}
        kind = draw(st.sampled_from(["plain", "plain", "map", "constant map", "when", "false"]))
        if kind == "map" and parents:
            node["map"] = f"${{nodes.n{parents[0]}.output}}"
        elif kind == "constant map":
            node["map"] = draw(st.sampled_from([[], [1], [1, "two", None]]))
        elif kind == "when" and parents:
            node["when"] = f"nodes.n{parents[0]}.output == 7"
        elif kind == "false":
            node["when"] = "1 > 2"
        if draw(st.booleans()):
            node["retry"] = {"attempts": 3, "backoff": {"initial": "1s", "max": "2s"}}
        nodes[f"n{number}"] = node
    fields: dict[str, Any] = {"on_failure": draw(st.sampled_from(["cancel_dependents", "fail_fast", "continue"]))}
    if draw(st.booleans()):
        fields["timeout"] = "20s"
    if draw(st.booleans()):
        fields["outputs"] = {"last": f"${{nodes.n{count - 1}.output}}"}
    compiled = workflow(nodes, **fields)
    may_fail = draw(st.sets(st.sampled_from(range(count)), max_size=2))
    return replace(
        compiled,
        nodes=tuple(replace(node, allow_failure=number in may_fail) for number, node in enumerate(compiled.nodes)),
    )


class Storm:
    """Random happenings around one execution."""

    def __init__(self, data: st.DataObject, compiled: Workflow) -> None:
        self.data = data
        self.lab = Lab.ready(slots=4)
        self.results = 0
        self.generation = 1
        self.sessions = 1
        self.named: set[Key] = set()
        self.chunk_snapshots: list[tuple[int, bytes]] = []
        self.lab.step(submit(compiled))

    @property
    def session_id(self) -> str:
        return f"s{self.sessions}"

    def one_turn(self) -> None:
        self.lab.assigned()
        self.named.clear()
        inputs: list[Input] = []
        for _ in range(self.data.draw(st.integers(1, 3))):
            inputs += self.happening()
        delay_ms = self.data.draw(st.sampled_from([0, 0, 500, 3_000]))
        self.lab.step(*inputs, after_ms=delay_ms)
        execution = self.lab.execution()
        if not execution.finished and self.data.draw(st.booleans()):
            self.chunk_snapshots.append((len(self.lab.log["e1"]), encode_snapshot(execution)))

    def happening(self) -> list[Input]:
        kinds = ["results", "results", "results", "started", "refused", "held", "closed", "tick"]
        kind = self.data.draw(st.sampled_from([*kinds, "cancel"] if self.data.draw(st.integers(0, 7)) == 7 else kinds))
        match kind:
            case "results":
                return [
                    updates(self.session_id, results=[self.report() for _ in range(self.data.draw(st.integers(1, 3)))])
                ]
            case "started":
                return [updates(self.session_id, started=self.held_attempts())]
            case "refused":
                return [updates(self.session_id, refused=self.held_attempts())]
            case "held":
                self.generation += 1
                results = [self.report()] if self.data.draw(st.booleans()) else []
                return [held(self.session_id, self.held_attempts(), results, generation=self.generation)]
            case "closed":
                before = self.session_id
                self.sessions += 1
                return [closed(before), opened(self.session_id, slots=4), held(self.session_id)]
            case "cancel":
                return [cancel()]
            case _:
                return [Tick()]

    def attempt(self) -> AttemptRef:
        """Nearly always of the current attempt of an open task."""
        execution = self.lab.execution()
        open_tasks = [task for task, state in enumerate(execution.states) if state not in FINAL_TASK_STATES]
        task = self.data.draw(st.sampled_from(open_tasks or [0]))
        behind = self.data.draw(st.sampled_from([0, 0, 0, 0, 0, 1]))
        return AttemptRef("e1", task, max(0, execution.attempts[task] - behind), SHARD, execution.tokens[task])

    def report(self) -> Report:
        self.results += 1
        return Report(*self.attempt(), self.results, self.data.draw(st.sampled_from(OUTCOMES)))

    def held_attempts(self) -> list[AttemptRef]:
        """Some of what the session was given, each named once in a turn: a worker does not start what it refused."""
        session = self.lab.core.placement.sessions.get(self.session_id)
        live = sorted(session.live - self.named) if session is not None else []
        kept = [key for key in live if self.data.draw(st.booleans())]
        self.named.update(kept)
        tokens = self.lab.execution().tokens
        return [AttemptRef(name, task, attempt, SHARD, tokens[task]) for name, task, attempt in kept]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(compiled=workflows(), data=st.data())
def test_the_log_gives_exactly_the_state(compiled: Workflow, data: st.DataObject) -> None:
    storm = Storm(data, compiled)
    lab = storm.lab
    for _ in range(data.draw(st.integers(1, 12))):
        storm.one_turn()
        live = columns(lab.execution())
        assert columns(lab.replayed()) == live
        if lab.execution().finished:
            break
    for chunk_count, snapshot in storm.chunk_snapshots:
        restored = restore_snapshot(snapshot, "e1", SHARD, compiled)
        replay(restored, lab.log["e1"][chunk_count:])
        restored.derive()
        assert columns(restored) == columns(lab.execution())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(compiled=workflows(), data=st.data())
def test_histories_are_gapless_and_no_task_has_two_results(compiled: Workflow, data: st.DataObject) -> None:
    storm = Storm(data, compiled)
    for _ in range(data.draw(st.integers(1, 12))):
        storm.one_turn()
    execution = storm.lab.execution()
    events = [event for chunk in storm.lab.log["e1"] for event in decode_chunk(chunk).events]
    assert sum(map(sequence_count, events)) == execution.sequence
    ends = [task for event in events if isinstance(event, TasksCompleted) for task in event.tasks]
    assert len(ends) == len(set(ends))
    if execution.finished:
        assert all(state in FINAL_TASK_STATES for state in execution.states)
        assert execution.open_count == 0
    else:
        waiting = {grant.task for grant in storm.lab.live_grants() if grant.is_wanted}
        held_tasks = {task for each in storm.lab.core.placement.sessions.values() for _, task, _ in each.live}
        stuck = set(execution.live_tasks()) - waiting - held_tasks
        assert stuck == set(), "every live attempt is in line or with a session (promise I4)"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(compiled=workflows(), data=st.data())
def test_every_execution_is_over_or_waits_for_something_that_is_named(compiled: Workflow, data: st.DataObject) -> None:
    """Promise I4: the chain of what waits for other nodes ends in something that happens by itself."""
    storm = Storm(data, compiled)
    lab = storm.lab
    told: dict[int, Explanation] = {}
    for _ in range(data.draw(st.integers(1, 12))):
        storm.one_turn()
        execution = lab.execution()
        told = {task: lab.core.explain(execution, task) for task in range(len(execution.states))}
        if execution.finished:
            assert {each.reason for each in told.values()} <= ENDINGS
        else:
            assert {each.reason for each in told.values()} & HAPPENS_BY_ITSELF
            for task in execution.open_tasks():
                assert told[task].reason in HAPPENS_BY_ITSELF | WAITS_FOR_NODES
                assert bool(told[task].nodes) == (told[task].reason in WAITS_FOR_NODES)
    events = [event for chunk in lab.log["e1"] for event in decode_chunk(chunk).events]
    for task, cause in causes(events).items() if lab.execution().finished else ():
        # Of a task whose parent failed in the very turn of a cancellation, both are true.
        assert told[task].reason in (cause, TaskReason.PARENT_FAILED)
        assert told[task].reason is cause or cause in (TaskReason.CANCEL_REQUESTED, TaskReason.EXECUTION_TIMEOUT)


HAPPENS_BY_ITSELF = {
    TaskReason.ARTIFACT,
    TaskReason.BACKOFF,
    TaskReason.NO_WORKER,
    TaskReason.NO_FREE_SLOT,
    TaskReason.HANDED_OUT,
    TaskReason.UNCERTAIN_ATTEMPT,
    TaskReason.RUNNING,
    TaskReason.OUTPUTS,
}
WAITS_FOR_NODES = {TaskReason.DEPENDENCIES, TaskReason.ITEMS}
CAUSES = {
    "PARENT_FAILED": TaskReason.PARENT_FAILED,
    "CONDITION_FALSE": TaskReason.CONDITION_FALSE,
    "CANCEL_REQUESTED": TaskReason.CANCEL_REQUESTED,
    "EXECUTION_TIMEOUT": TaskReason.EXECUTION_TIMEOUT,
    "FAIL_FAST": TaskReason.FAIL_FAST,
}
ENDINGS = {*CAUSES.values(), TaskReason.COMPLETED, TaskReason.FAILED}


def causes(events: list[Event]) -> dict[int, TaskReason]:
    """Why tasks never had a result, as the events say; explanations have only the state to go by."""
    found: dict[int, TaskReason] = {}
    for event in events:
        if isinstance(event, TasksCancelled):
            found.update(dict.fromkeys(event.tasks, CAUSES[event.reason]))
        elif isinstance(event, TasksSkipped):
            cause = TaskReason.PARENT_FAILED if event.parent_failed else TaskReason.CONDITION_FALSE
            found.update(dict.fromkeys(event.tasks, cause))
    return found


def test_a_snapshot_is_of_an_execution_that_has_begun() -> None:
    with pytest.raises(IllegalTransition, match="has no first event"):
        encode_snapshot(Execution("e", 0, workflow({"a": {}})))
