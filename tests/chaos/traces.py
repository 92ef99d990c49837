"""What a suite leaves on the machine: processes, directories, memory.

Owns how they are found. Must not know what was done to the suite.
"""

from pathlib import Path
from typing import Final

import psutil
from tests.chaos.faults import SERVICES
from tests.support.suite import Suite

MEMORY_LIMIT_BYTES: Final = 200 * 1024 * 1024
"""Resident, of a service that has executed a few thousand tasks."""


class Traces:
    """All processes of a suite that were seen."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._processes: set[psutil.Process] = set()

    def look(self) -> None:
        """See who is there."""
        self._processes.update(psutil.Process(self._suite.process.pid).children(recursive=True))

    def memory(self) -> dict[str, int]:
        """Return the resident bytes of each service."""
        return {each: psutil.Process(self._suite.pid(each)).memory_info().rss for each in SERVICES}

    def left_processes(self) -> list[str]:
        """Return what still runs of those that were seen, and of those that were started with the suite's directory."""
        mark = str(self._suite.directory).encode()
        seen = {each.pid for each in self._processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE}
        started = {int(each.parent.name) for each in Path("/proc").glob("[0-9]*/environ") if mark in _content(each)}
        return [f"{pid}: {_content(Path(f'/proc/{pid}/cmdline'))!r}" for pid in sorted(seen | started)]

    def left_directories(self) -> list[Path]:
        """Return what workers have left of their attempts."""
        return [
            each for each in (self._suite.data_dir / "workers").glob("*/*") if each.is_dir() and any(each.iterdir())
        ]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
