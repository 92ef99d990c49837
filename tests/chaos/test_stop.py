"""Processes that stand still and go on, as under a debugger or on a machine that is asleep."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.chaos.report_run import Progress, check_logs, check_run, follow, graph_of, history_of, run_report
from tests.support.checkers import check_history, check_watched
from tests.support.history import ExecutionHistory
from tests.support.suite import STOP_TIMEOUT_S, Suite, running

from nodeflow_sdk.client import open_client

PAUSE_S = 3.0
SECOND = "worker-1"

NAPS = b"""\
apiVersion: nodeflow/v1
kind: Workflow
name: naps
nodes:
  numbers: {function: "functions:numbers"}
  nap: {map: "${nodes.numbers.output}", function: "functions:nap", with: {n: "${item}"}}
"""

FUNCTIONS = """\
import time

def numbers():
    return list(range(150))

def nap(n):
    time.sleep(0.02)
    return n
"""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("victim", ["scheduler", "worker-manager"])
async def test_a_pause_shorter_than_the_leases_loses_nothing(
    victim: str, undisturbed_report: str, tmp_path: Path
) -> None:
    async def pause(_: Progress) -> None:
        with stopped(suite.pid(victim)):
            # The pause is what is tested: there is nothing to wait for.
            await asyncio.sleep(PAUSE_S)

    with running(tmp_path) as suite:
        pid = suite.pid(victim)
        run = await run_report(suite, pause)
        assert suite.pid(victim) == pid

    assert ExecutionState.Name(run.state) == "EXECUTION_STATE_COMPLETED"
    assert run.report == undisturbed_report
    history = history_of(suite)
    check_run(history, run)
    assert lost_attempts(history.execution(run.followed.execution_id)) == set()
    check_logs(suite)


async def test_a_worker_that_slept_through_its_lease_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def oversleep(progress: Progress) -> None:
        with stopped(suite.pid("worker")):
            await progress.until(is_second_attempt_elsewhere)
        # It wakes with results of attempts that are not its own any more.

    monkeypatch.setenv("NODEFLOW_WORKER_MANAGER_LEASE_TIMEOUT_S", "2")
    monkeypatch.setenv("NODEFLOW_WORKER_MANAGER_HEARTBEAT_INTERVAL_S", "0.5")
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    with running(tmp_path) as suite, second_worker(suite):
        async with open_client(suite.address()) as client:
            document = WorkflowDocument(source=NAPS, directory=str(tmp_path))
            execution_id = (await client.submit(document)).execution_id
            followed = await follow(client, execution_id, oversleep)
            graph = await graph_of(client, "naps")

    history = history_of(suite)
    execution = history.execution(execution_id)
    assert ExecutionState.Name(execution.state) == "EXECUTION_STATE_COMPLETED"
    assert check_history(history, {execution_id: graph}) == []
    assert check_watched(execution, followed.sequences) == []
    assert lost_attempts(execution)
    check_logs(suite)


def is_second_attempt_elsewhere(event: Event) -> bool:
    """Whether an event tells that the second worker has begun what the first had."""
    return event.task.attempt_number == 2 and event.task.worker_id == SECOND


def lost_attempts(execution: ExecutionHistory) -> set[tuple[int, int]]:
    """Return what was lost, as (task, attempt)."""
    return {(fact.task, fact.attempt) for fact in execution.facts if fact.kind == "attempts_lost"}


@contextmanager
def second_worker(suite: Suite) -> Iterator[None]:
    """Have one more worker inside the block."""
    command = [sys.executable, "-m", "nodeflow_sdk.cli", "worker", "--id", SECOND, "--slots", "2"]
    with (suite.directory / f"{SECOND}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=suite.directory, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0
