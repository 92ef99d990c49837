"""Session ids as locked files: a successor can lock a file exactly if the process that held it is dead.

Owns the files `<state_dir>/<worker_id>/session-<uuid>.lock`. Works for any number of processes of one worker id.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

_PREFIX: Final = "session-"
_SUFFIX: Final = ".lock"


class SessionLocks:
    """The port `Sessions`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._own: dict[str, int] = {}
        self._current = ""
        self._dead: dict[str, int] = {}

    def begin(self) -> str:
        """Draw and lock a new id; the one before it, of this very process, is dead from then on."""
        if self._current:
            self._dead[self._current] = self._own.pop(self._current)
        session = str(uuid4())
        # Locked before it has its name: under it, no other process can take it for a dead one's.
        partial = self._directory / f".{session}"
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        partial.rename(self._path(session))
        self._own[session] = fd
        self._current = session
        return session

    def dead(self) -> Sequence[str]:
        """Lock what can be locked, and return its ids."""
        for file in sorted(self._directory.glob(f"{_PREFIX}*{_SUFFIX}")):
            session = file.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            if session not in self._own and session not in self._dead:
                fd = _lock(file)
                if fd is not None:
                    self._dead[session] = fd
        return list(self._dead)

    def forget(self, session_ids: Sequence[str]) -> None:
        """Remove the files of dead sessions."""
        for session in session_ids:
            fd = self._dead.pop(session, None)
            if fd is not None:
                self._path(session).unlink(missing_ok=True)
                os.close(fd)

    def end(self) -> None:
        """Remove the present session's file."""
        if self._current:
            self._path(self._current).unlink(missing_ok=True)

    def close(self) -> None:
        """Release all locks; files stay for a successor."""
        for fd in (*self._own.values(), *self._dead.values()):
            os.close(fd)
        self._own.clear()
        self._dead.clear()
        self._current = ""

    def _path(self, session: str) -> Path:
        return self._directory / f"{_PREFIX}{session}{_SUFFIX}"


def _lock(file: Path) -> int | None:
    """Return the locked file, or None if its process lives or someone else was quicker."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
