"""The scheduler's core: inputs in, a turn out. No loop, no socket, no clock.

One call of `step` takes all that has arrived, decides, and returns what to append and what to do once that is
committed. The driver calls `commit` in the order of the turns; only then is anything handed out, answered or
acknowledged. `ledger.py` has the executions, `placement.py` the workers; `callers.py` and `worker_reports.py` decide
about inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nodeflow_scheduler.domain.admission import Limits
from nodeflow_scheduler.domain.callers import Callers
from nodeflow_scheduler.domain.events import NOT_DELIVERED
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.explanation import Explanation, explain
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.ledger import Ledger, not_ours
from nodeflow_scheduler.domain.messages import (
    ArgumentsFailed,
    ArtifactFetched,
    ArtifactKept,
    AttemptRef,
    Cancel,
    CapacityChanged,
    Held,
    Input,
    ManagerAttached,
    ManagerLost,
    Outgoing,
    SessionClosed,
    SessionOpened,
    ShardsAcquired,
    ShardsLost,
    Submit,
    Tick,
    Turn,
    Updates,
    key_of,
)
from nodeflow_scheduler.domain.placement import Grant, Placement
from nodeflow_scheduler.domain.progress import Draft
from nodeflow_scheduler.domain.timers import DEADLINE
from nodeflow_scheduler.domain.worker_reports import WorkerReports

LOSSES_LIMIT = 10_000
"""Attempts that one turn takes for lost after a takeover: no turn may take as long as a lease."""


class Core:
    """The state of all executions of the shards that are ours, and of the workers that we can reach."""

    def __init__(self, managers: Sequence[str], limits: Limits | None = None) -> None:
        self.ledger = Ledger(limits or Limits())
        self.placement = Placement()
        self._managers = tuple(managers)
        self._reports = reports = WorkerReports(self.ledger, self.placement)
        callers = Callers(self.ledger)
        # The handlers take the input type of their key; a dict cannot say so.
        self._on: dict[type, Callable[[Turn, Any], None]] = {
            Submit: callers.on_submit,
            Cancel: callers.on_cancel,
            Updates: reports.on_updates,
            Held: reports.on_held,
            SessionOpened: reports.on_session_opened,
            CapacityChanged: reports.on_capacity_changed,
            SessionClosed: reports.on_session_closed,
            ManagerAttached: reports.on_manager_attached,
            ManagerLost: reports.on_manager_lost,
            ArgumentsFailed: reports.on_arguments_failed,
            ShardsAcquired: self._on_shards_acquired,
            ShardsLost: self._on_shards_lost,
            ArtifactFetched: self._on_artifact_fetched,
            ArtifactKept: self._on_artifact_kept,
            Tick: lambda _turn, _tick: None,
        }

    @property
    def executions(self) -> dict[str, Execution]:
        """Executions in memory, by id. What they say may not be committed yet."""
        return self.ledger.executions

    def explain(self, execution: Execution, task: int) -> Explanation:
        """Why a task of an execution in memory is where it is."""
        return explain(execution, task, self.placement, self.ledger.shelf.is_parked)

    # -------------------------------------------------------------------- turns

    def step(self, inputs: Iterable[Input], now_ms: int) -> Turn:
        """Takes in all that has arrived and decides."""
        turn = self.ledger.begin(now_ms)
        for each in inputs:
            self._on[type(each)](turn, each)
        self._fire_timers(turn)
        self.ledger.go_on(turn)
        placement = self.placement
        placement.try_again(turn.now_ms)
        if self._knows_losses():
            self._reports.lose(turn, placement.take_doubtful(LOSSES_LIMIT), NOT_DELIVERED)
        self.ledger.advance(turn)
        self.ledger.write(turn)
        return turn

    def commit(self, turn: Turn, refused: frozenset[int]) -> Outgoing:
        """What a turn may do now that the log has answered. Called once for each turn, in order.

        `refused` are the shards whose part of the append was refused: they are dropped from memory at once, and what
        later turns have decided about them until now never happened either.
        """
        void = self.ledger.refused_parts(turn, refused)
        if refused:
            self._drop(refused)
        outgoing = Outgoing(refused=void)
        acks: dict[str, list[int]] = defaultdict(list)
        for session_id, result_id, shard in turn.acks:
            if shard not in void:
                acks[session_id].append(result_id)
        outgoing.acks = acks
        for session_id in acks:
            self.placement.on_acknowledged(session_id)
        for draft in turn.drafts.values():
            if draft.execution.shard not in void:
                self._commit_draft(turn, draft, outgoing)
        for ref in turn.stops:
            if ref.shard not in void:
                self._stop(ref, outgoing)
        outgoing.replies = [
            reply._replace(answer=not_ours(reply.shard)) if reply.shard in void else reply for reply in turn.replies
        ]
        return outgoing

    def _commit_draft(self, turn: Turn, draft: Draft, outgoing: Outgoing) -> None:
        execution = draft.execution
        if draft.queued and self.executions.get(execution.execution_id) is execution:
            self._enqueue(turn, execution, draft.queued)
        for task, attempt in draft.stopped:
            token = execution.tokens[task]
            self._stop(AttemptRef(execution.execution_id, task, attempt, execution.shard, token), outgoing)
        if execution.finished:
            self.placement.on_finished(execution.execution_id)
            self.ledger.retire(execution)

    def _enqueue(self, turn: Turn, execution: Execution, queued: list[tuple[int, int]]) -> None:
        """Puts committed attempts into the line, but those whose arguments must be stored first."""
        if not execution.expansions:
            self.placement.enqueue(execution, queued)
            return
        shelf = self.ledger.shelf
        ready = []
        for task, attempt in queued:
            grant = Grant(execution, task, attempt)
            missing = shelf.missing_arguments(grant)
            if missing is None:
                ready.append((task, attempt))
            else:
                shelf.park_grant(turn, execution.tenant, missing, grant)
        self.placement.enqueue(execution, ready)

    def _stop(self, ref: AttemptRef, outgoing: Outgoing) -> None:
        holder = self.placement.holder_of(key_of(ref))
        if holder is not None:
            outgoing.stops.setdefault(holder.session_id, []).append(ref)

    # --------------------------------------------------------------------- time

    def next_due_ms(self) -> int | None:
        """When the next timer is due, or a worker is asked again that refused something; 0 if a turn is due now."""
        if self.ledger.unfinished or self._knows_losses():
            return 0
        due_ms = [each for each in (self.ledger.timers.next_due_ms(), self.placement.next_try_ms()) if each is not None]
        return min(due_ms, default=None)

    def _knows_losses(self) -> bool:
        """Whether attempts that may have been handed out certainly were not."""
        return bool(self.placement.doubtful) and self.placement.certain(self._managers)

    def _fire_timers(self, turn: Turn) -> None:
        for timer in self.ledger.timers.due(turn.now_ms):
            draft = self.ledger.draft_of(turn, self.executions[timer.execution_id])
            if draft is None:
                continue
            if timer.task == DEADLINE:
                draft.time_out()
            else:
                draft.retry(timer.task)

    # ------------------------------------------------------------------- shards

    def _on_shards_acquired(self, turn: Turn, acquired: ShardsAcquired) -> None:
        for manager in self._managers:
            # Claims are made anew with every acquisition, so every session reports anew; until then nothing is certain.
            self.placement.on_manager_lost(manager)
        for lease in acquired.leases:
            self.ledger.leases[lease.shard] = lease
        self.ledger.forgotten_ms = turn.now_ms  # Those that are over were not loaded.
        for execution in acquired.executions:
            self.ledger.adopt(turn, execution)
            for task in execution.live_tasks():
                self.placement.doubt((execution.execution_id, task, execution.attempts[task]))

    def _on_shards_lost(self, turn: Turn, lost: ShardsLost) -> None:
        """What this turn decided about the shards is dropped too, for it would be refused."""
        turn.shards_lost = True
        for execution_id in self._drop(lost.shards):
            turn.drafts.pop(execution_id, None)
        turn.acks = [ack for ack in turn.acks if ack[2] not in lost.shards]
        turn.replies = [
            reply._replace(answer=not_ours(reply.shard)) if reply.shard in lost.shards else reply
            for reply in turn.replies
        ]

    def _drop(self, shards: frozenset[int]) -> list[str]:
        gone = self.ledger.drop(shards)
        self.placement.forget(shards, gone)
        return gone

    # ---------------------------------------------------------------- artifacts

    def _on_artifact_fetched(self, turn: Turn, fetched: ArtifactFetched) -> None:
        shelf = self.ledger.shelf
        for execution_id in shelf.on_fetched(fetched.tenant, fetched.digest, fetched.data, fetched.problem):
            self.ledger.touch(turn, execution_id)

    def _on_artifact_kept(self, turn: Turn, kept: ArtifactKept) -> None:
        execution_ids, grants = self.ledger.shelf.on_kept(kept.tenant, kept.digest, kept.problem)
        for execution_id in execution_ids:
            self.ledger.touch(turn, execution_id)
        for grant in grants:
            if self.executions.get(grant.execution.execution_id) is not grant.execution:
                continue
            if kept.problem:
                self._reports.on_arguments_failed(turn, not_kept(grant, kept.problem))
            else:
                self._enqueue(turn, grant.execution, [(grant.task, grant.attempt)])


def not_kept(grant: Grant, problem: str) -> ArgumentsFailed:
    """An attempt cannot be handed out, for one of its arguments could not be stored."""
    execution, task, attempt = grant
    failure = Failure(kind=FailureKind.SYSTEM, reason="ARGUMENTS_NOT_STORED", message=problem)
    return ArgumentsFailed(execution_id=execution.execution_id, task=task, attempt=attempt, failure=failure)
