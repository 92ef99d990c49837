"""What workers and worker-managers report, and what follows from it for executions.

A report on an attempt counts only if it is about the one attempt that may still have a result (promise I2); whatever it
says, it is acknowledged once its shard's part of the turn is committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from nodeflow_scheduler.domain.events import CODE_DIFFERS, NOT_DELIVERED
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.ledger import Ledger
from nodeflow_scheduler.domain.lifecycle import TaskState
from nodeflow_scheduler.domain.messages import (
    ArgumentsFailed,
    AttemptRef,
    CapacityChanged,
    Held,
    ManagerAttached,
    ManagerLost,
    Outcome,
    Produced,
    Report,
    SessionClosed,
    SessionOpened,
    Stopped,
    Turn,
    Updates,
    key_of,
)
from nodeflow_scheduler.domain.placement import Grant, Key, Placement, Session
from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, Artifacts, Stored, Value

_QUEUED, _RUNNING = TaskState.QUEUED, TaskState.RUNNING

OVERSIZED = Failure(
    kind=FailureKind.PERMANENT,
    reason="RESULT_TOO_LARGE",
    message=f"the worker sent a result of more than {INLINE_LIMIT_BYTES} bytes inline; artifacts are for those",
)


class WorkerReports:
    """Takes in what workers say."""

    def __init__(self, ledger: Ledger, placement: Placement) -> None:
        self._ledger = ledger
        self._placement = placement

    # ---------------------------------------------------------------- attempts

    def on_updates(self, turn: Turn, updates: Updates) -> None:
        """Attempts began, ended, or were not taken."""
        if updates.started:
            self._take_started(turn, updates.session_id, updates.started)
        if updates.results:
            self._take_results(turn, updates.session_id, updates.results)
        if updates.refused:
            self._take_refused(turn, updates.session_id, updates.refused)

    def _take_started(self, turn: Turn, session_id: str, started: list[AttemptRef]) -> None:
        session = self._placement.sessions.get(session_id)
        worker_id = session.worker_id if session is not None else ""
        if session is not None and session.loads:
            session.unload(map(key_of, started))
        executions = self._ledger.executions
        begun: dict[str, dict[int, int]] = {}
        for ref in started:
            execution = executions.get(ref.execution_id)
            if execution is None or not execution.is_current(ref.task, ref.attempt, ref.token):
                continue
            if execution.states[ref.task] == _QUEUED:
                begun.setdefault(ref.execution_id, {})[ref.task] = ref.attempt
        for execution_id, attempts in begun.items():
            draft = self._ledger.draft_of(turn, executions[execution_id])
            if draft is not None:
                draft.start(list(attempts), list(attempts.values()), worker_id)

    def _take_results(self, turn: Turn, session_id: str, results: list[Report]) -> None:
        """The hot path: per result a few look-ups; per execution one event."""
        session = self._placement.sessions.get(session_id)
        live = session.live if session is not None else set()
        executions, leases, acks = self._ledger.executions, self._ledger.leases, turn.acks
        completed: dict[str, dict[int, tuple[int, Value]]] = {}
        artifacts: dict[str, dict[int, Artifacts]] = {}
        for execution_id, task, attempt, shard, token, result_id, outcome in results:
            live.discard((execution_id, task, attempt))
            lease = leases.get(shard)
            if lease is None or token > lease.token:
                continue  # Another scheduler's, or not loaded yet: the worker keeps it until the owner has it.
            acks.append((session_id, result_id, shard))
            execution = executions.get(execution_id)
            if execution is None or not execution.is_current(task, attempt, token):
                continue
            done = completed.get(execution_id)
            if isinstance(outcome, Produced):
                if done is None or task not in done:
                    artifacts.setdefault(execution_id, {})[task] = outcome.artifacts
                outcome = outcome.output  # noqa: PLW2901  # the rest is that of any result
            if (isinstance(outcome, bytes) and len(outcome) <= INLINE_LIMIT_BYTES) or (
                isinstance(outcome, Stored) and len(outcome.data) <= INLINE_LIMIT_BYTES
            ):
                if done is None:
                    done = completed[execution_id] = {}
                done.setdefault(task, (attempt, outcome))
            elif done is None or task not in done:
                self._take_failure(turn, session_id, Grant(execution, task, attempt), outcome)
        if session is not None:
            session.withheld = False
            if session.loads:
                session.unload(map(key_of, results))
        for execution_id, done in completed.items():
            draft = self._ledger.draft_of(turn, executions[execution_id])
            if draft is not None:
                attempts = [each[0] for each in done.values()]
                outputs: list[Value | None] = [each[1] for each in done.values()]
                draft.complete(list(done), attempts, outputs, artifacts.get(execution_id))

    def _take_failure(self, turn: Turn, session_id: str, ended: Grant, outcome: Outcome) -> None:
        execution, task, attempt = ended
        draft = self._ledger.draft_of(turn, execution)
        if draft is None:
            return
        if isinstance(outcome, Stopped):
            # Nobody cancelled the task, or it would not be current: the worker gave it up.
            draft.lose([task], "REFUSED")
            return
        if isinstance(outcome, Failure) and outcome.reason == CODE_DIFFERS:
            another_may_fit = self._placement.on_unfit(session_id, execution, execution.node_of(task))
            if another_may_fit:
                draft.lose([task], CODE_DIFFERS)
                return
        draft.fail(task, attempt, outcome if isinstance(outcome, Failure) else OVERSIZED)
        due_ms = execution.retries_ms.get(task)
        if due_ms is not None:
            self._ledger.timers.set(due_ms, execution.execution_id, task, attempt)

    def _take_refused(self, turn: Turn, session_id: str, refused: list[AttemptRef]) -> None:
        """Attempts that a worker did not take wait for another one; a repeat of the report changes nothing."""
        given_back = self._placement.on_refused(session_id, map(key_of, refused), turn.now_ms)
        waiting: list[Grant] = []
        adopted: list[Key] = []
        begun: list[Key] = []
        for ref in refused:
            grant = self._grant_of(ref)
            if grant is None or grant.key not in given_back:
                continue
            given_back.discard(grant.key)
            if not grant.is_wanted:
                begun.append(grant.key)  # It said before that the attempt had begun; whatever became of it, it is over.
            elif ref.token == self._ledger.leases[grant.execution.shard].token:
                waiting.append(grant)
            else:
                adopted.append(grant.key)  # Handed out again under its token, it would be refused as stale, for ever.
        self._placement.put_back(waiting)
        self.lose(turn, begun, "REFUSED")
        self.lose(turn, adopted, NOT_DELIVERED)

    def on_arguments_failed(self, turn: Turn, failed: ArgumentsFailed) -> None:
        """An attempt could not be handed out, for its arguments give no value."""
        execution = self._ledger.executions.get(failed.execution_id)
        if execution is None or not Grant(execution, failed.task, failed.attempt).is_wanted:
            return
        draft = self._ledger.draft_of(turn, execution)
        if draft is not None:
            draft.fail(failed.task, failed.attempt, failed.failure)

    def lose(self, turn: Turn, keys: Iterable[Key], reason: str) -> None:
        """Attempts that nobody executes any more: each task gets its next one."""
        lost: dict[str, list[int]] = defaultdict(list)
        for execution_id, task, attempt in sorted(keys):
            execution = self._ledger.executions.get(execution_id)
            if execution is None or task >= len(execution.attempts) or execution.attempts[task] != attempt:
                continue
            if execution.states[task] in (_QUEUED, _RUNNING) and task not in execution.retries_ms:
                lost[execution_id].append(task)
        for execution_id, tasks in lost.items():
            draft = self._ledger.draft_of(turn, self._ledger.executions[execution_id])
            if draft is not None:
                draft.lose(tasks, reason)

    def _grant_of(self, ref: AttemptRef) -> Grant | None:
        """The attempt that a worker speaks of, if it may still have a result."""
        execution = self._ledger.executions.get(ref.execution_id)
        if execution is None or not execution.is_current(ref.task, ref.attempt, ref.token):
            return None
        return Grant(execution, ref.task, ref.attempt)

    def _is_ours(self, ref: AttemptRef) -> bool:
        """Whether an attempt is known here if it counts: nobody has owned its shard after us."""
        lease = self._ledger.leases.get(ref.shard)
        return lease is not None and ref.token <= lease.token

    # ---------------------------------------------------------------- sessions

    def on_held(self, turn: Turn, held: Held) -> None:
        """A session named all that it holds: results are taken, what was lost on the way is made up for."""
        if held.session_id not in self._placement.sessions:
            return
        keys = [key_of(ref) for ref in held.live]
        finished = {key_of(report) for report in held.results}
        missing = self._placement.on_held(held.session_id, held.generation, keys, finished)
        self._placement.doubtful -= finished
        self._take_results(turn, held.session_id, held.results)
        self.lose(turn, missing, NOT_DELIVERED)
        turn.stops.extend(ref for ref in held.live if self._is_ours(ref) and self._grant_of(ref) is None)

    def on_session_opened(self, _turn: Turn, opened: SessionOpened) -> None:
        """A session is known from now on."""
        self._placement.on_opened(
            Session(
                session_id=opened.session_id,
                worker_id=opened.worker_id,
                manager=opened.manager,
                slots=opened.slots,
                credits=opened.credits,
            )
        )

    def on_capacity_changed(self, _turn: Turn, changed: CapacityChanged) -> None:
        """A session bids for more or less."""
        self._placement.on_capacity(changed.session_id, changed.slots, changed.credits)

    def on_session_closed(self, turn: Turn, closed: SessionClosed) -> None:
        """A session ended, and all that it held with it."""
        self.lose(turn, self._placement.on_closed(closed.session_id), "WORKER_LOST")

    def on_manager_attached(self, _turn: Turn, attached: ManagerAttached) -> None:
        """A worker-manager has named all its sessions."""
        self._placement.on_manager_attached(attached.manager)

    def on_manager_lost(self, _turn: Turn, lost: ManagerLost) -> None:
        """A worker-manager is out of reach."""
        self._placement.on_manager_lost(lost.manager)
