"""What a run of the bench leaves: a JSON file for programs, a table for people.

Owns their form, and the description of the machine. Must not measure.
"""

import json
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import psutil
from rich.table import Table
from tests.bench.latency import LatencyResult
from tests.bench.noop import NoopResult
from tests.bench.process import ProcessResult

# The target.
NODES_PER_S: Final = 40_000

# What the executor should reach of a bare loop.
PROCESS_RATIO: Final = 0.8


def machine(cores: Sequence[int]) -> dict[str, object]:
    """Return what the numbers depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": len(cores),
        "cores_present": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "sqlite": sqlite3.sqlite_version,
    }


def write_json(
    path: Path,
    name: str,
    cores: Sequence[int],
    results: Sequence[NoopResult] | Sequence[LatencyResult] | Sequence[ProcessResult],
) -> None:
    """Write the results of all runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "machine": machine(cores), "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(content, indent=2) + "\n")


def noop_table(results: Sequence[NoopResult]) -> Table:
    """Return a column for each run."""
    table = _table("noop", len(results))
    table.add_row("nodes/s", *(f"{each.nodes_per_s:,.0f}" for each in results))
    table.add_row(f"at least {NODES_PER_S:,}", *(_verdict(each.nodes_per_s >= NODES_PER_S) for each in results))
    table.add_row("nodes, each with one result", *(f"{each.nodes:,}" for each in results))
    table.add_row("executions", *(f"{each.executions:,}" for each in results))
    table.add_row("seconds", *(f"{each.seconds:.3f}" for each in results))
    table.add_row("  of them to submit", *(f"{each.submit_seconds:.3f}" for each in results))
    table.add_row("commits", *(f"{each.commits:,}" for each in results))
    table.add_row("chunks", *(f"{each.chunks:,}" for each in results))
    table.add_row("log bytes per node", *(f"{each.log_bytes / each.nodes:.1f}" for each in results))
    _add_cpu(table, "CPU µs per node", [each.cpu_us_per_node for each in results])
    if any(each.profiled for each in results):
        table.add_row("profiled, so slower", *(each.profiled for each in results))
    return table


def latency_table(results: Sequence[LatencyResult]) -> Table:
    """Return a column for each run."""
    table = _table("latency", len(results))
    table.add_row("median ms", *(f"{each.median_ms:.2f}" for each in results))
    table.add_row("p95 ms", *(f"{each.p95_ms:.2f}" for each in results))
    table.add_row("p99 ms", *(f"{each.p99_ms:.2f}" for each in results))
    table.add_row("one commit, median ms", *(f"{each.commit_ms:.2f}" for each in results))
    table.add_row("two commits + 5 ms", *(f"{each.limit_ms:.2f}" for each in results))
    table.add_row("median within that", *(_verdict(each.within_limit) for each in results))
    table.add_row("commits per execution", *(f"{each.commits_per_execution:.2f}" for each in results))
    table.add_row("samples", *(f"{each.samples}" for each in results))
    _add_cpu(table, "CPU µs per execution", [each.cpu_us_per_node for each in results])
    return table


def process_table(results: Sequence[ProcessResult]) -> Table:
    """Return a column for each run."""
    table = Table(title="process, /bin/true")
    table.add_column("")
    for run in range(1, len(results) + 1):
        table.add_column(f"run {run}", justify="right")
    table.add_row("processes/s of the executor", *(f"{each.executor_per_s:,.0f}" for each in results))
    table.add_row("processes/s of a bare loop", *(f"{each.bare_per_s:,.0f}" for each in results))
    table.add_row("ratio, median of rounds", *(f"{each.ratio:.2f}" for each in results))
    table.add_row(f"at least {PROCESS_RATIO}", *(_verdict(each.ratio >= PROCESS_RATIO) for each in results))
    table.add_row("slots", *(f"{each.slots}" for each in results))
    table.add_row("agent's CPU µs per process", *(f"{each.agent_cpu_us:.0f}" for each in results))
    return table


def _table(name: str, runs: int) -> Table:
    table = Table(title=f"{name}, SQLite, fsync on every commit")
    table.add_column("")
    for run in range(1, runs + 1):
        table.add_column(f"run {run}", justify="right")
    return table


def _add_cpu(table: Table, title: str, each_run: Sequence[dict[str, float]]) -> None:
    table.add_section()
    table.add_row(title, *(f"{sum(run.values()):.1f}" for run in each_run))
    for process in each_run[0]:
        table.add_row(f"  {process}", *(f"{run[process]:.1f}" for run in each_run))


def _verdict(reached: bool) -> str:
    return "yes" if reached else "no"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
