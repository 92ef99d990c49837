"""Processes that stand still and go on, as under a debugger or on a machine that is asleep."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.chaos.report_run import (
    Progress,
    check_logs,
    check_run,
    follow,
    history_of,
    outcome_of,
    run_report,
    submit_report,
    watch_to_the_end,
    watch_to_the_middle,
)
from tests.support.suite import START_TIMEOUT_S, Suite, beside, running

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import ExecutionHistory, State
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
    history = check_run(suite, run)
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

    history = history_of(suite, followed)
    execution = history.execution(execution_id)
    assert execution.state == State.COMPLETED
    assert check(history) == []
    assert lost_attempts(execution)
    check_logs(suite)


async def test_a_scheduler_that_slept_through_its_leases_changes_nothing(
    undisturbed_report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODEFLOW_SCHEDULER_LEASE_TIMEOUT_S", "1")
    with running(tmp_path) as suite, standby_scheduler(suite) as announcement:
        async with open_client(suite.address()) as client:
            execution_id = await submit_report(client)
            seen = await watch_to_the_middle(client, execution_id)
        with stopped(suite.pid("scheduler")):
            address = content_of(announcement)
        # It wakes in the middle of what it was about, and the shards are the other's.
        async with open_client(address) as client:
            followed = await watch_to_the_end(client, execution_id, seen)
            run = await outcome_of(client, followed)

    assert ExecutionState.Name(run.state) == "EXECUTION_STATE_COMPLETED"
    assert run.report == undisturbed_report
    history = check_run(suite, run)
    assert len({fact.token for fact in history.execution(execution_id).facts}) > 1
    check_logs(suite)


def is_second_attempt_elsewhere(event: Event) -> bool:
    """Whether an event tells that the second worker has begun what the first had."""
    return event.task.attempt_number == 2 and event.task.worker_id == SECOND


def lost_attempts(execution: ExecutionHistory) -> set[tuple[int, int]]:
    """Return what was lost, as (task, attempt)."""
    return {(fact.task, fact.attempt) for fact in execution.facts if fact.kind == "attempts_lost"}


@contextmanager
def standby_scheduler(suite: Suite) -> Iterator[Path]:
    """Have one more scheduler inside the block; it writes its address to the file once it has shards."""
    announcement = suite.directory / "standby.address"
    settings = {
        "INSTANCE": "standby",
        "BIND": "127.0.0.1:0",
        "STATE_MANAGER": suite.address("state-manager"),
        "WORKER_MANAGERS": suite.address("worker-manager"),
        "ANNOUNCE_FILE": str(announcement),
    }
    prefixed = {f"NODEFLOW_SCHEDULER_{name}": value for name, value in settings.items()}
    with beside(suite, "standby", [sys.executable, "-m", "nodeflow_scheduler"], settings=prefixed):
        yield announcement


def content_of(file: Path) -> str:
    """Return what is in a file once it is there."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not file.exists():
        assert time.monotonic() < deadline, f"{file.name} is not there in time"
        time.sleep(0.05)
    return file.read_text().strip()


@contextmanager
def second_worker(suite: Suite) -> Iterator[None]:
    """Have one more worker inside the block."""
    command = [sys.executable, "-m", "nodeflow_sdk.cli", "worker", "--id", SECOND, "--slots", "2"]
    with beside(suite, SECOND, command):
        yield
