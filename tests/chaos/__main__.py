"""`python -m tests.chaos`: repeat the matrix with other seeds, stop at the first failure, and print a table.

Owns the command line. Must not know what is done to a suite, nor what must hold.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from tests.chaos.faults import Victim
from tests.chaos.matrix import CASES, Kind, Measured, Plan, plan_case, plan_storm, run_plan

STORM: Final = "storm"
_NAMES: Final = {f"{victim}:{kind}": (victim, kind) for victim, kind in CASES}

# Standard output is the table, standard error is progress.
_output: Final = Console()
_progress: Final = Console(stderr=True, highlight=False)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Passes over all cases, each with the next seed.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the first pass.")] = 1,
    only: Annotated[str, typer.Option(help="One case, such as scheduler:kill or storm.")] = "",
) -> None:
    """Kill and stop the processes of real suites at work, and check that nothing is lost or repeated."""
    names = [*_NAMES, STORM]
    if only and only not in names:
        raise typer.BadParameter(f"there is no case {only}; there are: {', '.join(names)}")
    results: defaultdict[str, list[Measured]] = defaultdict(list)
    try:
        for each in range(seed, seed + rounds):
            for name in [only] if only else names:
                results[name].append(_run(name, each))
    finally:
        _output.print(_table(results))


def _run(name: str, seed: int) -> Measured:
    plan = _plan(name, seed)
    directory = Path(tempfile.mkdtemp(prefix="nodeflow-chaos-"))
    try:
        measured = asyncio.run(run_plan(plan, directory))
    except BaseException:
        _progress.print(f"[red]failed[/red] {name}, {plan}\nwhat it left is in {directory}; again with:")
        _progress.print(f"  make chaos ONLY={name} SEED={seed}")
        raise
    _progress.print(f"{name}, {plan}: {measured.silence_s:.2f} s, {measured.stall_s:.2f} s")
    shutil.rmtree(directory)
    return measured


def _plan(name: str, seed: int) -> Plan:
    if name == STORM:
        return plan_storm(seed)
    victim, kind = _NAMES[name]
    return plan_case(Victim(victim), Kind(kind), seed)


def _table(results: dict[str, list[Measured]]) -> Table:
    table = Table("process", "fault", "rounds", "longest recovery", "median", "last execution moves on")
    for name, measured in results.items():
        victim, _, kind = name.rpartition(":")
        recoveries = [each.silence_s for each in measured]
        stall = max((each.stall_s for each in measured), default=0.0)
        longest, median = max(recoveries, default=0.0), statistics.median(recoveries or [0.0])
        table.add_row(
            victim or "all", kind, str(len(measured)), f"{longest:.2f} s", f"{median:.2f} s", f"{stall:.2f} s"
        )
    return table


if __name__ == "__main__":
    if sys.platform != "linux":
        raise SystemExit("chaos: processes of attempts, and so this matrix, need Linux")
    app()
