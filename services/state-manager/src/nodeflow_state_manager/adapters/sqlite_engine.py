"""A SQLite database as a file: who may open it, how it is opened, and how its schema comes up to date.

Owns pragmas, transactions and the lock on the directory. Must not know tables.
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

import alembic.command
import alembic.config
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from nodeflow_shared.errors import StartupError

DATABASE_FILE: Final = "nodeflow.db"
LOGS_FILE: Final = "logs.db"
LOCK_FILE: Final = "nodeflow.lock"

BUSY_TIMEOUT_MS: Final = 5_000
# Measured: 4 KiB fits two chunks of 1.5 KB and costs 20 % more per chunk; 16 KiB saves 10 % more
# there, and doubles what a small commit writes.
PAGE_BYTES: Final = 8_192
CACHE_KIB: Final = 65_536

READERS: Final = 4


class DirectoryLock:
    """The right to a data directory, held until released or until the process is gone."""

    def __init__(self, directory: Path) -> None:
        """Take the lock; raises StartupError if another process has it or the directory cannot be used."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartupError(f"cannot use the data directory {directory}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise StartupError(
                f"another state-manager has the data directory {directory} open; stop it, or choose another directory"
            ) from None

    def release(self) -> None:
        """Give the directory back."""
        os.close(self._file)


def open_writer(path: Path, *, max_pages: int | None = None) -> Engine:
    """Return an engine whose transactions begin with the write lock, and whose commits are on disk when they return.

    `max_pages` bounds the file's size: tests simulate a full disk with it.
    """
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), poolclass=NullPool, hide_parameters=True)

    def on_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        _prepare(connection)
        # Sizes first: they can only be chosen before the first table is written.
        _pragma(connection, "page_size", PAGE_BYTES)
        _pragma(connection, "journal_mode", "WAL")
        _pragma(connection, "synchronous", "FULL")
        _pragma(connection, "foreign_keys", "ON")
        if max_pages is not None:
            _pragma(connection, "max_page_count", max_pages)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", _begin_with("BEGIN IMMEDIATE"))
    return engine


def open_readers(path: Path) -> Engine:
    """Return an engine for READERS threads; each transaction sees one state, and never blocks the writer."""
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False},
    )

    def on_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        _prepare(connection)
        _pragma(connection, "query_only", "ON")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", _begin_with("BEGIN"))
    return engine


def migrate(connection: Connection, revisions: str) -> None:
    """Bring the schema up to date within the connection's transaction, by the revisions in a directory beside this."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / revisions))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")


def in_words(error: DBAPIError | sqlite3.Error) -> str:
    """Return what the database said, without the statement."""
    return str(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else str(error)


def _prepare(connection: DBAPIConnection) -> None:
    assert isinstance(connection, sqlite3.Connection)
    # The driver's own transactions begin at the first write, which loses updates silently; ours begin explicitly.
    connection.isolation_level = None
    _pragma(connection, "busy_timeout", BUSY_TIMEOUT_MS)
    _pragma(connection, "cache_size", -CACHE_KIB)


def _pragma(connection: DBAPIConnection, name: str, value: str | int) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _begin_with(statement: str) -> "_Begin":
    return _Begin(statement)


class _Begin:
    """Begins a transaction in one way."""

    def __init__(self, statement: str) -> None:
        self._statement = statement

    def __call__(self, connection: Connection) -> None:
        connection.exec_driver_sql(self._statement)
