"""`latency`: how long a workflow of one node takes on an idle suite, from submission to its committed end.

Owns the sequence of submissions, and the commits that they are compared with. Must not know how results are shown.
"""

import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeflow.scheduler.v1.event_pb2 import EventType
from tests.bench import documents, store_count
from tests.bench.bench_suite import LIMIT_S, BenchFailed, bench_suite, remove_data_dir
from tests.bench.processes import read_cpu_times

from nodeflow_sdk.client import Client, open_client

SAMPLES: Final = 200
WARM_UP: Final = 20
# The target: at most two commits, and this.
ALLOWANCE_MS: Final = 5.0
COMMITS_ALLOWED: Final = 2
# Of the state-manager's database.
_PAGE_BYTES: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyResult:
    """One run. Times are in milliseconds."""

    store: str = "sqlite"
    samples: int
    nodes_per_s: float
    cpu_us_per_node: dict[str, float]
    median_ms: float
    p95_ms: float
    p99_ms: float
    commit_ms: float
    commits_per_execution: float
    limit_ms: float
    within_limit: bool


async def measure(data_dir: Path, *, samples: int = SAMPLES, limit_s: float = LIMIT_S) -> LatencyResult:
    """Submit one workflow after the other on a fresh suite; raises BenchFailed."""
    latencies, commits, execution_ids = [], [], []
    async with bench_suite(data_dir, limit_s=limit_s) as suite, open_client(suite.scheduler) as client:
        workflow = await client.register(documents.single())
        for _ in range(WARM_UP):
            await _run_once(client, workflow.revision)
        with closing(store_count.Progress(data_dir)) as progress, _commits(data_dir) as commit:
            committed, cpu = progress.commits(), read_cpu_times(suite)
            for _ in range(samples):
                execution_id, latency_ms = await _run_once(client, workflow.revision)
                execution_ids.append(execution_id)
                latencies.append(latency_ms)
                commits.append(commit())
            used = read_cpu_times(suite).per_node(cpu, samples)
            committed = progress.commits() - committed
    try:
        store_count.count(data_dir, execution_ids, tasks_each=1)
    except store_count.WrongCount as error:
        raise BenchFailed(f"{error}; the store is left in {data_dir}") from error
    remove_data_dir(data_dir)
    return _result(latencies, commits, used, committed)


def _result(
    latencies: Sequence[float], commits: Sequence[float], cpu_us_per_node: dict[str, float], committed: int
) -> LatencyResult:
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    median, commit = statistics.median(latencies), statistics.median(commits)
    limit = COMMITS_ALLOWED * commit + ALLOWANCE_MS
    return LatencyResult(
        samples=len(latencies),
        nodes_per_s=round(1_000 / statistics.fmean(latencies), 1),
        cpu_us_per_node=cpu_us_per_node,
        median_ms=round(median, 3),
        p95_ms=round(percentiles[94], 3),
        p99_ms=round(percentiles[98], 3),
        commit_ms=round(commit, 3),
        commits_per_execution=round(committed / len(latencies), 2),
        limit_ms=round(limit, 3),
        within_limit=median <= limit,
    )


async def _run_once(client: Client, revision: str) -> tuple[str, float]:
    """Return an execution's id and the milliseconds from its submission to the event of its end."""
    begin = time.perf_counter()
    execution = await client.submit(revision)
    async for response in client.watch(execution.execution_id):
        if response.events[-1].type == EventType.EVENT_TYPE_EXECUTION_COMPLETED:
            return execution.execution_id, (time.perf_counter() - begin) * 1_000
    raise BenchFailed(f"the watch of {execution.execution_id} ended before the execution did")


class _Commit:
    """Commits of a single row, as durable as the state-manager's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __call__(self) -> float:
        """Commit a row; returns the milliseconds it took."""
        begin = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO rows (data) VALUES (randomblob(200))")
        self._connection.execute("COMMIT")
        return (time.perf_counter() - begin) * 1_000


@contextmanager
def _commits(directory: Path) -> Iterator[_Commit]:
    """Open a database beside the state-manager's, with its pragmas."""
    with closing(sqlite3.connect(directory / "commits.db", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (key INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        yield _Commit(connection)
