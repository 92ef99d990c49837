"""A profile of one process while a load runs, by py-spy.

Owns the profiler's process and the summary of what it saw. Must not know what the load is.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.bench.bench_suite import BenchFailed
from tests.bench.processes import CLIENT, runner_pids

from nodeflow_sdk.suite import Suite, SuiteService

RUNNER: Final = "runner"
PROCESSES: Final = (*(service.value for service in SuiteService), RUNNER, CLIENT)
SAMPLES_PER_S: Final = 250
LONGEST_S: Final = 100
TOP: Final = 15


class ProfileForm(StrEnum):
    """What py-spy writes."""

    RAW = "raw"
    FLAMEGRAPH = "flamegraph"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What to profile, and where to write it."""

    process: str
    form: ProfileForm
    path: Path


@asynccontextmanager
async def profiled(profile: Profile | None, suite: Suite) -> AsyncIterator[None]:
    """Record the process for as long as the block takes; raises BenchFailed when py-spy cannot."""
    if profile is None:
        yield
        return
    profiler = await _start(profile, suite)
    try:
        yield
    finally:
        if profiler.returncode is None:
            profiler.send_signal(signal.SIGINT)
        said, _ = await profiler.communicate()
    if not profile.path.exists():
        raise BenchFailed(f"py-spy wrote no profile of the {profile.process}; it said: {said.decode().strip()}")


def top_functions(path: Path, *, limit: int = TOP) -> list[tuple[str, float]]:
    """Return the functions with the largest share of samples in themselves, of a raw profile."""
    own: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        own[_function(stack.rpartition(";")[2])] += int(samples)
    total = own.total()
    return [(function, samples / total) for function, samples in own.most_common(limit)]


def top_text(path: Path) -> str:
    """Return the top functions as text, a line for each."""
    return "".join(f"{share:7.1%}  {function}\n" for function, share in top_functions(path))


def _function(frame: str) -> str:
    """Leave out the line: `step (driver.py:12)` and `step (driver.py:20)` are one function."""
    head, colon, line = frame.rpartition(":")
    return f"{head})" if colon and line.rstrip(")").isdigit() else frame


def _pid(process: str, suite: Suite) -> int:
    if process == RUNNER:
        return max(runner_pids(suite))
    return os.getpid() if process == CLIENT else suite.pids[SuiteService(process)]


async def _start(profile: Profile, suite: Suite) -> asyncio.subprocess.Process:
    program = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise BenchFailed("py-spy is not installed; `pip install -r requirements-dev.txt` brings it")
    profile.path.parent.mkdir(parents=True, exist_ok=True)
    profile.path.unlink(missing_ok=True)
    return await asyncio.create_subprocess_exec(
        program,
        "record",
        *("--pid", str(_pid(profile.process, suite))),
        *("--duration", str(LONGEST_S)),
        *("--rate", str(SAMPLES_PER_S)),
        # Without it, threads that wait inside of gRPC, uvloop or a queue count as busy.
        "--gil",
        *("--format", profile.form.value),
        *("--output", str(profile.path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
