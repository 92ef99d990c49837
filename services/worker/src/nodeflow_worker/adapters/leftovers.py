"""What a worker leaves that was killed: processes that run on, and their directories.

Owns how they are found and ended. Normally the launcher has ended all that; but that takes a moment, it may stand
still, and it may have been killed as well. Must not know attempts.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nodeflow_shared.logs import get_log
from nodeflow_worker.adapters.launcher_link import ENTRY
from nodeflow_worker.adapters.work_directories import left_behind, remove_all
from nodeflow_worker.domain.values import ProcessIdentity

LAUNCHER_PATIENCE_S: Final = 2.0
"""How long a launcher is given to end everything itself: it finds more of it than anybody else."""
KILL_TIMEOUT_S: Final = 5.0
"""How long killed processes may take to vanish; one that hangs in the kernel takes longer, and executes nothing."""
_POLL_S: Final = 0.005

_log = get_log()


def end_left(parent: Path, noted: Sequence[ProcessIdentity]) -> None:
    """End all that workers have left that were killed, and remove their directories. Blocks until it is gone."""
    for directory in left_behind(parent):
        gives_up_at = time.monotonic() + LAUNCHER_PATIENCE_S
        while _marked("cmdline", *_launcher_marks(directory)) and time.monotonic() < gives_up_at:
            time.sleep(_POLL_S)
        end_all_below(directory)
        remove_all(str(directory))
    _end_groups(noted)


def end_all_below(directory: Path) -> None:
    """Kill every process of an attempt below a directory, their launcher first, should it stand still.

    Their environments tell them, and its command line tells it.
    """
    _kill_marked("cmdline", *_launcher_marks(directory))
    _kill_marked("environ", f"NODEFLOW_WORK_DIR={directory}/".encode())


def _launcher_marks(directory: Path) -> tuple[bytes, bytes]:
    return f"\0{ENTRY}\0".encode(), f"\0{directory}\0".encode()


def _kill_marked(name: str, *marks: bytes) -> None:
    """Kill all processes whose file of this name has all the marks, until there is none: they may start others."""
    gives_up_at = time.monotonic() + KILL_TIMEOUT_S
    while (found := _marked(name, *marks)) and time.monotonic() < gives_up_at:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _marked(name: str, *marks: bytes) -> list[int]:
    """The processes whose file of this name has all the marks."""
    found: list[int] = []
    for file in Path("/proc").glob(f"[0-9]*/{name}"):
        with contextlib.suppress(OSError):
            content = file.read_bytes()
            if all(mark in content for mark in marks):
                found.append(int(file.parent.name))
    return found


def _end_groups(noted: Sequence[ProcessIdentity]) -> None:
    """Kill process groups by their leaders: what has another environment is not found by it."""
    groups = {each.pid for each in noted if _start_ticks(each.pid) == each.start_ticks}
    groups &= _groups_alive()
    if groups:
        _log.warning("processes_left_behind", process_groups=sorted(groups))
    gives_up_at = time.monotonic() + KILL_TIMEOUT_S
    while (left := groups & _groups_alive()) and time.monotonic() < gives_up_at:
        for group in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        groups = left
        time.sleep(_POLL_S)


def _start_ticks(pid: int) -> int:
    """When a process began; 0 if there is none. (Another one could have the number of one that was noted by now.)"""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return int(fields[19]) if fields else 0


def _groups_alive() -> set[int]:
    """The process groups that have a process which is not dead."""
    found = map(_stat, Path("/proc").glob("[0-9]*/stat"))
    return {int(fields[2]) for fields in found if fields and fields[0] not in (b"Z", b"X")}


def _stat(file: Path) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (the state) on; the second may hold anything."""
    try:
        return file.read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
