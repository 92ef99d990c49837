"""`nodeflow why`: each reason in words, how tasks are named, and what is told of a whole execution."""

import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.explanation_pb2 import NodeProgress, TaskExplanation, TaskReason, WorkerSupply
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import BEGIN_S, FakeServices, execution, failed_task

from nodeflow_sdk.cli.errors import CliError
from nodeflow_sdk.cli.explanations import explanation_lines, reason_text, reason_word
from nodeflow_sdk.cli.task_names import TaskName, task_name


def told(reason: str, state: str = "QUEUED", **fields: Any) -> TaskExplanation:  # passed on to a message
    """Return an explanation of the task `total`."""
    task = Task(node="total", task_number=1, state=TaskState.Value(f"TASK_STATE_{state}"), attempt_number=2)
    task.start_time.FromSeconds(BEGIN_S)
    task.retry_time.FromSeconds(BEGIN_S + 90)
    return TaskExplanation(task=task, reason=TaskReason.Value(f"TASK_REASON_{reason}"), attempt_limit=3, **fields)


def words(explanation: TaskExplanation, after_s: float = 12) -> str:
    return reason_text(explanation, BEGIN_S + after_s)


def test_every_reason_has_words() -> None:
    for number, name in [(number, name) for name, number in TaskReason.items() if number]:
        assert not words(TaskExplanation(reason=number)).startswith("reason "), name


def test_a_reason_of_a_newer_service_is_shown_by_its_number() -> None:
    newer = TaskExplanation(reason=TaskReason.ValueType(99))
    assert (words(newer), reason_word(newer)) == ("reason 99", "REASON_99")


def test_what_is_waited_for_is_told_with_its_progress() -> None:
    count = NodeProgress(node="count", state=TaskState.TASK_STATE_RUNNING, item_count=5, open_item_count=2)
    split = NodeProgress(node="split", state=TaskState.TASK_STATE_QUEUED)
    many = [count, split, *[NodeProgress(node=f"n{n}", state=TaskState.TASK_STATE_PENDING) for n in range(8)]]
    assert words(told("DEPENDENCIES", nodes=many[:2])) == (
        "waits for count (RUNNING, 2 of 5 items open), split (QUEUED)"
    )
    assert words(told("DEPENDENCIES", nodes=many)).endswith("n5 (PENDING) and 2 more")


def test_times_are_told_as_they_are_now() -> None:
    limited = told("RUNNING", attempt_timeout=Duration(seconds=30), worker_id="worker-0")
    assert words(limited) == "runs on worker-0: attempt 2, 12.0s so far of at most 30.0s"
    assert words(told("RUNNING")) == "runs: attempt 2, 12.0s so far, with no timeout"
    assert "attempt 3 is due in 1m18s (22:14:50 UTC)" in words(told("BACKOFF"))
    assert "attempt 3 is due now" in words(told("BACKOFF"), after_s=100)


def test_workers_are_told_in_numbers_and_with_a_remedy() -> None:
    busy = WorkerSupply(connected_count=2, slot_count=4, held_count=6, waiting_count=9)
    assert words(told("NO_FREE_SLOT", workers=busy)) == (
        "is ready, and waits for a free slot: 2 workers with 4 slots hold 6 attempts, 9 more wait"
    )
    silent = "(1 known, which cannot be reached at the moment)"
    lines = explanation_lines(told("NO_WORKER", workers=WorkerSupply(silent_count=1, waiting_count=3)), BEGIN_S)
    assert [line.plain for line in lines] == [
        f"○ total QUEUED: is ready, and no worker is connected {silent}; 3 attempts wait",
        "    try: nodeflow worker, which starts one here",
    ]


def test_the_last_failure_is_told_with_the_attempt() -> None:
    waiting = told("BACKOFF", failed_count=2)
    waiting.task.failure.CopyFrom(Failure(reason="FUNCTION_RAISED", error_type="ValueError", message="no"))
    assert explanation_lines(waiting, BEGIN_S)[1].plain == "    attempt 2 of 3: ValueError: no"


def test_how_tasks_are_named() -> None:
    assert task_name("@latest") == TaskName(execution_id="@latest")
    assert task_name("0199/count") == TaskName(execution_id="0199", node="count")
    assert task_name("0199/count[12]") == TaskName(execution_id="0199", node="count", map_index=12)
    for text in ("", "/count", "0199/", "0199/count[", "0199/count[x]", "0199/[1]"):
        with pytest.raises(CliError, match="names no task"):
            task_name(text)


async def test_why_of_a_task_asks_for_that_task(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.explanations = [told("NO_WORKER"), told("NO_WORKER"), told("NO_WORKER")]
    done = await cli("why", "@latest/count[1]")
    assert done.code == 0, done.err
    assert "○ total QUEUED: is ready, and no worker is connected" in done.out
    [request] = fakes.scheduler.explained
    assert (request.execution_id, request.node, request.map_index) == ("@latest", "count", 1)
    assert (await cli("why", "@latest/total", "-o", "name")).out == "NO_WORKER\n"
    [listed] = json.loads((await cli("why", "@latest/total", "-o", "json")).out)["explanations"]
    assert (listed["reason"], listed["task"]["node"]) == ("TASK_REASON_NO_WORKER", "total")


async def test_why_of_an_execution_tells_of_all_open_tasks_what_waits_for_nodes_last(
    cli: Cli, fakes: FakeServices
) -> None:
    fakes.scheduler.executions = [execution(state=ExecutionState.EXECUTION_STATE_RUNNING)]
    states = (TaskState.TASK_STATE_PENDING, TaskState.TASK_STATE_RUNNING, TaskState.TASK_STATE_COMPLETED)
    fakes.scheduler.tasks = [Task(task_number=number, state=state) for number, state in enumerate(states)]
    fakes.scheduler.explanations = [told("ITEMS", "RUNNING"), told("NO_WORKER")]
    done = await cli("why", "@latest")
    assert [request.task_number for request in fakes.scheduler.explained] == [1, 0]
    assert [line[:1] for line in done.out.splitlines()] == ["○", " ", "▶"]


async def test_why_of_a_failed_execution_is_its_end_and_what_has_no_result(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.executions = [execution(state=ExecutionState.EXECUTION_STATE_FAILED)]
    fakes.scheduler.tasks = [failed_task()]
    fakes.scheduler.explanations = [told("FAILED", "FAILED")]
    done = await cli("why", "@latest")
    assert (done.code, done.out) == (0, "✗ total FAILED: it failed, and no further attempt follows\n")
    assert "FAILED after" in done.err


async def test_why_of_what_does_not_exist_is_exit_2_with_a_remedy(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("why", "@latest/nothing")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == ["error: there is no such node", "try: nodeflow get @latest"]
