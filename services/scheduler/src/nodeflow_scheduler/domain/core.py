"""The scheduler's core: inputs in, a turn out. No loop, no socket, no clock.

One call of `step` takes all that has arrived, decides, and returns what to append and what to do once that is committed. The driver calls `commit`
in the order of the turns; only then is anything handed out, answered or acknowledged. State is ahead of the log between the two, which is why a refused append drops the shard
from memory: what was decided on top of it never happened.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nodeflow_scheduler.domain.artifacts import ArtifactShelf
from nodeflow_scheduler.domain.events import ExecutionStarted
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.lifecycle import FINAL_TASK_STATES, ExecutionState, TaskState
from nodeflow_scheduler.domain.messages import (
    ArgumentsFailed,
    ArtifactFetched,
    ArtifactKept,
    AttemptRef,
    Cancel,
    CapacityChanged,
    Held,
    IndexEntry,
    Input,
    Lease,
    ManagerAttached,
    ManagerLost,
    Outgoing,
    Reply,
    Report,
    SessionClosed,
    SessionOpened,
    ShardsAcquired,
    ShardsLost,
    ShardWrite,
    Stopped,
    Submit,
    Tick,
    Turn,
    Updates,
    key_of,
)
from nodeflow_scheduler.domain.placement import Grant, Key, Placement, Session
from nodeflow_scheduler.domain.progress import Draft, NotAtHand, NotStored, Shelf
from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, Stored, Value
from nodeflow_shared.errors import AlreadyExists, IllegalState, NodeflowError, NotFound, Overloaded, Unavailable

_QUEUED, _RUNNING = TaskState.QUEUED, TaskState.RUNNING

OVERSIZED = Failure(
    kind=FailureKind.PERMANENT,
    reason="RESULT_TOO_LARGE",
    message=f"the worker sent a result of more than {INLINE_LIMIT_BYTES} bytes inline; it must upload it as an artifact",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the core holds at most."""

    open_executions: int = 200_000
    """Beyond this, submissions are refused with Overloaded."""
    finished_executions: int = 2_000
    """How many that are over stay in memory for readers."""
    snapshot_every: int = 5_000
    """How many events may follow a snapshot before the next."""


class Core:
    """The state of all executions of the shards that are ours, and of the workers that we can reach."""

    def __init__(self, managers: Sequence[str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.leases: dict[int, Lease] = {}
        self.executions: dict[str, Execution] = {}
        self.placement = Placement()
        self.shelf = ArtifactShelf()
        self._managers = tuple(managers)
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._timers: list[
            tuple[int, int, str, int, int]
        ] = []  # due, tie-break, execution, task (-1: deadline), attempt
        self._timer_count = 0
        self._on: dict[type, Callable[[Turn, Any], None]] = {
            Submit: self._on_submit,
            Cancel: self._on_cancel,
            Updates: self._on_updates,
            Held: self._on_held,
            SessionOpened: self._on_session_opened,
            CapacityChanged: self._on_capacity_changed,
            SessionClosed: self._on_session_closed,
            ManagerAttached: self._on_manager_attached,
            ManagerLost: self._on_manager_lost,
            ShardsAcquired: self._on_shards_acquired,
            ShardsLost: self._on_shards_lost,
            ArtifactFetched: self._on_artifact_fetched,
            ArtifactKept: self._on_artifact_kept,
            ArgumentsFailed: self._on_arguments_failed,
            Tick: lambda _turn, _tick: None,
        }

    # -------------------------------------------------------------------- turns

    def step(self, inputs: Iterable[Input], now_ms: int) -> Turn:
        """Takes in all that has arrived and decides."""
        turn = Turn(now_ms)
        for each in inputs:
            self._on[type(each)](turn, each)
        self._fire_timers(turn)
        if self.placement.doubtful and self.placement.certain(self._managers):
            self._lose(turn, self.placement.doubtful, "NOT_DELIVERED")
            self.placement.doubtful = set()
        for draft in list(turn.drafts.values()):
            self._advance(turn, draft)
        self._write(turn)
        return turn

    def commit(self, turn: Turn, refused: frozenset[int]) -> Outgoing:
        """What a turn may do now that the log has it. Called once for each turn, in order. Parts of refused shards never happened."""
        outgoing = Outgoing()
        acks: dict[str, list[int]] = defaultdict(list)
        for session_id, result_id, shard in turn.acks:
            if shard not in refused:
                acks[session_id].append(result_id)
        outgoing.acks = acks
        for draft in turn.drafts.values():
            if draft.execution.shard not in refused:
                self._commit_draft(turn, draft, outgoing)
        for ref in turn.stops:
            self._stop(ref, outgoing)
        return outgoing

    def _commit_draft(self, turn: Turn, draft: Draft, outgoing: Outgoing) -> None:
        execution = draft.execution
        if draft.queued and self.executions.get(execution.execution_id) is execution:
            self._enqueue(turn, execution, draft.queued)
        for task, attempt in draft.stopped:
            token = execution.tokens[task]
            self._stop(AttemptRef(execution.execution_id, task, attempt, execution.shard, token), outgoing)
        if execution.finished:
            self._finished[execution.execution_id] = None
            while len(self._finished) > self.limits.finished_executions:
                self.executions.pop(self._finished.popitem(last=False)[0], None)

    def _enqueue(self, turn: Turn, execution: Execution, queued: list[tuple[int, int]]) -> None:
        """Puts committed attempts into the line, but those whose arguments must be stored first."""
        if not execution.expansions:
            self.placement.enqueue(execution, queued)
            return
        for task, attempt in queued:
            grant = Grant(execution, task, attempt)
            missing = self.shelf.missing_arguments(grant)
            if missing is None:
                self.placement.ready.append(grant)
            else:
                self.shelf.park_grant(turn, execution.tenant, missing, grant)

    def _stop(self, ref: AttemptRef, outgoing: Outgoing) -> None:
        holder = self.placement.holder_of(key_of(ref))
        if holder is not None:
            outgoing.stops.setdefault(holder.session_id, []).append(ref)

    def next_due_ms(self) -> int | None:
        """When the next timer is due."""
        return self._timers[0][0] if self._timers else None

    # ------------------------------------------------------------------ callers

    def _on_submit(self, turn: Turn, submit: Submit) -> None:
        lease = self.leases.get(submit.shard)
        if lease is None:
            turn.replies.append(Reply(submit.shard, submit.handle, not_ours(submit.shard)))
            return
        known = self.executions.get(submit.execution_id)
        if known is not None:
            turn.replies.append(Reply(submit.shard, submit.handle, repeated(known, submit)))
            return
        if len(self.executions) - len(self._finished) >= self.limits.open_executions:
            turn.replies.append(Reply(submit.shard, submit.handle, overloaded(self.limits.open_executions)))
            return
        execution = Execution(submit.execution_id, submit.shard, submit.workflow)
        self.executions[submit.execution_id] = execution
        draft = self._draft(turn, execution, lease)
        timeout_ms = submit.workflow.timeout_ms
        deadline_ms = draft.now_ms + timeout_ms if timeout_ms else 0
        draft.add(
            ExecutionStarted(
                submit.tenant,
                submit.workflow.name,
                submit.workflow.revision,
                submit.inputs,
                submit.request_id,
                submit.request_digest,
                dict(submit.labels),
                deadline_ms,
            )
        )
        if deadline_ms:
            self._set_timer(deadline_ms, submit.execution_id, -1, 0)
        turn.replies.append(Reply(submit.shard, submit.handle, execution))

    def _on_cancel(self, turn: Turn, cancel: Cancel) -> None:
        execution = self.executions.get(cancel.execution_id)
        lease = self.leases.get(cancel.shard)
        answer: Execution | NodeflowError
        if lease is None:
            answer = not_ours(cancel.shard)
        elif execution is None or execution.tenant != cancel.tenant:
            answer = NotFound(f"there is no execution {cancel.execution_id!r}")
        elif execution.state is ExecutionState.CANCELLED:
            answer = execution
        elif execution.finished:
            answer = IllegalState(
                f"execution {cancel.execution_id} is {execution.state.name} already, and cannot be cancelled"
            )
        else:
            self._draft(turn, execution, lease).cancel(cancel.reason)
            answer = execution
        turn.replies.append(Reply(cancel.shard, cancel.handle, answer))

    # ------------------------------------------------------------------ workers

    def _on_updates(self, turn: Turn, updates: Updates) -> None:
        if updates.started:
            self._take_started(turn, updates.session_id, updates.started)
        if updates.results:
            self._take_results(turn, updates.session_id, updates.results)
        if updates.refused:
            grants = [grant for ref in updates.refused if (grant := self._grant_of(ref)) is not None]
            self.placement.on_refused(updates.session_id, grants)

    def _take_started(self, turn: Turn, session_id: str, started: list[AttemptRef]) -> None:
        session = self.placement.sessions.get(session_id)
        worker_id = session.worker_id if session is not None else ""
        begun: dict[str, list[AttemptRef]] = defaultdict(list)
        for ref in started:
            execution = self.executions.get(ref.execution_id)
            if execution is None or not execution.is_current(ref.task, ref.attempt, ref.token):
                continue
            if execution.states[ref.task] == _QUEUED:
                begun[ref.execution_id].append(ref)
        for execution_id, refs in begun.items():
            tasks = list(dict.fromkeys(ref.task for ref in refs))
            draft = self._open_draft(turn, self.executions[execution_id])
            if draft is not None:
                draft.start(tasks, [draft.execution.attempts[task] for task in tasks], worker_id)

    def _take_results(self, turn: Turn, session_id: str, results: list[Report]) -> None:
        """The hot path: per result a few look-ups; per execution one event."""
        session = self.placement.sessions.get(session_id)
        live = session.live if session is not None else set()
        executions, leases, acks = self.executions, self.leases, turn.acks
        completed: dict[str, dict[int, tuple[int, Value]]] = {}
        for execution_id, task, attempt, shard, token, result_id, outcome in results:
            live.discard((execution_id, task, attempt))
            if shard not in leases:
                continue  # Another scheduler's, or not loaded yet: the worker keeps it until its owner has committed it.
            acks.append((session_id, result_id, shard))
            execution = executions.get(execution_id)
            if execution is None or not execution.is_current(task, attempt, token):
                continue
            if (outcome.__class__ is bytes and len(outcome) <= INLINE_LIMIT_BYTES) or outcome.__class__ is Stored:
                done = completed.get(execution_id)
                if done is None:
                    done = completed[execution_id] = {}
                done.setdefault(task, (attempt, outcome))  # type: ignore[arg-type]  # bytes or Stored, as just tested
            elif task not in completed.get(execution_id, ()):
                self._take_failure(turn, execution, task, attempt, outcome)
        if session is not None:
            session.withheld = False
        for execution_id, done in completed.items():
            draft = self._open_draft(turn, executions[execution_id])
            if draft is not None:
                attempts = [each[0] for each in done.values()]
                draft.complete(list(done), attempts, [each[1] for each in done.values()])

    def _take_failure(self, turn: Turn, execution: Execution, task: int, attempt: int, outcome: object) -> None:
        draft = self._open_draft(turn, execution)
        if draft is None:
            return
        if isinstance(outcome, Stopped):
            # Nobody cancelled the task, or it would not be current: the worker gave it up.
            draft.lose([task], "REFUSED")
            return
        failure = outcome if isinstance(outcome, Failure) else OVERSIZED
        draft.fail(task, attempt, failure)
        due_ms = execution.retries_ms.get(task)
        if due_ms is not None:
            self._set_timer(due_ms, execution.execution_id, task, attempt)

    def _on_held(self, turn: Turn, held: Held) -> None:
        if held.session_id not in self.placement.sessions:
            return
        keys = [key_of(ref) for ref in held.live]
        finished = {key_of(report) for report in held.results}
        missing = self.placement.on_held(held.session_id, held.generation, keys, finished)
        self.placement.doubtful -= finished
        self._take_results(turn, held.session_id, held.results)
        self._lose(turn, missing, "NOT_DELIVERED")
        turn.stops.extend(ref for ref in held.live if self._grant_of(ref) is None and ref.shard in self.leases)

    def _on_session_opened(self, _turn: Turn, opened: SessionOpened) -> None:
        self.placement.on_opened(
            Session(
                session_id=opened.session_id,
                worker_id=opened.worker_id,
                manager=opened.manager,
                slots=opened.slots,
                credits=opened.credits,
            )
        )

    def _on_capacity_changed(self, _turn: Turn, changed: CapacityChanged) -> None:
        self.placement.on_capacity(changed.session_id, changed.slots, changed.credits)

    def _on_session_closed(self, turn: Turn, closed: SessionClosed) -> None:
        self._lose(turn, self.placement.on_closed(closed.session_id), "WORKER_LOST")

    def _on_manager_attached(self, _turn: Turn, attached: ManagerAttached) -> None:
        self.placement.on_manager_attached(attached.manager)

    def _on_manager_lost(self, _turn: Turn, lost: ManagerLost) -> None:
        self.placement.on_manager_lost(lost.manager)

    def _on_arguments_failed(self, turn: Turn, failed: ArgumentsFailed) -> None:
        execution = self.executions.get(failed.execution_id)
        if execution is None or not Grant(execution, failed.task, failed.attempt).is_wanted:
            return
        draft = self._open_draft(turn, execution)
        if draft is not None:
            draft.fail(failed.task, failed.attempt, failed.failure)

    def _grant_of(self, ref: AttemptRef) -> Grant | None:
        """The attempt that a worker speaks of, if it may still have a result."""
        execution = self.executions.get(ref.execution_id)
        if execution is None or not execution.is_current(ref.task, ref.attempt, ref.token):
            return None
        return Grant(execution, ref.task, ref.attempt)

    def _lose(self, turn: Turn, keys: Iterable[Key], reason: str) -> None:
        """Attempts that nobody executes any more: each task gets its next one."""
        lost: dict[str, list[int]] = defaultdict(list)
        for execution_id, task, attempt in sorted(keys):
            execution = self.executions.get(execution_id)
            if execution is None or execution.finished or execution.attempts[task] != attempt:
                continue
            if execution.states[task] in (_QUEUED, _RUNNING) and task not in execution.retries_ms:
                lost[execution_id].append(task)
        for execution_id, tasks in lost.items():
            draft = self._open_draft(turn, self.executions[execution_id])
            if draft is not None:
                draft.lose(tasks, reason)

    # ---------------------------------------------------------- shards and time

    def _on_shards_acquired(self, turn: Turn, acquired: ShardsAcquired) -> None:
        for manager in self._managers:
            # Claims are made anew with every acquisition, so every session reports anew; until then nothing is certain.
            self.placement.on_manager_lost(manager)
        for lease in acquired.leases:
            self.leases[lease.shard] = lease
        for execution in acquired.executions:
            lease = self.leases[execution.shard]
            lease.time_ms = max(lease.time_ms, execution.time_ms)
            self._adopt(turn, execution, lease)

    def _adopt(self, turn: Turn, execution: Execution, lease: Lease) -> None:
        """Takes over an execution from the log: its attempts are in doubt until the workers have reported."""
        execution_id = execution.execution_id
        self.executions[execution_id] = execution
        for task in execution.live_tasks():
            self.placement.doubt((execution_id, task, execution.attempts[task]))
        for task, due_ms in execution.retries_ms.items():
            self._set_timer(due_ms, execution_id, task, execution.attempts[task])
        if execution.origin.deadline_ms:
            self._set_timer(execution.origin.deadline_ms, execution_id, -1, 0)
        if execution.ready or execution.settled or not execution.open_count:
            self._draft(turn, execution, lease)

    def _on_shards_lost(self, turn: Turn, lost: ShardsLost) -> None:
        """Drops shards from memory. What this turn decided about them is dropped too, for it would be refused."""
        for shard in lost.shards:
            self.leases.pop(shard, None)
        gone = [each.execution_id for each in self.executions.values() if each.shard in lost.shards]
        for execution_id in gone:
            del self.executions[execution_id]
            self._finished.pop(execution_id, None)
            turn.drafts.pop(execution_id, None)
        self.placement.forget_shards(set(lost.shards))
        turn.acks = [ack for ack in turn.acks if ack[2] not in lost.shards]
        turn.replies = [
            reply._replace(answer=not_ours(reply.shard)) if reply.shard in lost.shards else reply
            for reply in turn.replies
        ]

    def _set_timer(self, due_ms: int, execution_id: str, task: int, attempt: int) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (due_ms, self._timer_count, execution_id, task, attempt))

    def _fire_timers(self, turn: Turn) -> None:
        """What is due. A timer that no longer fits the state is of an attempt or an execution that is over."""
        while self._timers and self._timers[0][0] <= turn.now_ms:
            due_ms, _, execution_id, task, attempt = heapq.heappop(self._timers)
            execution = self.executions.get(execution_id)
            if execution is None or execution.finished:
                continue
            if task < 0:
                if execution.origin.deadline_ms == due_ms and (draft := self._open_draft(turn, execution)):
                    draft.time_out()
            elif execution.retries_ms.get(task) == due_ms and execution.attempts[task] == attempt:
                draft = self._open_draft(turn, execution)
                if draft is not None:
                    draft.retry(task)

    # ---------------------------------------------------------------- artifacts

    def _on_artifact_fetched(self, turn: Turn, fetched: ArtifactFetched) -> None:
        for execution_id in self.shelf.on_fetched(fetched.digest, fetched.data, fetched.problem):
            self._touch(turn, execution_id)

    def _on_artifact_kept(self, turn: Turn, kept: ArtifactKept) -> None:
        execution_ids, grants = self.shelf.on_kept(f"{kept.tenant}/{kept.digest}")
        for execution_id in execution_ids:
            self._touch(turn, execution_id)
        for grant in grants:
            if self.executions.get(grant.execution.execution_id) is grant.execution:
                self._enqueue(turn, grant.execution, [(grant.task, grant.attempt)])

    def _touch(self, turn: Turn, execution_id: str) -> None:
        """Opens a draft, so that the execution advances in this turn."""
        execution = self.executions.get(execution_id)
        if execution is not None and not execution.finished:
            self._open_draft(turn, execution)

    # ----------------------------------------------------------------- writing

    def _open_draft(self, turn: Turn, execution: Execution) -> Draft | None:
        """The execution's draft in this turn; None when its shard is not ours."""
        draft = turn.drafts.get(execution.execution_id)
        if draft is not None:
            return draft
        lease = self.leases.get(execution.shard)
        return self._draft(turn, execution, lease) if lease is not None else None

    def _draft(self, turn: Turn, execution: Execution, lease: Lease) -> Draft:
        draft = turn.drafts.get(execution.execution_id)
        if draft is None:
            lease.time_ms = max(lease.time_ms, turn.now_ms)
            shelf = Shelf(bytes_of=self.shelf.bytes_of, require=self.shelf.require)
            draft = Draft(execution, lease.time_ms, lease.token, shelf, execution.sequence + 1)
            turn.drafts[execution.execution_id] = draft
        return draft

    def _advance(self, turn: Turn, draft: Draft) -> None:
        execution = draft.execution
        try:
            draft.advance()
        except NotAtHand as reason:
            self.shelf.await_bytes(turn, execution.tenant, reason.value, execution.execution_id)
        except NotStored as reason:
            self.shelf.await_kept(turn, execution.tenant, reason.value, execution.execution_id)

    def _write(self, turn: Turn) -> None:
        """Gathers the drafts into one write for each shard, in shard order, and moves the offsets on."""
        writes: dict[int, ShardWrite] = {}
        for draft in turn.drafts.values():
            execution = draft.execution
            if not draft.events:
                continue
            write = writes.get(execution.shard)
            if write is None:
                lease = self.leases[execution.shard]
                write = writes[execution.shard] = ShardWrite(lease.shard, lease.token, lease.next_offset)
            write.drafts.append(draft)
            self.leases[execution.shard].next_offset += execution.sequence - draft.first_sequence + 1
            if draft.first_sequence == 1 or execution.finished:
                write.entries.append(index_entry(execution))
            elif execution.sequence - execution.snapshot_sequence > self.limits.snapshot_every:
                execution.snapshot_sequence = execution.sequence
                write.snapshots.append(execution)
        turn.writes = [writes[shard] for shard in sorted(writes)]


def index_entry(execution: Execution) -> IndexEntry:
    """What the index shall know of an execution now."""
    finished = sum(state in FINAL_TASK_STATES for state in execution.states) if execution.finished else 0
    return IndexEntry(
        execution=execution,
        state=execution.state,
        task_count=len(execution.states),
        finished_task_count=finished,
    )


def repeated(known: Execution, submit: Submit) -> Execution | NodeflowError:
    """The answer to a submission whose id is known: the same execution, if it asks for the same."""
    if known.origin.request_digest == submit.request_digest:
        return known
    return AlreadyExists(
        f"request_id {submit.request_id!r} was used for another submission, which is execution {known.execution_id}",
        reason="REQUEST_ID_REUSED",
        metadata={"execution_id": known.execution_id},
    )


def not_ours(shard: int) -> NodeflowError:
    """The caller asks the wrong replica, or too early."""
    return Unavailable(f"shard {shard} is not served here at the moment; try again", retry_after_s=0.2)


def overloaded(limit: int) -> NodeflowError:
    """The scheduler holds all that it may."""
    return Overloaded(f"{limit} executions are open already; try again when some have finished", retry_after_s=1.0)
