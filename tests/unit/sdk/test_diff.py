"""`nodeflow diff`: what is compared, and in which forms it is told."""

import json

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.execution_pb2 import Task
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices, execution

from nodeflow_sdk.cli.diff import Line, Side, compared

OTHER_ID = "0199b000-0000-7000-8000-000000000002"


def task(node: str, output: bytes, *, attempt: int = 1) -> Task:
    state = TaskState.TASK_STATE_COMPLETED
    return Task(node=node, state=state, attempt_number=attempt, output=Payload(data=output))


def side(inputs: bytes, revision: str, *tasks: Task) -> Side:
    return Side(
        execution=execution(inputs=Payload(data=inputs), revision=revision), nodes={each.node: each for each in tasks}
    )


def test_each_difference_is_a_line_and_durations_are_none() -> None:
    left = side(b'{"a": 1, "b": [2]}', "sha256:1", task("x", b"1"), task("gone", b"1"))
    right = side(b'{"a": 1, "b": [3], "c": null}', "sha256:2", task("x", b"2", attempt=2), task("new", b"1"))
    right.execution.finish_time.seconds += 60
    assert [line for line in compared(left, right) if not line.same] == [
        Line(fact="revision", left="sha256:1", right="sha256:2", same=False),
        Line(fact="inputs.b", left="[2]", right="[3]", same=False),
        Line(fact="inputs.c", left="—", right="null", same=False),
        Line(node="x", fact="attempts", left="1", right="2", same=False),
        Line(node="x", fact="result", left="1", right="2", same=False),
        Line(node="gone", fact="node", left="there is one", right="no such node", same=False),
        Line(node="new", fact="node", left="no such node", right="there is one", same=False),
    ]


async def test_diff_is_printed_in_each_form(cli: Cli, fakes: FakeServices) -> None:
    failed = execution(execution_id=OTHER_ID, state=ExecutionState.EXECUTION_STATE_FAILED)
    fakes.scheduler.executions = [execution(), failed]
    fakes.scheduler.tasks = [Task(node="count", task_number=0), Task(node="total", task_number=1)]
    done = await cli("diff", EXECUTION_ID, OTHER_ID)
    assert (done.code, [line.split() for line in done.out.splitlines()]) == (
        0,
        [["NODE", "FACT", EXECUTION_ID, OTHER_ID], ["state", "COMPLETED", "FAILED"], ["1", "difference"]],
    )
    found = json.loads((await cli("diff", EXECUTION_ID, OTHER_ID, "-o", "json")).out)
    assert (found["left"], found["differences"], found["lines"][0]["fact"]) == (EXECUTION_ID, 1, "state")
    assert (await cli("diff", EXECUTION_ID, OTHER_ID, "-o", "name")).out == "state\n"
    assert (await cli("diff", EXECUTION_ID, EXECUTION_ID)).out == "0 differences\n"
    assert "duration" in (await cli("diff", EXECUTION_ID, EXECUTION_ID, "--all")).out
