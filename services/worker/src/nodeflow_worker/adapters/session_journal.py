"""The journal in SQLite: one file per session, beside the session's lock, made when it first has something to keep.

Owns the schema, the batches, and what happens to a file that cannot be used. All work on files is done in one thread,
batch by batch: all that came up while a batch was committed is in the next one (one fsync). The lock of the session
guards the file: whoever reads a dead session's holds its lock.
"""

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from nodeflow.worker_manager.v1 import attempt_pb2

from nodeflow_shared.logs import get_log
from nodeflow_worker.domain.events import Recorded
from nodeflow_worker.domain.values import Attempt, Key, ProcessIdentity
from nodeflow_worker.ports import Left
from nodeflow_worker.wire_results import add_results, read_result

FORGET_AFTER_S: Final = 1.0
FORGET_AT: Final = 200
"""How long rows that nobody needs stay, or until there are so many: a result that is told twice changes nothing."""
UNUSABLE_NAME: Final = "unusable.sqlite"
"""What a file that is no journal is renamed to; the last one is kept, for people to look at."""
SCHEMA_VERSION: Final = 1
BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS attempts (
    execution_id TEXT NOT NULL,
    task_number INTEGER NOT NULL,
    attempt_number INTEGER NOT NULL,
    fencing_token INTEGER NOT NULL,
    boot_id TEXT NOT NULL,      -- of the machine, when its process ran
    pid INTEGER NOT NULL,       -- of the leader of its process group; 0 once it has ended
    start_ticks INTEGER NOT NULL,
    result BLOB,                -- nodeflow.worker_manager.v1.AttemptResult; NULL while it has none
    PRIMARY KEY (execution_id, task_number, attempt_number)
) STRICT
"""
_NOTE: Final = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, NULL)"
_RECORD: Final = "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, '', 0, 0, ?)"
_FORGET: Final = "DELETE FROM attempts WHERE execution_id = ? AND task_number = ? AND attempt_number = ?"
_READ: Final = "SELECT * FROM attempts ORDER BY rowid"

Row = tuple[str | int | bytes, ...]
T = TypeVar("T")

_log = get_log()


@dataclass(slots=True)
class _Batch:
    """What one commit does: statements in their order, and the attempts whose results are durable after it."""

    statements: list[tuple[str, Row]] = field(default_factory=list)
    recorded: list[Attempt] = field(default_factory=list)


class SessionJournal:
    """The port `Journal`. A worker that runs no processes has no file."""

    def __init__(self, directory: Path) -> None:
        self._files = _Files(directory)
        self._tell: Callable[[Recorded], None] = _ignore
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting = _Batch()
        self._forgotten: dict[Key, None] = {}
        self._commit: asyncio.Future[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._written = True

    @cached_property
    def _boot_id(self) -> str:
        """What tells this run of the machine from others: of Linux alone, as processes are."""
        return BOOT_ID_FILE.read_text().strip()

    def listen(self, tell: Callable[[Recorded], None]) -> None:
        """Have Recorded told."""
        self._tell = tell

    def begin(self, session_id: str) -> None:
        """Keep for this session from now on; what waits to be written is of the one before it, and dropped with it."""
        self._waiting = _Batch()
        self._forgotten.clear()
        self._thread.submit(self._files.begin, session_id)

    def note(self, attempt: Attempt, process: ProcessIdentity) -> None:
        """Keep that the attempt's process runs."""
        row = (*attempt.key, attempt.fencing_token, self._boot_id, process.pid, process.start_ticks)
        self._put(attempt, (_NOTE, row))

    def record(self, attempt: Attempt) -> None:
        """Keep the attempt's result."""
        self._waiting.recorded.append(attempt)
        self._put(attempt, _record(attempt))

    def _put(self, attempt: Attempt, statement: tuple[str, Row]) -> None:
        self._forgotten.pop(attempt.key, None)
        self._waiting.statements.append(statement)
        self._write()

    def forget(self, attempts: Sequence[Attempt]) -> None:
        """Drop attempts some time later, many at once: beside a result they would double what its commit costs."""
        self._forgotten.update((attempt.key, None) for attempt in attempts)
        if len(self._forgotten) >= FORGET_AT:
            self._drop_forgotten()
        elif self._later is None and self._forgotten:
            self._later = asyncio.get_running_loop().call_later(FORGET_AFTER_S, self._drop_forgotten)

    def _drop_forgotten(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._waiting.statements += [(_FORGET, key) for key in self._forgotten]
        self._forgotten.clear()
        self._write()

    async def take_over(self, session_ids: Sequence[str]) -> Left:
        """Return what dead sessions left, once their results are kept for the present session as well."""
        results: list[Attempt] = []
        unfinished: list[Key] = []
        processes: list[ProcessIdentity] = []
        for session_id in session_ids:
            try:
                rows = await self._run(partial(self._files.read, session_id))
            except (sqlite3.Error, DecodeError, ValueError) as error:
                _log.error("journal_unusable", session_id=session_id, error=str(error), set_aside=UNUSABLE_NAME)
                await self._run(partial(self._files.set_aside, session_id))
                continue
            results += [each for each in rows if isinstance(each, Attempt)]
            notes = [each for each in rows if isinstance(each, _Note)]
            unfinished += [each.key for each in notes]
            processes += [each.process for each in notes if each.boot_id == self._boot_id]
        results.sort(key=lambda each: each.attempt_number)
        await self._keep(results)
        return Left(results=tuple(results), unfinished=tuple(unfinished), processes=tuple(processes))

    async def _keep(self, results: Sequence[Attempt]) -> None:
        if not results:
            return
        try:
            await self._run(partial(self._files.commit, [_record(each) for each in results]))
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def drop(self, session_ids: Sequence[str], then: Callable[[], None]) -> None:
        """Remove the files of sessions."""
        removal = self._run(partial(self._files.remove_all, tuple(session_ids)))
        removal.add_done_callback(partial(_on_removed, tuple(session_ids), then))

    async def close(self) -> None:
        """Write what waits, and let go of the file."""
        self._tell = _ignore
        self._drop_forgotten()
        while self._commit is not None:
            await asyncio.wait([self._commit])
        await self._run(self._files.close)
        self._thread.shutdown()

    def _run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _write(self) -> None:
        """Commit what waits, unless a commit is under way, which is followed by another one."""
        if self._commit is not None or not self._waiting.statements:
            return
        batch, self._waiting = self._waiting, _Batch()
        self._commit = self._run(partial(self._files.commit, batch.statements))
        self._commit.add_done_callback(partial(self._on_committed, batch))

    def _on_committed(self, batch: _Batch, commit: "asyncio.Future[None]") -> None:
        self._commit = None
        error = commit.exception()
        if error is None:
            self._written = True
        else:
            self._complain(error)
        if batch.recorded:
            self._tell(Recorded(attempts=batch.recorded))
        self._write()

    def _complain(self, error: BaseException) -> None:
        """Say once that results are told without being kept: that is better than not to tell them."""
        if self._written:
            _log.error("journal_not_written", error=str(error), consequence="results are kept in memory only")
        self._written = False


@dataclass(frozen=True, slots=True)
class _Note:
    """A row of an attempt that has no result."""

    key: Key
    boot_id: str
    process: ProcessIdentity


class _Files:
    """The files. All is called in the one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._session = ""
        self._open: sqlite3.Connection | None = None

    def path(self, session_id: str) -> Path:
        """Where a session's journal is, if it has one."""
        return self._directory / f"session-{session_id}.sqlite"

    def begin(self, session_id: str) -> None:
        """Turn to another session; the file of the one before it is of no use any more."""
        self.close()
        over, self._session = self._session, session_id
        if over:
            try:
                self.remove(over)
            except OSError as error:
                _not_removed([over], error)

    def commit(self, statements: Sequence[tuple[str, Row]]) -> None:
        """Carry out statements in one transaction, durably; those for a session whose file was removed are void."""
        if not self._session:
            return
        if self._open is None:
            self._open = _make(self.path(self._session))
        if len(statements) == 1:  # which is a transaction by itself; each call hands the interpreter's lock to and fro
            self._open.execute(*statements[0])
            return
        self._open.execute("BEGIN")
        try:
            for sql, group in itertools.groupby(statements, itemgetter(0)):
                self._open.executemany(sql, (row for _, row in group))
            self._open.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._open.execute("ROLLBACK")
            raise

    def read(self, session_id: str) -> list[Attempt | _Note]:
        """Return all that a dead session left; ValueError or sqlite3.Error if the file is no journal."""
        if not self.path(session_id).exists():
            return []
        with contextlib.closing(_connect(self.path(session_id))) as connection:
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                return []  # its process was killed before it had written anything
            if version != SCHEMA_VERSION:
                raise ValueError(f"its format is {version}, and {SCHEMA_VERSION} is what this version reads")
            return [_read(row) for row in connection.execute(_READ)]

    def set_aside(self, session_id: str) -> None:
        """Keep a file that is no journal out of the way."""
        self.path(session_id).replace(self._directory / UNUSABLE_NAME)
        self.remove(session_id)

    def remove(self, session_id: str) -> None:
        """Remove a session's file, and what SQLite has beside it."""
        if session_id == self._session:
            self.close()
            self._session = ""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path(session_id)}{suffix}").unlink(missing_ok=True)

    def remove_all(self, session_ids: Sequence[str]) -> None:
        """Remove the files of sessions."""
        for session_id in session_ids:
            self.remove(session_id)

    def close(self) -> None:
        """Let go of the present file."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _make(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _record(attempt: Attempt) -> tuple[str, Row]:
    kept = attempt_pb2.AttemptUpdates()
    add_results(kept.results, [attempt])
    return _RECORD, (*attempt.key, attempt.fencing_token, kept.results[0].SerializeToString())


def _read(row: Row) -> Attempt | _Note:
    execution_id, task, attempt, _, boot_id, pid, start_ticks, result = row
    if result is not None:
        assert isinstance(result, bytes)
        return read_result(attempt_pb2.AttemptResult.FromString(result))
    process = ProcessIdentity(pid=int(pid), start_ticks=int(start_ticks))
    return _Note(key=(str(execution_id), int(task), int(attempt)), boot_id=str(boot_id), process=process)


def _on_removed(session_ids: Sequence[str], then: Callable[[], None], removal: "asyncio.Future[None]") -> None:
    error = removal.exception()
    if error is None:
        then()
    else:
        _not_removed(session_ids, error)


def _not_removed(session_ids: Sequence[str], error: BaseException) -> None:
    _log.warning("journal_not_removed", session_ids=session_ids, error=str(error))


def _ignore(_event: Recorded) -> None:
    """Before anyone listens, and after the end."""
