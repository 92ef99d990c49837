"""The append transaction on SQLite: loads the heads that a group touches, judges each part, writes what is placed.

Owns the order of statements within the transaction. Must not know threads, nor who begins and commits.
It runs its statements on the driver's own connection: on the hot path SQLAlchemy's share of each would be the larger.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from nodeflow_state_manager.adapters import statements as sql
from nodeflow_state_manager.domain.append import (
    Behind,
    ChunkRow,
    ExecutionHead,
    LogHeads,
    Placement,
    ShardHead,
    by_shard,
)
from nodeflow_state_manager.domain.values import AppendBatch, ArtifactUse, ExecutionRecord, Refusal, ShardAppend

# SQLite's limit of parameters was 999 for long.
MAX_MARKS: Final = 500


class AppendTransaction:
    """One group commit between its BEGIN and its COMMIT."""

    def __init__(self, connection: Connection, heads: LogHeads) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        self._heads = heads
        self._rows: list[ChunkRow] = []
        self._records: list[tuple[int, ExecutionRecord]] = []
        self._snapshots: list[tuple[int, int, bytes]] = []
        self._moved: set[int] = set()

    def write(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        """Write what is accepted; return the refusals of each batch."""
        refusals: list[list[Refusal]] = [[] for _ in batches]
        parts = by_shard([batch.parts for batch in batches])
        self._load_shards()
        self._load_executions(self._heads.unknown([part for _, part in parts]))
        for number, part in parts:
            refusal = self._apply(part)
            if refusal is not None:
                refusals[number].append(refusal)
        self._flush()
        self._advance_shards()
        return refusals

    def _apply(self, part: ShardAppend) -> Refusal | None:
        judgement = self._heads.judge(part, self._missing(part.artifacts) if part.artifacts else ())
        match judgement:
            case Placement():
                self._rows += judgement.rows
                self._records += judgement.records
                self._snapshots += [(key, each.sequence, each.data) for key, each in judgement.snapshots]
                if judgement.rows:
                    self._moved.add(part.shard)
                return None
            case Behind():
                return None if self._is_resend(part) else judgement.refusal
            case Refusal():
                return judgement

    def _is_resend(self, part: ShardAppend) -> bool:
        self._flush()  # the first sending may be in this very group
        arguments = (part.shard, part.expected_offset, len(part.chunks))
        return self._heads.same_as_log(part, self._driver.execute(sql.READ_LOG_FROM, arguments).fetchall())

    def _flush(self) -> None:
        """Write what is placed so far, each kind of row at once."""
        run = self._driver.executemany
        if self._records:
            run(sql.PUT_EXECUTION, [_row(key, record) for key, record in self._records])
            self._write_labels()
        if self._rows:
            run(sql.APPEND_CHUNK, self._rows)
        if self._snapshots:
            run(sql.PUT_SNAPSHOT, self._snapshots)
        self._rows, self._records, self._snapshots = [], [], []

    def _write_labels(self) -> None:
        labelled = [(key, record.labels) for key, record in self._records if record.labels]
        if labelled:
            self._driver.executemany(sql.DROP_LABELS, [(key,) for key, _ in labelled])
            labels = [(key, *label) for key, labels in labelled for label in labels.items()]
            self._driver.executemany(sql.PUT_LABEL, labels)

    def _advance_shards(self) -> None:
        if self._moved:
            moved = [self._heads.shards[shard] for shard in sorted(self._moved)]
            rows = [(head.next_offset, head.last_event_time_ms, head.shard) for head in moved]
            self._driver.executemany(sql.ADVANCE_SHARD, rows)

    def _load_shards(self) -> None:
        # This process alone has the file open, so what the last append left is what a query would give.
        if not self._heads.shards:
            self._heads.shards = shard_heads(self._driver.execute(sql.READ_SHARDS))

    def _load_executions(self, execution_ids: Iterable[str]) -> None:
        wanted = sorted(execution_ids)
        for start in range(0, len(wanted), MAX_MARKS):
            some = tuple(wanted[start : start + MAX_MARKS])
            for execution_id, key, shard, last in self._driver.execute(sql.with_marks(sql.READ_HEADS, len(some)), some):
                self._heads.executions[execution_id] = ExecutionHead(key=key, shard=shard, last_sequence=last)

    def _missing(self, uses: Sequence[ArtifactUse]) -> list[ArtifactUse]:
        run = self._driver.execute
        return [each for each in uses if run(sql.HAS_ARTIFACT, (each.tenant, each.digest)).fetchone() is None]


def shard_heads(rows: Iterable[Sequence[Any]]) -> dict[int, ShardHead]:
    """Return the end of every shard from its rows. (The driver's rows have no types.)"""
    return {
        shard: ShardHead(
            shard=shard, leased=holder is not None, fencing_token=token, next_offset=offset, last_event_time_ms=time_ms
        )
        for shard, holder, token, _, offset, time_ms in rows
    }


def _row(key: int, record: ExecutionRecord) -> tuple[object, ...]:
    return (
        key,
        record.execution_id,
        record.tenant,
        record.shard,
        record.workflow,
        record.revision,
        int(record.state),
        json.dumps(dict(record.labels)) if record.labels else "{}",
        record.create_time_ms,
        record.finish_time_ms,
        record.request_id,
        record.request_digest,
        record.task_count,
        record.finished_task_count,
    )
