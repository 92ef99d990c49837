"""The threads that SQLite databases are used on: one that writes, and a few that read.

Owns threads, transactions, and what a failure of the database means. Must not know what is in a transaction.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from nodeflow_state_manager.adapters.room import RETRY_AFTER_S
from nodeflow_state_manager.adapters.sqlite_engine import READERS, in_words
from nodeflow_state_manager.ports import StoreFailed, StoreFull

T = TypeVar("T")


class WriterThread:
    """The one connection that writes, and its thread. Calls are transactions, one after another."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: Connection | None = None

    async def open(self, prepare: Callable[[Connection], T]) -> T:
        """Connect, and bring the database up to date in a transaction. Raises DBAPIError."""
        return await self.in_thread(lambda: self._open(prepare))

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction and commit it. Raises StoreFailed."""
        return await self.in_thread(lambda: self.transact(work))

    async def close(self) -> None:
        """Let what runs finish, and disconnect."""
        await self.in_thread(self._disconnect)
        self._thread.shutdown()
        self._engine.dispose()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run work on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run work in a transaction and commit it; on the thread only. Raises StoreFailed."""
        connection = self._connection
        assert connection is not None, "the store is closed"
        try:
            with connection.begin():
                return work(connection)
        except (IntegrityError, sqlite3.IntegrityError):
            raise  # a constraint caught a fault of ours, the database is well
        except (DBAPIError, sqlite3.Error) as error:
            raise store_failed(error) from error

    def _open(self, prepare: Callable[[Connection], T]) -> T:
        connection = self._connection = self._engine.connect()
        with connection.begin():
            return prepare(connection)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ReaderThreads:
    """Connections that only read, and their threads."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix=name)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run work on one state of the database. Raises StoreFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)

    async def close(self) -> None:
        """Let what runs finish, and disconnect."""
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            raise store_failed(error) from error


def store_failed(error: DBAPIError | sqlite3.Error) -> StoreFailed:
    """Return what an error of the database means to those who wait for it."""
    kind = StoreFull if _is_full(error) else StoreFailed
    return kind(f"the database refuses: {in_words(error)}", retry_after_s=RETRY_AFTER_S)


def _is_full(error: DBAPIError | sqlite3.Error) -> bool:
    """Whether there is no room: in the file by its limit, on the disk, or there for the index of the log ahead."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = cause.sqlite_errorcode if isinstance(cause, sqlite3.Error) else None
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
