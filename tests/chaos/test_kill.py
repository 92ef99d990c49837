"""kill -9 of a whole suite in the middle of the real example: the next suite goes on, nothing is lost or repeated."""

import time
from pathlib import Path

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from tests.chaos.conftest import Tell
from tests.chaos.report_run import (
    check_logs,
    check_run,
    outcome_of,
    silence_after_s,
    submit_report,
    watch_to_the_end,
    watch_to_the_middle,
)
from tests.support.suite import running

from nodeflow_sdk.client import open_client


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
