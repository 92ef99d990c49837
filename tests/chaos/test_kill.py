"""kill -9 of each process in the middle of the real example: the run goes on at once, nothing is lost or repeated."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from tests.chaos.conftest import Tell
from tests.chaos.report_run import (
    Progress,
    check_logs,
    check_run,
    outcome_of,
    run_report,
    silence_after_s,
    submit_report,
    watch_to_the_end,
    watch_to_the_middle,
)
from tests.support.suite import Suite, running

from nodeflow_sdk.client import open_client

RECOVERY_S = 5.0


def runner_of(suite: Suite) -> int:
    """Return the process id of one of the worker's runners."""
    children = psutil.Process(suite.pid("worker")).children()
    return next(child.pid for child in children if "nodeflow_worker.runner" in child.cmdline())


@pytest.mark.parametrize("victim", ["state-manager", "scheduler", "worker-manager", "worker", "runner"])
async def test_a_killed_process_costs_seconds_and_nothing_else(
    victim: str, undisturbed_report: str, tmp_path: Path, tell: Tell
) -> None:
    killed_at: list[float] = []

    async def kill(_: Progress) -> None:
        pid = runner_of(suite) if victim == "runner" else suite.pid(victim)
        os.kill(pid, signal.SIGKILL)
        killed_at.append(time.time() * 1000)

    with running(tmp_path) as suite:
        run = await run_report(suite, kill)

    assert ExecutionState.Name(run.state) == "EXECUTION_STATE_COMPLETED"
    assert run.report == undisturbed_report
    history = check_run(suite, run)
    first_s, silence_s = silence_after_s(history, killed_at[0])
    assert run.followed.outages == (victim == "scheduler")
    tell(f"kill -9 of {victim}: first result after {first_s:.2f} s, longest silence {silence_s:.2f} s")
    assert silence_s < RECOVERY_S
    check_logs(suite)


async def test_a_suite_that_was_killed_as_a_whole_goes_on_where_it_was(
    undisturbed_report: str, tmp_path: Path, tell: Tell
) -> None:
    """Its processes end with the supervisor; a new suite on the same data has new processes and other ports."""
    with running(tmp_path) as killed:
        async with open_client(killed.address()) as client:
            execution_id = await submit_report(client)
            seen = await watch_to_the_middle(client, execution_id)
        killed.process.kill()
        killed_at = time.time() * 1000
    with running(tmp_path) as suite:
        async with open_client(suite.address()) as client:
            followed = await watch_to_the_end(client, execution_id, seen)
            run = await outcome_of(client, followed)

    assert ExecutionState.Name(run.state) == "EXECUTION_STATE_COMPLETED"
    assert run.report == undisturbed_report
    history = check_run(suite, run)
    check_logs(suite)
    _, silence_s = silence_after_s(history, killed_at)
    tell(f"kill -9 of the whole suite: longest silence {silence_s:.2f} s, the start of a new suite included")
