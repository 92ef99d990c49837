"""`noop`: how many nodes a second the suite brings from submission to a durable result, when nodes do nothing.

Owns the load and its clock. Must not know how results are shown.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.scheduler_service_pb2 import Submission
from tests.bench import documents, store_count
from tests.bench.bench_suite import CORES, LIMIT_S, BenchFailed, bench_suite, remove_data_dir
from tests.bench.processes import read_cpu_times
from tests.bench.profiling import Profile, profiled

from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.suite import Suite

EXECUTIONS: Final = 1_000
BATCH: Final = 100
POLL_INTERVAL_S: Final = 0.01
STUCK_AFTER_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoopResult:
    """One run."""

    store: str = "sqlite"
    executions: int
    nodes: int
    seconds: float
    submit_seconds: float
    nodes_per_s: float
    cpu_us_per_node: dict[str, float]
    commits: int
    chunks: int
    events: int
    log_bytes: int
    runners: int
    profiled: str


async def measure(
    data_dir: Path,
    *,
    executions: int = EXECUTIONS,
    slots: int = CORES,
    profile: Profile | None = None,
    limit_s: float = LIMIT_S,
) -> NoopResult:
    """Run the load once on a fresh suite, and count its results from the store; raises BenchFailed."""
    async with bench_suite(data_dir, slots=slots, limit_s=limit_s) as suite, open_client(suite.scheduler) as client:
        load = await _Load.prepare(suite, client, executions)
        async with profiled(profile, suite):
            measured = await load.run()
    try:
        counted = store_count.count(data_dir, load.execution_ids, documents.NODES)
    except store_count.WrongCount as error:
        raise BenchFailed(f"{error}; the store is left in {data_dir}") from error
    remove_data_dir(data_dir)
    return NoopResult(
        executions=executions,
        nodes=counted.results,
        seconds=round(measured.seconds, 3),
        submit_seconds=round(measured.submit_seconds, 3),
        nodes_per_s=round(counted.results / measured.seconds, 1),
        cpu_us_per_node=measured.cpu_us_per_node,
        commits=measured.commits,
        chunks=counted.chunks,
        events=counted.events,
        log_bytes=counted.data_bytes,
        runners=slots,
        profiled=profile.process if profile else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    seconds: float
    submit_seconds: float
    cpu_us_per_node: dict[str, float]
    commits: int


class _Load:
    """Executions of a registered workflow on a warm suite."""

    def __init__(self, suite: Suite, client: Client, revision: str, executions: int) -> None:
        self.execution_ids: list[str] = []
        self._suite = suite
        self._client = client
        self._revision = revision
        self._executions = executions

    @classmethod
    async def prepare(cls, suite: Suite, client: Client, executions: int) -> "_Load":
        """Register the workflow and run it once: runners are up, and have imported what they execute."""
        workflow = await client.register(documents.layered())
        execution = await client.submit(workflow.revision)
        async for _ in client.watch(execution.execution_id):
            pass
        return cls(suite, client, workflow.revision, executions)

    async def run(self) -> _Measured:
        """Submit everything, and wait until the store has it all."""
        progress = store_count.Progress(self._suite.data_dir)
        loop = asyncio.get_running_loop()
        try:
            warm = progress.finished().get(ExecutionState.EXECUTION_STATE_COMPLETED, 0)
            commits, cpu, begin = progress.commits(), read_cpu_times(self._suite), loop.time()
            await self._submit()
            submitted = loop.time()
            await self._wait(progress, warm + self._executions)
            end = loop.time()
            used = read_cpu_times(self._suite).per_node(cpu, self._executions * documents.NODES)
            return _Measured(
                seconds=end - begin,
                submit_seconds=submitted - begin,
                cpu_us_per_node=used,
                commits=progress.commits() - commits,
            )
        finally:
            progress.close()

    async def _submit(self) -> None:
        for first in range(0, self._executions, BATCH):
            size = min(BATCH, self._executions - first)
            self.execution_ids += await self._client.submit_many(self._revision, [Submission() for _ in range(size)])

    async def _wait(self, progress: store_count.Progress, completed: int) -> None:
        loop = asyncio.get_running_loop()
        last, since = -1, loop.time()
        while True:
            finished = progress.finished()
            done = finished.pop(ExecutionState.EXECUTION_STATE_COMPLETED, 0)
            if finished:
                raise BenchFailed(
                    f"{sum(finished.values())} executions did not complete: see their failures in the log"
                )
            if done >= completed:
                return
            if done != last:
                last, since = done, loop.time()
            elif loop.time() - since > STUCK_AFTER_S:
                raise BenchFailed(f"stuck: {done} of {completed} executions completed, none in {STUCK_AFTER_S:.0f} s")
            await asyncio.sleep(POLL_INTERVAL_S)
