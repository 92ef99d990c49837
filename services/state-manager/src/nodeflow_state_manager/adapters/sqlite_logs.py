"""The LogStore on SQLite, in a file beside the event log's.

Owns its statements and what they mean together. Must not know what a chunk says.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from nodeflow_shared.errors import StartupError
from nodeflow_state_manager.adapters.room import check_room
from nodeflow_state_manager.adapters.sqlite_engine import LOGS_FILE, in_words, migrate, open_readers, open_writer
from nodeflow_state_manager.adapters.sqlite_threads import ReaderThreads, WriterThread
from nodeflow_state_manager.domain.values import LogChunk, Refusal, StoredLogChunk

READ_BYTES: Final = 1 << 20
_READ_ROWS: Final = 512

_READ_EXECUTION: Final = "SELECT key, next_position FROM log_executions WHERE tenant = ? AND execution_id = ?"
_CREATE_EXECUTION: Final = (
    "INSERT INTO log_executions (tenant, execution_id, next_position) VALUES (?, ?, 1) RETURNING key, next_position"
)
_ADVANCE_EXECUTION: Final = "UPDATE log_executions SET next_position = ? WHERE key = ?"
_READ_NEXT_LINE: Final = (
    "SELECT first_line + line_count FROM log_chunks WHERE execution_key = ? AND task_number = ?"
    " AND attempt_number = ? AND fencing_token = ? ORDER BY first_line DESC LIMIT 1"
)
_APPEND_CHUNK: Final = (
    "INSERT INTO log_chunks (execution_key, position, task_number, attempt_number, fencing_token, first_line,"
    " line_count, runs) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_READ_CHUNKS: Final = (
    "SELECT position, task_number, attempt_number, fencing_token, first_line, line_count, runs FROM log_chunks"
    " WHERE execution_key = ? AND position > ? {terms} ORDER BY position"
)
# A write that changes nothing but the file: what a full disk refuses too.
_TOUCH: Final = "UPDATE log_executions SET next_position = next_position WHERE key = 1"

_Attempt = tuple[int, int, int, int]


class SqliteLogStore:
    """See ports.LogStore. Open it with `open_sqlite_logs`, after the store whose lock guards the directory."""

    def __init__(self, directory: Path, writer: WriterThread, readers: ReaderThreads) -> None:
        self._directory = directory
        self._writer = writer
        self._readers = readers

    async def append(self, batches: Sequence[Sequence[LogChunk]]) -> list[list[Refusal]]:
        """See ports.LogStore."""
        await self._writer.run(lambda c: _append(c, [chunk for batch in batches for chunk in batch]))
        return [[] for _ in batches]

    async def check_writable(self, room_bytes: int) -> None:
        """See ports.LogStore."""
        await asyncio.to_thread(check_room, self._directory, room_bytes)
        await self._writer.run(lambda c: c.exec_driver_sql(_TOUCH))

    async def last_position(self, tenant: str, execution_id: str) -> int:
        """See ports.LogStore."""
        row = await self._readers.run(lambda c: c.exec_driver_sql(_READ_EXECUTION, (tenant, execution_id)).first())
        return row[1] - 1 if row is not None else 0

    async def read(
        self,
        tenant: str,
        execution_id: str,
        after_position: int,
        *,
        task_number: int | None = None,
        attempt_number: int | None = None,
    ) -> list[StoredLogChunk]:
        """See ports.LogStore."""
        terms = {"task_number": task_number, "attempt_number": attempt_number}
        given = {name: value for name, value in terms.items() if value is not None}
        return await self._readers.run(lambda c: _read(c, tenant, execution_id, after_position, given))

    async def close(self) -> None:
        """See ports.LogStore."""
        await self._readers.close()
        await self._writer.close()


async def open_sqlite_logs(directory: Path, *, max_pages: int | None = None) -> SqliteLogStore:
    """Open logs.db in a data directory, made or migrated as needed; raises StartupError.

    `max_pages` bounds the file: tests simulate a full disk with it.
    """
    path = directory / LOGS_FILE
    writer = WriterThread(open_writer(path, max_pages=max_pages), "sqlite-logs")
    try:
        await writer.open(lambda connection: migrate(connection, "log_migrations"))
    except (DBAPIError, CommandError) as error:
        await writer.close()
        said = in_words(error) if isinstance(error, DBAPIError) else str(error)
        raise StartupError(f"cannot open the database {path}: {said}") from error
    return SqliteLogStore(directory, writer, ReaderThreads(open_readers(path), "sqlite-logs-reader"))


def _append(connection: Connection, chunks: Sequence[LogChunk]) -> None:
    run = connection.exec_driver_sql
    executions: dict[tuple[str, str], list[int]] = {}
    next_lines: dict[_Attempt, int] = {}
    rows: list[tuple[int, int, int, int, int, int, int, bytes]] = []
    for chunk in chunks:
        name = (chunk.tenant, chunk.execution_id)
        place = executions.get(name)
        if place is None:
            row = run(_READ_EXECUTION, name).first() or run(_CREATE_EXECUTION, name).one()
            place = executions[name] = list(row)
        attempt = (place[0], chunk.task_number, chunk.attempt_number, chunk.fencing_token)
        if attempt not in next_lines:
            next_lines[attempt] = run(_READ_NEXT_LINE, attempt).scalar() or 1
        if chunk.first_line < next_lines[attempt]:
            continue
        rows.append((place[0], place[1], *attempt[1:], chunk.first_line, chunk.line_count, chunk.runs))
        place[1] += 1
        next_lines[attempt] = chunk.first_line + chunk.line_count
    if rows:
        run(_APPEND_CHUNK, rows)
        run(_ADVANCE_EXECUTION, [(next_position, key) for key, next_position in executions.values()])


def _read(
    connection: Connection, tenant: str, execution_id: str, after_position: int, given: dict[str, int]
) -> list[StoredLogChunk]:
    execution = connection.exec_driver_sql(_READ_EXECUTION, (tenant, execution_id)).first()
    if execution is None:
        return []
    statement = _READ_CHUNKS.format(terms="".join(f" AND {name} = ?" for name in given))
    rows = connection.exec_driver_sql(statement, (execution[0], after_position, *given.values()))
    found: list[StoredLogChunk] = []
    size = 0
    for row in rows:
        chunk = LogChunk(
            tenant=tenant,
            execution_id=execution_id,
            task_number=row[1],
            attempt_number=row[2],
            fencing_token=row[3],
            first_line=row[4],
            line_count=row[5],
            runs=row[6],
        )
        found.append(StoredLogChunk(position=row[0], chunk=chunk))
        size += len(chunk.runs)
        if size >= READ_BYTES or len(found) >= _READ_ROWS:
            break
    rows.close()
    return found
