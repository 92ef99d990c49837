"""`nodeflow audit` of a suite whose readers are told something else than its log has."""

import json

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation, TaskReason
from nodeflow.scheduler.v1.export_pb2 import CommittedChunk, IndexedExecution
from nodeflow.scheduler.v1.log_pb2 import LogChunk, LogRecord
from nodeflow.scheduler.v1.scheduler_service_pb2 import ExportExecutionResponse
from nodeflow.scheduler.v1.workflow_pb2 import Node, Workflow
from tests.unit.audit.told import EACH, TRUE, completed, queued, started
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices, execution

from nodeflow_sdk.audit.export_file import write_end, write_head

WORKFLOW = Workflow(
    nodes=[Node(name="list"), Node(name="each", dependencies=["list"]), Node(name="sum", dependencies=["each"])]
)


def exported(*records: LogRecord, state: str = "COMPLETED", task_count: int = 5) -> list[ExportExecutionResponse]:
    """Return an execution in as many responses as it has records, with a line that was behind at first."""
    chunks = [
        ExportExecutionResponse(
            chunks=[
                CommittedChunk(first_sequence=place, first_offset=place, event_count=1, log=LogChunk(records=[record]))
            ]
        )
        for place, record in enumerate(records, start=1)
    ]
    line = IndexedExecution(execution_id=EXECUTION_ID, tenant="default", request_id="key", task_count=task_count)
    line.state = ExecutionState.EXECUTION_STATE_RUNNING
    first = ExportExecutionResponse(execution=line, workflow=WORKFLOW)
    line.state = ExecutionState.Value(f"EXECUTION_STATE_{state}")
    return [first, *chunks, ExportExecutionResponse(execution=line)]


@pytest.fixture(autouse=True)
def honest(fakes: FakeServices) -> None:
    """Let the scheduler tell what its log has: the true history of the checkers' tests."""
    scheduler = fakes.scheduler
    scheduler.exported = exported(*TRUE)
    scheduler.executions = [execution(last_sequence=len(TRUE))]
    scheduler.executions[0].ClearField("outputs")
    scheduler.events = [Event(sequence=place) for place in range(1, len(TRUE) + 1)]
    scheduler.tasks = [
        Task(task_number=task, state=TaskState.TASK_STATE_COMPLETED, attempt_number=int(task != EACH))
        for task in range(5)
    ]


async def violations(cli: Cli) -> list[str]:
    """Return the promises and the words of all violations."""
    done = await cli("audit", "-o", "json")
    told = json.loads(done.out)
    assert done.code == (1 if told["violations"] else 0)
    return [f"{each['promise']} {each['what']}" for promise in told["promises"] for each in promise["violations"]]


async def test_an_honest_suite_has_no_violation(cli: Cli) -> None:
    assert await violations(cli) == []
    assert (await cli("audit", "-o", "name")).out == ""


async def test_a_task_that_is_told_wrongly(fakes: FakeServices, cli: Cli) -> None:
    fakes.scheduler.tasks[3].state = TaskState.TASK_STATE_FAILED
    assert await violations(cli) == ["I7 the log gives COMPLETED at attempt 1, a reader was told FAILED at 1"]
    assert (await cli("audit", "-o", "name")).out == "I7\n"


async def test_a_watch_that_leaves_out_an_event(fakes: FakeServices, cli: Cli) -> None:
    del fakes.scheduler.events[4]
    assert await violations(cli) == ["I8 a watcher was told sequences that are 6 in place of 5, at place 4 of 13"]


async def test_an_execution_that_is_told_wrongly(fakes: FakeServices, cli: Cli) -> None:
    fakes.scheduler.executions[0].state = ExecutionState.EXECUTION_STATE_FAILED
    assert await violations(cli) == ["I7 the log gives COMPLETED, a reader was told FAILED"]


async def test_an_execution_that_waits_for_something_is_asked_for_what(fakes: FakeServices, cli: Cli) -> None:
    scheduler = fakes.scheduler
    scheduler.exported = exported(started(), queued(0), completed(0), state="RUNNING")
    scheduler.executions[0].state = ExecutionState.EXECUTION_STATE_RUNNING
    scheduler.executions[0].last_sequence = 3
    scheduler.tasks = [
        Task(task_number=0, state=TaskState.TASK_STATE_COMPLETED, attempt_number=1),
        Task(task_number=1, state=TaskState.TASK_STATE_PENDING),
        Task(task_number=2, state=TaskState.TASK_STATE_PENDING),
    ]
    scheduler.explanations = [TaskExplanation(reason=TaskReason.TASK_REASON_ARTIFACT)] * 2
    assert await violations(cli) == []
    scheduler.explanations = [TaskExplanation()] * 2
    assert await violations(cli) == [
        "I4 it is not over, no attempt of it lasts or is due, and nothing says what it waits for"
    ]


@pytest.mark.parametrize("command", ["audit", "export"])
async def test_a_log_of_a_newer_version_is_refused_in_words(fakes: FakeServices, cli: Cli, command: str) -> None:
    fakes.scheduler.exported = exported(LogRecord())
    done = await cli(command, "@latest")
    assert done.code == 2
    assert done.err == "error: the log has a record of a kind that this version does not know; use a newer nodeflow\n"


@pytest.mark.parametrize("named", ["--address", "--context"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_file_and_a_suite_are_not_audited_at_once(cli: Cli, named: str, before: bool) -> None:
    option = (named, "127.0.0.1:1")
    command = ("audit", "--from", "run.jsonl")
    (cli.directory / "run.jsonl").write_bytes(write_head(0) + write_end(0))
    done = await cli(*((*option, *command) if before else (*command, *option)))
    assert (done.code, done.out) == (2, "")
    assert f"--from audits a file, and {named} names a suite" in done.err
    assert (await cli(*command)).code == 0  # NODEFLOW_ADDRESS, which is set here, is for other commands
