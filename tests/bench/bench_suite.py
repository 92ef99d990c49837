"""A suite for one run of the bench: fresh data directory, two cores, a time limit, and words for what went wrong.

Owns the directory and the end of the run. Must not know what is measured.
"""

import asyncio
import fcntl
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from nodeflow_sdk.suite import Suite, SuiteError, SuiteOptions, SuiteService, running_suite
from nodeflow_sdk.suite.observer import SilentObserver
from nodeflow_shared.errors import NodeflowError

BUILD: Final = Path("build") / "bench"
CORES: Final = 2
# With the stop of four services, each within DRAIN_TIMEOUT_S and the supervisor's grace, a run ends before 120 s.
LIMIT_S: Final = 95.0
DRAIN_TIMEOUT_S: Final = 2.0
TAIL_LINES: Final = 15


class BenchFailed(Exception):
    """A run came to nothing; the message says why, and what the services said last."""


class _Restarts(SilentObserver):
    """Remembers who died."""

    def __init__(self) -> None:
        self.died: list[str] = []

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        """Remember a death."""
        self.died.append(f"the {service} died (exit code {exit_code}) and was started again")


def use_two_cores() -> list[int]:
    """Bind this process and all that it starts to two cores, or to the one there is; returns them."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    return cores


@contextmanager
def only_bench() -> Iterator[None]:
    """Keep other benches away inside the block; raises BenchFailed when one runs: each would slow the other."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchFailed(f"another bench runs here, and holds {file.name}; wait for its end") from None
        yield


def new_data_dir() -> Path:
    """Make an empty data directory, on the disk that holds the results."""
    BUILD.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(prefix="data-", dir=BUILD))


def remove_data_dir(data_dir: Path) -> None:
    """Remove what a run has left, once it is counted."""
    shutil.rmtree(data_dir)


@asynccontextmanager
async def bench_suite(data_dir: Path, *, slots: int = CORES, limit_s: float = LIMIT_S) -> AsyncIterator[Suite]:
    """Run a suite on an empty directory inside the block; raises BenchFailed when the block fails or takes too long."""
    observer = _Restarts()
    options = SuiteOptions(
        data_dir=data_dir, port=0, slots=slots, path=(), drain_timeout_s=DRAIN_TIMEOUT_S, lasting=False
    )
    try:
        async with asyncio.timeout(limit_s), running_suite(options, observer) as suite:
            yield suite
    except TimeoutError:
        raise _failed(f"not finished within {limit_s:.0f} s", data_dir, observer) from None
    except (SuiteError, NodeflowError, BenchFailed, sqlite3.Error) as error:
        raise _failed(str(error), data_dir, observer) from error
    if observer.died:
        raise _failed("a service did not live through the run", data_dir, observer)


def _failed(reason: str, data_dir: Path, observer: _Restarts) -> BenchFailed:
    tails = [_tail(data_dir / "logs" / f"{service}.log", service) for service in SuiteService]
    return BenchFailed("\n".join([reason, *observer.died, *tails, f"everything is left in {data_dir}"]))


def _tail(path: Path, service: SuiteService) -> str:
    lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:] if path.exists() else []
    return "\n".join([f"--- {service}", *(lines or ["(it wrote nothing)"])])
