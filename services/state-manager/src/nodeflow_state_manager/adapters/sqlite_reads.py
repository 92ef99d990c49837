"""What is read from the log and the index on SQLite.

Owns the queries of readers, page by page, each page in one transaction. Must not know threads.
"""

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from sqlalchemy import Connection

from nodeflow_shared.errors import NotFound, StaleLease
from nodeflow_state_manager.adapters import statements as sql
from nodeflow_state_manager.adapters.sqlite_append import MAX_MARKS, shard_heads
from nodeflow_state_manager.domain.append import last_sequence, stale_holding
from nodeflow_state_manager.domain.filters import LabelTerm, StateTerm, Term, TimeTerm, WorkflowTerm
from nodeflow_state_manager.domain.paging import Page, Position, cut
from nodeflow_state_manager.domain.values import (
    Chunk,
    ExecutionRecord,
    ExecutionSlice,
    ExecutionState,
    HeldShard,
    Snapshot,
)

SLICE_BYTES: Final = 1 << 20
OPEN_ROWS: Final = 256
CHUNK_ROWS: Final = 256

# Any: a row's values are what the columns hold.
Row = Sequence[Any]


@dataclass(slots=True)
class _Position:
    """An execution that is being read: what its next slice follows."""

    execution_id: str
    key: int
    after_sequence: int
    record: ExecutionRecord | None
    snapshot: Snapshot | None


class ExecutionReader:
    """Reads one execution, a slice per call."""

    def __init__(self, execution_id: str, after_sequence: int, *, allow_snapshot: bool) -> None:
        self._execution_id = execution_id
        self._after_sequence = after_sequence
        self._allow_snapshot = allow_snapshot
        self._position: _Position | None = None

    def next_slice(self, connection: Connection) -> ExecutionSlice:
        """Return the next slice, to be called until it is the last; raises NotFound."""
        if self._position is None:
            self._position = self._find(connection)
        return _next_slice(connection, self._position, SLICE_BYTES)

    def _find(self, connection: Connection) -> _Position:
        row = connection.exec_driver_sql(sql.READ_EXECUTION, (self._execution_id,)).first()
        if row is None:
            raise NotFound(f"there is no execution {self._execution_id}", reason="EXECUTION_NOT_FOUND")
        snapshot = _snapshot(connection, self._execution_id, row[-1]) if self._allow_snapshot else None
        if snapshot is not None and snapshot.sequence <= self._after_sequence:
            snapshot = None
        after = snapshot.sequence if snapshot else self._after_sequence
        return _Position(self._execution_id, row[-1], after, record_of(row), snapshot)


class OpenReader:
    """Reads all open executions of shards, a group of slices per call."""

    def __init__(self, shards: Sequence[HeldShard]) -> None:
        self._held = shards
        self._shards = deque(held.shard for held in shards)
        self._after_key = 0
        self._found: deque[Row] = deque()
        self._position: _Position | None = None

    def next_group(self, connection: Connection) -> list[ExecutionSlice]:
        """Return slices of about 1 MiB together, none after the last; raises StaleLease."""
        self._check_leases(connection)
        group: list[ExecutionSlice] = []
        room = SLICE_BYTES
        while room > 0 and (position := self._current(connection)) is not None:
            piece = _next_slice(connection, position, room)
            room -= _size(piece)
            group.append(piece)
            if piece.last:
                self._position = None
        return group

    def _check_leases(self, connection: Connection) -> None:
        heads = shard_heads(connection.exec_driver_sql(sql.READ_SHARDS))
        for held in self._held:
            fault = stale_holding(held, heads[held.shard])
            if fault is not None:
                raise StaleLease(fault)

    def _current(self, connection: Connection) -> _Position | None:
        """Return the execution that is being read. Snapshots can be large: each is read when it is its turn."""
        if self._position is None and (row := self._next_row(connection)) is not None:
            snapshot = _snapshot(connection, row[0], row[-1])
            after = snapshot.sequence if snapshot else 0
            self._position = _Position(row[0], row[-1], after, record_of(row), snapshot)
        return self._position

    def _next_row(self, connection: Connection) -> Row | None:
        while not self._found and self._shards:
            arguments = (self._shards[0], self._after_key, OPEN_ROWS)
            rows = connection.exec_driver_sql(sql.READ_OPEN, arguments).all()
            self._found.extend(rows)
            self._after_key = rows[-1][-1] if rows else 0
            if not rows:
                self._shards.popleft()
        return self._found.popleft() if self._found else None


def get_executions(connection: Connection, execution_ids: Sequence[str]) -> list[ExecutionRecord]:
    """Return the entries that exist."""
    found: list[ExecutionRecord] = []
    for start in range(0, len(execution_ids), MAX_MARKS):
        some = tuple(execution_ids[start : start + MAX_MARKS])
        rows = connection.exec_driver_sql(sql.with_marks(sql.READ_EXECUTIONS, len(some)), some)
        found.extend(record_of(row) for row in rows)
    return found


def list_executions(
    connection: Connection, tenant: str, terms: Sequence[Term], after: Position | None, limit: int
) -> Page[ExecutionRecord]:
    """Return a page of entries that satisfy all terms, newest first."""
    conditions = [_condition(term) for term in terms]
    if after is not None:
        conditions.append((sql.AFTER_POSITION, after))
    rows = _search(connection, tenant, conditions, limit + 1)
    return cut([record_of(row) for row in rows], [(row[7], row[-1]) for row in rows], limit)


def find_executions(connection: Connection, tenant: str, prefix: str, limit: int) -> list[ExecutionRecord]:
    """Return entries whose id begins with the prefix, newest first."""
    conditions: list[tuple[str, Position]] = [(sql.BEGINS_WITH, (prefix, prefix + "\U0010ffff"))] if prefix else []
    return [record_of(row) for row in _search(connection, tenant, conditions, limit)]


def record_of(row: Row) -> ExecutionRecord:
    """Return the entry in a row of the index."""
    return ExecutionRecord(
        execution_id=row[0],
        tenant=row[1],
        shard=row[2],
        workflow=row[3],
        revision=row[4],
        state=ExecutionState(row[5]),
        labels=json.loads(row[6]) if row[6] != "{}" else {},
        create_time_ms=row[7],
        finish_time_ms=row[8],
        request_id=row[9],
        request_digest=row[10],
        task_count=row[11],
        finished_task_count=row[12],
    )


def _search(
    connection: Connection, tenant: str, conditions: Sequence[tuple[str, Position]], limit: int
) -> Sequence[Row]:
    where = "".join(f" AND {text}" for text, _ in conditions)
    arguments = (tenant, *(value for _, values in conditions for value in values), limit)
    return connection.exec_driver_sql(sql.LIST_EXECUTIONS.format(where=where), arguments).all()


def _condition(term: Term) -> tuple[str, Position]:
    """Return a term as SQL. Only our own words get into the text; values are parameters."""
    match term:
        case StateTerm():
            return f"state {'=' if term.equal else '!='} ?", (int(term.state),)
        case WorkflowTerm():
            return f"workflow {'=' if term.equal else '!='} ?", (term.workflow,)
        case LabelTerm():
            return f"{'' if term.equal else 'NOT '}{sql.HAS_LABEL}", (term.key, term.value)
        case TimeTerm():
            return f"{term.field.value}_ms {term.operator.value} ?", (term.time_ms,)
        case _:
            assert_never(term)


def _snapshot(connection: Connection, execution_id: str, key: int) -> Snapshot | None:
    row = connection.exec_driver_sql(sql.READ_SNAPSHOT, (key,)).first()
    return None if row is None else Snapshot(execution_id=execution_id, sequence=row[0], data=row[1])


def _next_slice(connection: Connection, position: _Position, room: int) -> ExecutionSlice:
    """Read on, up to about `room` bytes, and move the position."""
    arguments = (position.key, position.key, position.after_sequence, position.after_sequence, CHUNK_ROWS)
    rows = connection.exec_driver_sql(sql.READ_CHUNKS, arguments)
    chunks: list[Chunk] = []
    more = False
    for first, count, data, offset in rows:  # One by one: all of them together can be large.
        if chunks and room <= 0:
            more = True
            break
        chunks.append(Chunk(position.execution_id, first, count, data, offset))
        room -= len(data) + 64
    rows.close()
    record, snapshot = position.record, position.snapshot
    position.record = position.snapshot = None
    if chunks:
        position.after_sequence = last_sequence(chunks[-1])
    last = not more and len(chunks) < CHUNK_ROWS
    return ExecutionSlice(
        execution_id=position.execution_id, chunks=chunks, record=record, snapshot=snapshot, last=last
    )


def _size(piece: ExecutionSlice) -> int:
    snapshot = len(piece.snapshot.data) if piece.snapshot else 0
    return 256 + snapshot + sum(len(chunk.data) + 64 for chunk in piece.chunks)
