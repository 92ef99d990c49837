"""What a store holds of executions, decoded to one fact for each event.

Owns the form of a history, and how it is read from a SQLite file. Must not know what makes a history right: that is
the checkers' business, so nothing is put in order, left out or corrected here.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.log_pb2 import LogChunk, LogRecord

NO_TASK: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One event of the log: what a record says of one task, or of the execution as a whole."""

    sequence: int
    offset: int
    time_ms: int
    token: int
    """The fencing token of the lease under which it was decided."""
    kind: str
    """The name of the record's kind in the proto: `tasks_completed`, …"""
    task: int = NO_TASK
    attempt: int = 0
    record: LogRecord
    """All that the record says, of other tasks too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionHistory:
    """An execution: its line in the index, and its facts in the order in which they were committed."""

    execution_id: str
    tenant: str = "default"
    shard: int = 0
    request_id: str = ""
    state: ExecutionState.ValueType = ExecutionState.EXECUTION_STATE_RUNNING
    task_count: int = 0
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHistory:
    """A shard's line: the last token that was granted, and where the next event goes."""

    shard: int
    fencing_token: int
    next_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything in a store."""

    executions: tuple[ExecutionHistory, ...]
    shards: tuple[ShardHistory, ...]

    def execution(self, execution_id: str) -> ExecutionHistory:
        """Return one execution; there must be exactly one with this id."""
        [found] = [each for each in self.executions if each.execution_id == execution_id]
        return found


def facts_of(data: bytes, *, first_sequence: int, first_offset: int) -> Iterator[Fact]:
    """Decode a chunk of the log; the places count on from those of its first event."""
    chunk = LogChunk.FromString(data)
    place = 0
    for record in chunk.records:
        kind = record.WhichOneof("record") or "none"
        for task, attempt in _subjects(record, kind):
            yield Fact(
                sequence=first_sequence + place,
                offset=first_offset + place,
                time_ms=chunk.time_unix_ms,
                token=chunk.fencing_token,
                kind=kind,
                task=task,
                attempt=attempt,
                record=record,
            )
            place += 1


def _subjects(record: LogRecord, kind: str) -> Sequence[tuple[int, int]]:
    """Return (task, attempt) for each event of a record."""
    match kind:
        case "tasks_queued" | "tasks_started" | "tasks_completed" | "attempts_lost":
            columns = getattr(record, kind)
            return list(zip(columns.task_numbers, columns.attempt_numbers, strict=True))
        case "tasks_skipped" | "tasks_cancelled":
            return [(task, 0) for task in getattr(record, kind).task_numbers]
        case "task_failed":
            return [(record.task_failed.task_number, record.task_failed.attempt_number)]
        case "node_expanded":
            return [(record.node_expanded.task_number, 0)]
        case _:
            return [(NO_TASK, 0)]


def read_history(database: Path) -> History:
    """Read a store that no process works on any more."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        facts = _facts_by_execution(connection)
        executions = tuple(
            ExecutionHistory(
                execution_id=row["execution_id"],
                tenant=row["tenant"],
                shard=row["shard"],
                request_id=row["request_id"],
                state=ExecutionState.ValueType(row["state"]),
                task_count=row["task_count"],
                facts=tuple(facts.get(row["key"], ())),
            )
            for row in connection.execute("SELECT * FROM executions ORDER BY key")
        )
        shards = tuple(
            ShardHistory(shard=row["shard"], fencing_token=row["fencing_token"], next_offset=row["next_offset"])
            for row in connection.execute("SELECT * FROM shards ORDER BY shard")
        )
    return History(executions=executions, shards=shards)


def _facts_by_execution(connection: sqlite3.Connection) -> Mapping[int, list[Fact]]:
    facts: dict[int, list[Fact]] = {}
    for row in connection.execute("SELECT * FROM chunks ORDER BY shard, first_offset"):
        decoded = list(facts_of(row["data"], first_sequence=row["first_sequence"], first_offset=row["first_offset"]))
        # Offsets and sequences were given out by this count; facts that are not there would be silent gaps.
        assert len(decoded) == row["event_count"], f"a chunk of {len(decoded)} events says {row['event_count']}"
        facts.setdefault(row["execution_key"], []).extend(decoded)
    return facts
