"""The Store on SQLite: one writer thread whose transactions are on disk when they return, and readers beside it.

Owns which call runs where. Must not know what is in a transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from nodeflow_shared.errors import StartupError
from nodeflow_shared.logs import get_log
from nodeflow_state_manager.adapters import sqlite_reads as reads
from nodeflow_state_manager.adapters import sqlite_registry as registry
from nodeflow_state_manager.adapters import statements as sql
from nodeflow_state_manager.adapters.room import check_room
from nodeflow_state_manager.adapters.sqlite_append import AppendTransaction
from nodeflow_state_manager.adapters.sqlite_engine import (
    DATABASE_FILE,
    DirectoryLock,
    in_words,
    migrate,
    open_readers,
    open_writer,
)
from nodeflow_state_manager.adapters.sqlite_threads import ReaderThreads, WriterThread
from nodeflow_state_manager.domain.append import LogHeads
from nodeflow_state_manager.domain.filters import Term
from nodeflow_state_manager.domain.paging import Page, Position
from nodeflow_state_manager.domain.values import (
    AppendBatch,
    ArtifactRecord,
    ExecutionRecord,
    ExecutionSlice,
    HeldShard,
    Refusal,
    ShardLease,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)

T = TypeVar("T")

_log = get_log()


class SqliteStore:
    """See ports.Store. Open it with `open_sqlite`."""

    def __init__(
        self, directory: Path, lock: DirectoryLock, writer: "_Writer", readers: ReaderThreads, shard_count: int
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._writer = writer
        self._readers = readers
        self._shard_count = shard_count

    @property
    def shard_count(self) -> int:
        """How many shards the database has."""
        return self._shard_count

    async def acquire_shards(self, holder: str, shards: Sequence[int], lease_timeout_ms: int) -> list[ShardLease]:
        """See ports.Store."""
        return await self._writer.run(lambda c: registry.acquire_shards(c, holder, shards, lease_timeout_ms))

    async def renew_shards(self, holder: str, shards: Sequence[HeldShard], lease_timeout_ms: int) -> list[int]:
        """See ports.Store."""
        return await self._writer.run(lambda c: registry.renew_shards(c, holder, shards, lease_timeout_ms))

    async def release_shards(self, holder: str, shards: Sequence[HeldShard]) -> None:
        """See ports.Store."""
        await self._writer.run(lambda c: registry.release_shards(c, holder, shards))

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        """See ports.Store."""
        return await self._writer.append(batches)

    async def check_writable(self, room_bytes: int) -> None:
        """See ports.Store."""
        await asyncio.to_thread(check_room, self._directory, room_bytes)
        await self._writer.run(lambda c: c.exec_driver_sql(sql.TOUCH))

    async def read_open(self, shards: Sequence[HeldShard]) -> AsyncIterator[Sequence[ExecutionSlice]]:
        """See ports.Store."""
        reader = reads.OpenReader(shards)
        while group := await self._readers.run(reader.next_group):
            yield group

    async def read_execution(
        self, execution_id: str, after_sequence: int, *, allow_snapshot: bool
    ) -> AsyncIterator[ExecutionSlice]:
        """See ports.Store."""
        reader = reads.ExecutionReader(execution_id, after_sequence, allow_snapshot=allow_snapshot)
        last = False
        while not last:
            piece = await self._readers.run(reader.next_slice)
            last = piece.last
            yield piece

    async def get_executions(self, execution_ids: Sequence[str]) -> list[ExecutionRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: reads.get_executions(c, execution_ids))

    async def list_executions(
        self, tenant: str, terms: Sequence[Term], after: Position | None, limit: int
    ) -> Page[ExecutionRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: reads.list_executions(c, tenant, terms, after, limit))

    async def find_executions(self, tenant: str, prefix: str, limit: int) -> list[ExecutionRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: reads.find_executions(c, tenant, prefix, limit))

    async def create_workflow(self, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        """See ports.Store."""
        return await self._writer.run(lambda c: registry.create_workflow(c, workflow))

    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        """See ports.Store."""
        return await self._readers.run(lambda c: registry.get_workflow(c, tenant, name, revision))

    async def list_workflows(self, tenant: str, name: str, after: Position | None, limit: int) -> Page[WorkflowRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: registry.list_workflows(c, tenant, name, after, limit))

    async def register_session(self, session: WorkerSession) -> tuple[WorkerRecord, bool]:
        """See ports.Store."""
        return await self._writer.run(lambda c: registry.register_session(c, session))

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """See ports.Store."""
        await self._writer.run(lambda c: registry.end_sessions(c, session_ids))

    async def list_workers(self, after: Position | None, limit: int, *, live_only: bool) -> Page[WorkerRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: registry.list_workers(c, after, limit, live_only=live_only))

    async def put_artifact(self, artifact: ArtifactRecord) -> None:
        """See ports.Store."""
        await self._writer.run(lambda c: registry.put_artifact(c, artifact))

    async def get_artifacts(self, tenant: str, digests: Sequence[str]) -> list[ArtifactRecord]:
        """See ports.Store."""
        return await self._readers.run(lambda c: registry.get_artifacts(c, tenant, digests))

    async def close(self) -> None:
        """See ports.Store."""
        await self._readers.close()
        await self._writer.close()
        self._lock.release()


async def open_sqlite(directory: Path, shard_count: int, *, max_pages: int | None = None) -> SqliteStore:
    """Open the database of a data directory, made or migrated as needed; raises StartupError.

    `shard_count` is that of a new database. `max_pages` bounds the file: tests simulate a full disk with it.
    """
    lock = DirectoryLock(directory)
    path = directory / DATABASE_FILE
    writer = _Writer(open_writer(path, max_pages=max_pages))
    try:
        found = await writer.open(lambda connection: _prepare(connection, shard_count))
    except (DBAPIError, CommandError) as error:
        await writer.close()
        lock.release()
        said = in_words(error) if isinstance(error, DBAPIError) else str(error)
        raise StartupError(f"cannot open the database {path}: {said}") from error
    if found != shard_count:
        _log.warning("shard_count_is_fixed", setting=shard_count, database=found)
    return SqliteStore(directory, lock, writer, ReaderThreads(open_readers(path), "sqlite-reader"), found)


class _Writer(WriterThread):
    """The writer's thread, with the ends of the log that an append leaves for the next one."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "sqlite-writer")
        self._heads: LogHeads | None = None

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        """Run the append transaction, with the heads that were left by the last one."""
        return await self.in_thread(lambda: self._append(batches))

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction and commit it."""
        return await self.in_thread(lambda: self._run(work))

    def _run(self, work: Callable[[Connection], T]) -> T:
        if self._heads is not None:
            self._heads.shards = {}  # the work may change them; the next append reads them anew
        return self.transact(work)

    def _append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        heads, self._heads = self._heads, None  # forgotten, unless the commit succeeds
        if heads is None:
            heads = LogHeads(next_key=self.transact(_next_execution_key))
        refusals = self.transact(lambda connection: AppendTransaction(connection, heads).write(batches))
        heads.forget_finished()
        self._heads = heads
        return refusals


def _prepare(connection: Connection, shard_count: int) -> int:
    migrate(connection, "migrations")
    return registry.create_shards(connection, shard_count)


def _next_execution_key(connection: Connection) -> int:
    return int(connection.exec_driver_sql(sql.NEXT_EXECUTION_KEY).scalar_one())
