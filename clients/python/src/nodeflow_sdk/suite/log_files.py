"""Logs of the services: a bounded file for each, and the last lines in memory.

Owns the files and their rotation. Must not know what a line says.
"""

import logging
from collections import deque
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from nodeflow_sdk.suite.services import SuiteService

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
OLD_FILES: Final = 2
TAIL_LINES: Final = 12


class _File(RotatingFileHandler):
    """A line that cannot be written, say because the disk is full, is left out: a log is no reason to end a suite."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name of the base class
        """Go on with the next line."""

    def close(self) -> None:
        """Close the file, although what is left of a line may find no room."""
        with suppress(OSError):
            super().close()


class LogFile:
    """One service's log, kept across its restarts."""

    def __init__(self, data_dir: Path, service: SuiteService) -> None:
        self.path = data_dir / "logs" / f"{service}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._handler = _File(self.path, maxBytes=MAX_FILE_BYTES, backupCount=OLD_FILES, delay=True)

    def write(self, line: str) -> None:
        """Append a line; rotates the file when it is full."""
        self.tail.append(line)
        self._handler.emit(logging.makeLogRecord({"msg": line}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
