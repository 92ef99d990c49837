"""How many tiny processes a second the worker's executor ends, against a bare loop of posix_spawn in the same run.

Owns both loops and their comparison. The executor is the worker's core with its launcher, pipes, directories, results
and journal; the bare loop gives each process a session, two pipes and a directory of its own, waits for it, and does no
more. Their rounds alternate, so that what else the machine does strikes both.
"""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.bench_suite import CORES, BenchFailed

from nodeflow_worker.adapters.local_processes import LocalProcesses
from nodeflow_worker.adapters.session_journal import SessionJournal
from nodeflow_worker.adapters.working_trees import WorkingTrees
from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.values import Attempt, ProcessSpec, TaskSpec

PROCESSES: Final = 300
ROUNDS: Final = 15
PROGRAM: Final = "/bin/true"

_SPEC: Final = TaskSpec(tenant="bench", workflow="bench", node="true", process=ProcessSpec())
_ARGUMENTS: Final = b'{"command":["/bin/true"]}'
_ENVIRONMENT: Final = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """Processes per second, as the median of all rounds; `ratio` is the median of what each pair of rounds gave."""

    processes: int
    rounds: int
    slots: int
    executor_per_s: float
    bare_per_s: float
    ratio: float
    agent_cpu_us: float
    """Processor time of the agent's side for each process; the rest is the launcher's and the kernel's."""


def new_directory() -> Path:
    """A directory in memory, where there is one: on a disk, both loops would measure its journal."""
    memory = Path("/dev/shm")  # noqa: S108  # the directory that is made in it is ours alone
    return Path(tempfile.mkdtemp(prefix="nodeflow-bench-", dir=memory if os.access(memory, os.W_OK) else None))


async def measure(directory: Path, *, processes: int, rounds: int, slots: int = CORES) -> ProcessResult:
    """Alternate rounds of both, after one of each that does not count."""
    executor = _Executor(directory / "executor", slots)
    try:
        pairs: list[tuple[float, float]] = []
        for number in range(rounds + 1):
            bare = _bare(directory / "bare", processes)
            pair = (await executor.round(number, processes), bare)
            if number == 0:
                executor.agent_cpu_s = 0.0
            else:
                pairs.append(pair)
    finally:
        await executor.close()
        shutil.rmtree(directory, ignore_errors=True)
    return ProcessResult(
        processes=processes,
        rounds=rounds,
        slots=slots,
        executor_per_s=statistics.median(each[0] for each in pairs),
        bare_per_s=statistics.median(each[1] for each in pairs),
        ratio=statistics.median(one / other for one, other in pairs),
        agent_cpu_us=executor.agent_cpu_s / (rounds * processes) * 1e6,
    )


def _bare(directory: Path, count: int) -> float:
    """One process after the other, as quick as can be; returns how many a second."""
    directory.mkdir(parents=True, exist_ok=True)
    home = Path.cwd()
    began = time.perf_counter()
    for number in range(count):
        work = directory / str(number)
        work.mkdir()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        os.chdir(work)
        actions = [(os.POSIX_SPAWN_DUP2, out_write, 1), (os.POSIX_SPAWN_DUP2, err_write, 2)]
        pid = os.posix_spawn(PROGRAM, [PROGRAM], _ENVIRONMENT, file_actions=actions, setsid=True)
        os.close(out_write)
        os.close(err_write)
        while os.read(out_read, 65_536) or os.read(err_read, 65_536):
            continue
        os.close(out_read)
        os.close(err_read)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise BenchFailed(f"{PROGRAM} ended with {status}")
        os.chdir(home)
        work.rmdir()
    return count / (time.perf_counter() - began)


async def _no_files(tenant: str, digest: str, path: str) -> None:
    raise BenchFailed(f"{path} was asked for: artifact {digest} of {tenant}")


class _Executor:
    """The worker's core and its processes, without a stream: results are acknowledged as they come."""

    def __init__(self, directory: Path, slots: int) -> None:
        self._agent = Agent(slots=slots, max_credits=PROCESSES)
        self._processes = LocalProcesses(directory, _ENVIRONMENT, WorkingTrees(_no_files))
        self._processes.listen(self._handle)
        directory.mkdir(parents=True)
        self._journal = SessionJournal(directory)
        self._journal.listen(self._handle)
        self._journal.begin("bench")
        self._slots = slots
        self._credits = self._agent.bid.credits
        self._left = 0
        self._done = asyncio.Event()
        self._pending: list[Attempt] = []
        self.agent_cpu_s = 0.0

    async def round(self, number: int, count: int) -> float:
        """Execute processes as slots become free; returns how many a second."""
        self._pending = [Attempt(f"e{number}", task, 1, 1, 1, _SPEC, _ARGUMENTS) for task in range(count)]
        self._left = count
        self._done.clear()
        cpu, began = time.process_time(), time.perf_counter()
        self._assign()
        await self._done.wait()
        seconds = time.perf_counter() - began
        self.agent_cpu_s += time.process_time() - cpu
        return count / seconds

    async def close(self) -> None:
        await self._processes.close()
        await self._journal.close()

    def _assign(self) -> None:
        """Hand out what the worker has bid for: its slots, and as much beyond them as it wants to hold."""
        room = max(0, self._slots + self._credits - len(self._agent.held()[0]))
        batch, self._pending = self._pending[:room], self._pending[room:]
        if batch:
            self._handle(events.Assigned(attempts=batch))

    def _handle(self, event: events.Event) -> None:
        for order in self._agent.handle(event, time.monotonic()):
            match order:
                case do.StartProcess():
                    self._processes.start(order.attempt)
                case do.NoteProcess():
                    self._journal.note(order.attempt, order.process)
                case do.Record():
                    self._journal.record(order.attempt)
                case do.Forget():
                    self._journal.forget(order.attempts)
                case do.Report():
                    self._take(order.results)
                case do.TellBid():
                    self._beat()
                case _:
                    continue

    def _beat(self) -> None:
        """Hear of a bid at once; a scheduler hears of it with the next heartbeat."""
        self._credits = self._agent.bid.credits
        self._handle(events.BeatSent(beat=1))
        self._handle(events.BeatAnswered(beat=1))

    def _take(self, ended: Sequence[Attempt]) -> None:
        for each in ended:
            if each.outcome != b"null":
                raise BenchFailed(f"{PROGRAM} gave {each.outcome!r}")
        self._left -= len(ended)
        if ended:
            self._handle(events.Acknowledged(result_ids=[each.result_id for each in ended]))
            self._assign()
        if self._left == 0:
            self._done.set()
