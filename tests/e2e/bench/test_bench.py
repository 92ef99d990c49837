"""The bench itself, small, on a real suite."""

import asyncio
from pathlib import Path

import pytest
from tests.bench import latency, noop, process
from tests.bench.bench_suite import BenchFailed, bench_suite

PROCESSES = {"scheduler", "state-manager", "worker-manager", "worker", "runners", "client"}


async def test_noop_counts_every_result_in_the_store(tmp_path: Path) -> None:
    result = await noop.measure(tmp_path / "data", executions=5)
    assert (result.executions, result.nodes, result.store) == (5, 500, "sqlite")
    assert result.chunks >= 50
    assert result.commits >= 10
    assert result.cpu_us_per_node.keys() == PROCESSES
    assert result.nodes_per_s == pytest.approx(500 / result.seconds, rel=0.05)
    assert not (tmp_path / "data").exists()


async def test_latency_compares_with_commits_of_the_same_run(tmp_path: Path) -> None:
    result = await latency.measure(tmp_path / "data", samples=5)
    assert result.samples == 5
    assert 0 < result.median_ms <= result.p95_ms <= result.p99_ms
    assert result.limit_ms == pytest.approx(2 * result.commit_ms + 5, abs=0.01)
    assert result.within_limit == (result.median_ms <= result.limit_ms)
    assert result.cpu_us_per_node.keys() == PROCESSES


async def test_a_run_that_is_stuck_ends_and_shows_what_the_services_said(tmp_path: Path) -> None:
    with pytest.raises(BenchFailed, match=r"(?s)not finished within 3 s.*--- scheduler\n.*--- worker\n.*stopped"):
        async with bench_suite(tmp_path / "data", limit_s=3):
            await asyncio.Event().wait()


async def test_process_compares_with_a_bare_loop_of_the_same_run(tmp_path: Path) -> None:
    result = await process.measure(tmp_path / "data", processes=20, rounds=3)
    assert (result.processes, result.rounds) == (20, 3)
    assert min(result.executor_per_s, result.bare_per_s, result.ratio, result.agent_cpu_us) > 0
    assert not (tmp_path / "data").exists()
