"""`python -m tests.bench NAME`: run a bench, print its table, and write build/bench/NAME.json.

Owns the command line. Must not know how anything is measured.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from tests.bench import latency, noop, process, report
from tests.bench.bench_suite import BUILD, CORES, LIMIT_S, BenchFailed, new_data_dir, only_bench, use_two_cores
from tests.bench.profiling import PROCESSES, Profile, ProfileForm, top_text

T = TypeVar("T")
# Takes the seconds that are left. Any: what the coroutine of an async function is sent is nobody's concern.
Run = Callable[[float], Coroutine[Any, Any, T]]

# A run with less time would only fail.
LEAST_S: Final = 20.0

# Standard output is the table, standard error is progress.
_output: Final = Console()
_progress: Final = Console(stderr=True, highlight=False)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Measure the suite: results in build/bench/NAME.json.",
)

Repeat = Annotated[int, typer.Option(min=1, help="Runs, each on a fresh suite.")]


@app.command("noop")
def run_noop(
    executions: Annotated[int, typer.Option(min=1, help="Executions of 100 nodes each.")] = noop.EXECUTIONS,
    slots: Annotated[int, typer.Option(min=1, help="Runner processes.")] = CORES,
    repeat: Repeat = 1,
    profile: Annotated[str, typer.Option(help=f"Profile one process: {', '.join(PROCESSES)}.")] = "",
) -> None:
    """Nodes per second, from submission to a durable result, when nodes do nothing."""
    if profile and profile not in PROCESSES:
        raise typer.BadParameter(f"there is no process {profile}; there are: {', '.join(PROCESSES)}")
    cores = use_two_cores()
    # Two profilers cannot hold one process: a run for each form.
    profiles = [_profile(profile, form) for form in ProfileForm] if profile else [None] * repeat
    results = _run([_noop_run(executions, slots, each) for each in profiles])
    report.write_json(BUILD / "noop.json", "noop", cores, results)
    _output.print(report.noop_table(results))
    for each in profiles:
        if each is not None and each.form is ProfileForm.RAW:
            text = top_text(each.path)
            each.path.with_suffix(".txt").write_text(text)
            _output.print(f"{profile}: share of samples in the function itself\n{text}", end="", highlight=False)


@app.command("latency")
def run_latency(
    samples: Annotated[int, typer.Option(min=2, help="Executions, one after the other.")] = latency.SAMPLES,
    repeat: Repeat = 1,
) -> None:
    """Milliseconds from submission to a committed end, of one node on an idle suite."""
    cores = use_two_cores()
    results = _run([lambda limit_s: latency.measure(new_data_dir(), samples=samples, limit_s=limit_s)] * repeat)
    report.write_json(BUILD / "latency.json", "latency", cores, results)
    _output.print(report.latency_table(results))


@app.command("process")
def run_process(
    processes: Annotated[int, typer.Option(min=1, help="Processes in a round.")] = process.PROCESSES,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each, by turns.")] = process.ROUNDS,
    slots: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = CORES,
    repeat: Repeat = 1,
) -> None:
    """Processes per second of the worker's executor, against a bare loop of posix_spawn."""
    cores = use_two_cores()
    run: Run[process.ProcessResult] = lambda _: process.measure(  # noqa: E731  # one of a list, as above
        process.new_directory(), processes=processes, rounds=rounds, slots=slots
    )
    results = _run([run] * repeat)
    report.write_json(BUILD / "process.json", "process", cores, results)
    _output.print(report.process_table(results))


def _noop_run(executions: int, slots: int, profile: Profile | None) -> Run[noop.NoopResult]:
    return lambda limit_s: noop.measure(
        new_data_dir(), executions=executions, slots=slots, profile=profile, limit_s=limit_s
    )


def _profile(process: str, form: ProfileForm) -> Profile:
    suffix = {ProfileForm.RAW: "raw", ProfileForm.FLAMEGRAPH: "svg"}[form]
    return Profile(process=process, form=form, path=BUILD / f"noop-{process}.{suffix}")


def _run(runs: list[Run[T]]) -> list[T]:
    """Run one after the other, for as long as there is time."""
    results: list[T] = []
    end = time.monotonic() + LIMIT_S
    try:
        with only_bench():
            for number, run in enumerate(runs, start=1):
                left_s = end - time.monotonic()
                if results and left_s < LEAST_S:
                    _progress.print(f"stopped after {number - 1} of {len(runs)} runs: the bench has had its time")
                    break
                _progress.print(f"run {number} of {len(runs)} …")
                results.append(asyncio.run(run(left_s)))
    except BenchFailed as error:
        _progress.print(f"the bench failed: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    return results


if __name__ == "__main__":
    app()
