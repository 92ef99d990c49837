"""What an append may write: tokens, offsets and sequences of the log, judged part by part.

Owns the rules of acceptance, for every store alike. Must not know how rows are kept: a store loads the heads that a
part touches, asks for a judgement, and writes what was placed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nodeflow_state_manager.domain.values import (
    FINAL_STATES,
    ArtifactUse,
    Chunk,
    ExecutionRecord,
    HeldShard,
    Refusal,
    RefusalReason,
    ShardAppend,
    Snapshot,
)

# shard, first offset, execution key, first sequence, event count, data: a row of the log as databases take it.
ChunkRow = tuple[int, int, int, int, int, bytes]

MAX_HEADS: Final = 100_000


@dataclass(slots=True, kw_only=True)
class ShardHead:
    """Where a shard's log ends, and who may write to it."""

    shard: int
    leased: bool
    fencing_token: int
    next_offset: int
    last_event_time_ms: int = 0


@dataclass(slots=True, kw_only=True)
class ExecutionHead:
    """Where an execution's events end. `key` is its short name within the store: an index over it stays small."""

    key: int
    shard: int
    last_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An accepted part: the rows to write, and entries and snapshots by the key of their execution."""

    rows: Sequence[ChunkRow]
    records: Sequence[tuple[int, ExecutionRecord]]
    snapshots: Sequence[tuple[int, Snapshot]]


@dataclass(frozen=True, slots=True)
class Behind:
    """The part begins before the end of the log: it is a resend if the log has the same from `expected_offset` on."""

    refusal: Refusal


@dataclass(slots=True, kw_only=True)
class LogHeads:
    """The ends of shards and executions while a group of parts is judged; accepted parts move them.

    `executions` may also serve as a cache between groups: entries stay right as long as every commit succeeds. After a
    failed one they must be forgotten.
    """

    next_key: int
    shards: dict[int, ShardHead] = field(default_factory=dict)
    executions: dict[str, ExecutionHead] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def unknown(self, parts: Sequence[ShardAppend]) -> set[str]:
        """Return the executions that parts name and whose heads must be loaded first, if the store has them."""
        known = self.executions
        names = {chunk[0] for part in parts for chunk in part.chunks if chunk[0] not in known}
        for part in parts:
            names.update(record.execution_id for record in part.records if record.execution_id not in known)
            names.update(each.execution_id for each in part.snapshots if each.execution_id not in known)
        return names

    def judge(self, part: ShardAppend, missing: Sequence[ArtifactUse] = ()) -> Placement | Behind | Refusal:
        """Accept or refuse a part; `missing` are the artifacts it refers to that are not stored."""
        head = self.shards[part.shard]
        if not head.leased or part.fencing_token != head.fencing_token:
            return _refuse(part, RefusalReason.STALE_TOKEN, _stale(part, head))
        if part.expected_offset != head.next_offset:
            message = f"the shard's next offset is {head.next_offset}, not {part.expected_offset}"
            refusal = _refuse(part, RefusalReason.WRONG_OFFSET, message)
            return Behind(refusal) if part.expected_offset < head.next_offset else refusal
        if missing:
            message = f"artifact {missing[0].digest} of tenant {missing[0].tenant} is not stored"
            return _refuse(part, RefusalReason.MISSING_ARTIFACT, message)
        return self._place(part, head)

    def same_as_log(self, part: ShardAppend, logged: Sequence[ChunkRow]) -> bool:
        """Whether the log's rows from the part's offset on are the part's chunks."""
        heads = self.executions
        offset = part.expected_offset
        expected: list[ChunkRow] = []
        for execution_id, sequence, count, data, _ in part.chunks:
            head = heads.get(execution_id)
            if head is None:
                return False
            expected.append((part.shard, offset, head.key, sequence, count, data))
            offset += count
        return expected == list(logged)

    def forget_finished(self) -> None:
        """After a commit: drop what will hardly be asked for again, and the oldest half if there are too many."""
        for execution_id in self.finished:
            self.executions.pop(execution_id, None)
        self.finished.clear()
        if len(self.executions) > MAX_HEADS:
            for execution_id in list(self.executions)[: MAX_HEADS // 2]:
                del self.executions[execution_id]

    def _place(self, part: ShardAppend, head: ShardHead) -> Placement | Refusal:
        new = self._new_heads(part)
        rows: list[ChunkRow] = []
        ends: dict[str, int] = {}
        shard, offset = part.shard, head.next_offset
        known = self.executions
        for execution_id, sequence, count, data, _ in part.chunks:
            execution = known.get(execution_id) or new.get(execution_id)
            if execution is None:
                return _refuse(part, RefusalReason.WRONG_SEQUENCE, _without_record(execution_id))
            last = ends.get(execution_id, execution.last_sequence)
            if sequence != last + 1 or execution.shard != shard:
                return _refuse(part, RefusalReason.WRONG_SEQUENCE, _out_of_sequence(execution_id, execution, sequence))
            ends[execution_id] = last + count
            rows.append((shard, offset, execution.key, sequence, count, data))
            offset += count
        fault = self._fault_in_side_entries(part, new, ends)
        if fault is not None:
            return _refuse(part, RefusalReason.WRONG_SEQUENCE, fault)
        return self._accept(part, head, new, ends, rows)

    def _new_heads(self, part: ShardAppend) -> dict[str, ExecutionHead]:
        new: dict[str, ExecutionHead] = {}
        for record in part.records:
            name = record.execution_id
            if name not in self.executions and name not in new:
                new[name] = ExecutionHead(key=self.next_key + len(new), shard=part.shard, last_sequence=0)
        return new

    def _fault_in_side_entries(
        self, part: ShardAppend, new: dict[str, ExecutionHead], ends: dict[str, int]
    ) -> str | None:
        for record in part.records:
            head = self.executions.get(record.execution_id)
            if head is not None and head.shard != part.shard:
                return f"execution {record.execution_id} belongs to shard {head.shard}"
        for snapshot in part.snapshots:
            name = snapshot.execution_id
            head = self.executions.get(name) or new.get(name)
            if head is None or head.shard != part.shard:
                return _without_record(name)
            last = ends.get(name, head.last_sequence)
            if snapshot.sequence > last:
                return f"the snapshot of execution {name} is at sequence {snapshot.sequence}, its last event at {last}"
        return None

    def _accept(
        self,
        part: ShardAppend,
        head: ShardHead,
        new: dict[str, ExecutionHead],
        ends: dict[str, int],
        rows: list[ChunkRow],
    ) -> Placement:
        executions = self.executions
        executions.update(new)
        self.next_key += len(new)
        for execution_id, last in ends.items():
            executions[execution_id].last_sequence = last
        if rows:
            head.next_offset = rows[-1][1] + rows[-1][4]
            head.last_event_time_ms = max(head.last_event_time_ms, part.last_event_time_ms)
        self.finished.update(record.execution_id for record in part.records if record.state in FINAL_STATES)
        return Placement(
            rows=rows,
            records=[(executions[record.execution_id].key, record) for record in part.records],
            snapshots=[(executions[each.execution_id].key, each) for each in part.snapshots],
        )


def by_shard(batches: Sequence[Sequence[ShardAppend]]) -> list[tuple[int, ShardAppend]]:
    """Return all parts with the number of their batch, in the order of shards, and of arrival within a shard."""
    parts = [(number, part) for number, batch in enumerate(batches) for part in batch]
    parts.sort(key=lambda numbered: numbered[1].shard)
    return parts


def stale_holding(held: HeldShard, head: ShardHead) -> str | None:
    """Return why shards may not be read under a lease, or None if they may."""
    if head.leased and head.fencing_token == held.fencing_token:
        return None
    return _not_current(held.shard, held.fencing_token, head)


def last_sequence(chunk: Chunk) -> int:
    """Return the sequence of a chunk's last event."""
    return chunk.first_sequence + chunk.event_count - 1


def _refuse(part: ShardAppend, reason: RefusalReason, message: str) -> Refusal:
    return Refusal(shard=part.shard, reason=reason, message=f"shard {part.shard}: {message}")


def _stale(part: ShardAppend, head: ShardHead) -> str:
    return _not_current(part.shard, part.fencing_token, head)


def _not_current(shard: int, token: int, head: ShardHead) -> str:
    if not head.leased:
        return f"nobody holds shard {shard}; acquire it again"
    return f"the current token of shard {shard} is {head.fencing_token}, not {token}"


def _without_record(execution_id: str) -> str:
    return f"execution {execution_id} is not in the shard's index; its record comes with its first chunk"


def _out_of_sequence(execution_id: str, head: ExecutionHead, sequence: int) -> str:
    return (
        f"execution {execution_id} of shard {head.shard} ends at sequence {head.last_sequence}, "
        f"and the chunk begins at {sequence}"
    )
