"""One suite for one data directory.

Owns the lock file. Children inherit the lock: it ends with the last process that works on the data, so that a new
suite never meets the orphans of a supervisor that was killed.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from nodeflow_sdk.suite.errors import SuiteError

# Orphans notice their parent's death within half a second and drain; this is longer than that takes.
ORPHAN_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.05


@asynccontextmanager
async def locked(data_dir: Path, on_wait: Callable[[str], None]) -> AsyncIterator[int]:
    """Hold the data directory's lock, and give its file descriptor; raises SuiteError if another suite has it.

    What a dead supervisor's children still hold is waited for, after a word to `on_wait`.
    """
    descriptor = _open(data_dir)
    try:
        await _acquire(descriptor, data_dir, on_wait)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(data_dir: Path) -> int:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SuiteError(f"the data directory {data_dir} cannot be used: {error.strerror or error}") from None


async def _acquire(descriptor: int, data_dir: Path, on_wait: Callable[[str], None]) -> None:
    if _try_lock(descriptor):
        return
    holder = _pid_in(descriptor)
    if holder is None or _is_alive(holder):
        who = f"process {holder}" if holder else "another process"
        raise SuiteError(
            f"a suite already runs in {data_dir} ({who}); use it as it is, stop it with Ctrl-C "
            f"{f'or kill {holder} ' if holder else ''}first, or give this one another --data-dir"
        )
    on_wait(f"the processes of an earlier suite in {data_dir} are still stopping")
    try:
        async with asyncio.timeout(ORPHAN_TIMEOUT_S):
            # A poll: a lock that is waited for in a thread could not be given up.
            while not _try_lock(descriptor):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise SuiteError(
            f"processes of an earlier suite in {data_dir} do not end; "
            "find them with `ps ax | grep nodeflow_` and stop them"
        ) from None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
