"""The executions of the shards that are ours, and what a turn writes about them.

Owns leases, executions and timers, and the one way to change an execution: its draft of the turn. State is ahead of the
log between a turn and its commit, which is why a refused append drops the shard from memory: what was decided on top of
it never happened, and no later turn may tell anyone about it either.
"""

from __future__ import annotations

from collections import OrderedDict

from nodeflow_scheduler.domain.admission import Admission, Limits
from nodeflow_scheduler.domain.artifacts import ArtifactShelf
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import FINAL_TASK_STATES
from nodeflow_scheduler.domain.messages import IndexEntry, Lease, ShardWrite, Turn
from nodeflow_scheduler.domain.progress import Draft, NotAtHand, NotStored, Shelf
from nodeflow_scheduler.domain.timers import DEADLINE, Timer, Timers
from nodeflow_shared.errors import NodeflowError, Unavailable


class Ledger:
    """All executions in memory."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.admission = Admission(limits)
        self.leases: dict[int, Lease] = {}
        self.executions: dict[str, Execution] = {}
        self.shelf = ArtifactShelf()
        self.timers = Timers(self._fits)
        self._shelf = Shelf(bytes_of=self.shelf.bytes_of, require=self.shelf.require)
        self._finished: OrderedDict[str, int] = OrderedDict()
        self._finished_tasks = 0
        self.forgotten_ms = 0
        """All executions of our shards that were accepted later than this are in memory."""
        self.unfinished: list[str] = []
        """Executions that the next turn advances, whatever else comes."""
        self._turn_count = 0
        self._void_until: dict[int, int] = {}

    # ------------------------------------------------------------------- turns

    def begin(self, now_ms: int) -> Turn:
        """The next turn."""
        self._turn_count += 1
        return Turn(self._turn_count, now_ms)

    def draft_of(self, turn: Turn, execution: Execution) -> Draft | None:
        """The execution's draft in this turn; None when its shard is not ours."""
        draft = turn.drafts.get(execution.execution_id)
        if draft is None:
            lease = self.leases.get(execution.shard)
            if lease is None:
                return None
            lease.time_ms = max(lease.time_ms, turn.now_ms)
            draft = Draft(execution, lease.time_ms, lease.token, self._shelf, execution.sequence + 1)
            turn.drafts[execution.execution_id] = draft
        return draft

    def touch(self, turn: Turn, execution_id: str) -> None:
        """Opens a draft, so that the execution advances in this turn."""
        execution = self.executions.get(execution_id)
        if execution is not None and not execution.finished:
            self.draft_of(turn, execution)

    def advance(self, turn: Turn) -> None:
        """Takes every decision that is possible, for all that the turn has touched."""
        for draft in turn.drafts.values():
            execution = draft.execution
            try:
                draft.advance()
            except NotAtHand as reason:
                self.shelf.await_bytes(turn, execution.tenant, reason.value, execution.execution_id)
            except NotStored as reason:
                self.shelf.await_kept(turn, execution.tenant, reason.value, execution.execution_id)
            if draft.unfinished:
                self.unfinished.append(execution.execution_id)

    def go_on(self, turn: Turn) -> None:
        """Opens drafts of what the turn before left unfinished."""
        unfinished, self.unfinished = self.unfinished, []
        for execution_id in unfinished:
            self.touch(turn, execution_id)

    def write(self, turn: Turn) -> None:
        """Gathers the drafts into one write for each shard, in shard order, and moves the offsets on."""
        writes: dict[int, ShardWrite] = {}
        for draft in turn.drafts.values():
            if not draft.events:
                continue
            execution = draft.execution
            if execution.expansions:
                self.admission.count(execution.execution_id, len(execution.states))
            lease = self.leases[execution.shard]
            write = writes.get(execution.shard)
            if write is None:
                write = ShardWrite(lease.shard, lease.token, lease.next_offset, lease.time_ms)
                writes[execution.shard] = write
            write.drafts.append(draft)
            lease.next_offset += execution.sequence - draft.first_sequence + 1
            if draft.first_sequence == 1 or execution.finished:
                write.entries.append(index_entry(execution))
            elif execution.sequence - execution.snapshot_sequence > self.limits.snapshot_every:
                execution.snapshot_sequence = execution.sequence
                write.snapshots.append(execution)
        turn.writes = [writes[shard] for shard in sorted(writes)]

    def refused_parts(self, turn: Turn, refused: frozenset[int]) -> frozenset[int]:
        """The shards for which a turn never happened: refused ones, and those decided on top of refused parts."""
        for shard in refused:
            self._void_until[shard] = self._turn_count
        if not self._void_until:
            return refused
        void = frozenset(shard for shard, last in self._void_until.items() if turn.number <= last)
        self._void_until = {shard: last for shard, last in self._void_until.items() if turn.number < last}
        return void

    def retire(self, execution: Execution) -> None:
        """An execution that is over, by a committed event: it stays for readers until there are too many."""
        if self.executions.get(execution.execution_id) is not execution:
            return
        self.admission.forget(execution.execution_id)
        self._finished[execution.execution_id] = len(execution.states)
        self._finished_tasks += len(execution.states)
        limits = self.limits
        while len(self._finished) > limits.finished_executions or (
            self._finished_tasks > limits.finished_tasks and len(self._finished) > 1
        ):
            execution_id, tasks = self._finished.popitem(last=False)
            self._finished_tasks -= tasks
            forgotten = self.executions.pop(execution_id)
            self.forgotten_ms = max(self.forgotten_ms, forgotten.start_ms)

    # ------------------------------------------------------------------ shards

    def adopt(self, turn: Turn, execution: Execution) -> None:
        """Takes over an execution from the log."""
        lease = self.leases[execution.shard]
        lease.time_ms = max(lease.time_ms, execution.time_ms)
        execution_id = execution.execution_id
        self.executions[execution_id] = execution
        self.admission.count(execution_id, len(execution.states))
        for task, due_ms in execution.retries_ms.items():
            self.timers.set(due_ms, execution_id, task, execution.attempts[task])
        if execution.origin.deadline_ms:
            self.timers.set(execution.origin.deadline_ms, execution_id, DEADLINE, 0)
        if execution.ready or execution.settled or not execution.open_count:
            self.draft_of(turn, execution)

    def drop(self, shards: frozenset[int]) -> list[str]:
        """Drops shards from memory; returns the executions that are gone."""
        for shard in shards:
            self.leases.pop(shard, None)
        gone = [each.execution_id for each in self.executions.values() if each.shard in shards]
        for execution_id in gone:
            self.executions.pop(execution_id).void = True
            self.admission.forget(execution_id)
            self._finished_tasks -= self._finished.pop(execution_id, 0)
        return gone

    def _fits(self, timer: Timer) -> bool:
        """Whether a timer is still about the attempt or the execution that it was set for."""
        execution = self.executions.get(timer.execution_id)
        if execution is None or execution.finished:
            return False
        if timer.task == DEADLINE:
            return execution.origin.deadline_ms == timer.due_ms
        task = timer.task
        return execution.retries_ms.get(task) == timer.due_ms and execution.attempts[task] == timer.attempt


def index_entry(execution: Execution) -> IndexEntry:
    """What the index shall know of an execution now."""
    finished = sum(state in FINAL_TASK_STATES for state in execution.states) if execution.finished else 0
    return IndexEntry(
        execution=execution,
        state=execution.state,
        task_count=len(execution.states),
        finished_task_count=finished,
    )


def not_ours(shard: int) -> NodeflowError:
    """The caller asks the wrong replica, or too early."""
    message = f"shard {shard} is not served here at the moment; try again, or at another scheduler"
    return Unavailable(message, reason="SHARD_NOT_HERE", retry_after_s=0.2)
