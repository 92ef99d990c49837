"""A suite at its limits: refused before anything is stored, patient clients served, messages cut, cursors checked."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import aclosing

import grpc.aio
import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.support.suite import Suite, running

from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.payloads import to_payload
from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import InvalidInput, NodeflowError, Overloaded
from nodeflow_shared.status import from_rpc_error

OPEN_LIMIT = 4
FUNCTIONS = """\
import os, time

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)

def identity(value):
    return value

def numbers(count):
    return list(range(count))

def large(n):
    return f"{n:05d}" + "x" * 60_000

def size(value, n):
    return len(value)

def total(values):
    return sum(int(value[:5]) for value in values)
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    directory = tmp_path_factory.mktemp("limits")
    (directory / "limits.py").write_text(FUNCTIONS)
    environment = {"NODEFLOW_SCHEDULER_MAX_OPEN_EXECUTIONS": str(OPEN_LIMIT)}
    with running(directory, "--slots", "2", environment=environment) as started:
        yield started


def document(suite: Suite, nodes: str, inputs: str = "{}") -> WorkflowDocument:
    source = f"apiVersion: nodeflow/v1\nkind: Workflow\nname: limits\ninputs: {inputs}\nnodes:\n{nodes}"
    return WorkflowDocument(source=source.encode(), directory=str(suite.directory))


async def refused(call: grpc.aio.Call) -> NodeflowError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]  # a unary call can be awaited, which the class above all calls does not say
    return from_rpc_error(caught.value)


async def ended(client: Client, execution_id: str) -> object:
    async with aclosing(client.watch(execution_id)) as responses:
        async for _ in responses:
            pass
    execution = await client.get(execution_id)
    assert execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
    return json.loads(await client.read(execution.outputs))


async def test_what_there_is_no_room_for_is_refused_as_a_whole_and_waits_its_turn(suite: Suite) -> None:
    gate = suite.directory / "gate"
    held = document(suite, f"  wait: {{function: 'limits:wait_for', with: {{path: '{gate}'}}}}\n")
    quick = document(
        suite, "  one: {function: 'limits:identity', with: {value: '${inputs.n}'}}\n", "{n: {type: integer}}"
    )
    async with open_client(suite.address()) as client, open_channel(suite.address()) as channel:
        stub = SchedulerServiceStub(channel)
        holders = [(await client.submit(held)).execution_id for _ in range(OPEN_LIMIT - 1)]
        # Two do not fit where there is room for one, so none of them is started.
        pair = [pb2.Submission(inputs=to_payload({"n": n}), request_id=f"pair-{n}") for n in range(2)]
        reference = pb2.WorkflowReference(document=quick)
        told = await refused(stub.SubmitExecutions(pb2.SubmitExecutionsRequest(workflow=reference, submissions=pair)))
        assert isinstance(told, Overloaded)
        assert (told.reason, told.retry_after_s) == ("OVERLOADED", 1.0)
        assert f"{OPEN_LIMIT - 1} executions are open, and {OPEN_LIMIT} at most may be" in told.message
        holders.append((await client.submit(held, request_id="last")).execution_id)
        # A repeat asks for nothing new.
        assert (await client.submit(held, request_id="last")).execution_id == holders[-1]
        request = pb2.SubmitExecutionRequest(workflow=reference, inputs=to_payload({"n": 0}))
        assert isinstance(await refused(stub.SubmitExecution(request)), Overloaded)
        assert {each.execution_id for each in await client.executions()} == set(holders)
        told_waiting: list[NodeflowError] = []
        async with open_client(suite.address(), on_wait=told_waiting.append) as patient, asyncio.TaskGroup() as group:
            waiting = [group.create_task(patient.submit(quick, {"n": n}, request_id=f"n-{n}")) for n in range(20)]
            while not told_waiting:  # noqa: ASYNC110  # a client has no event for it
                await asyncio.sleep(0.01)
            gate.touch()
        ids = [task.result().execution_id for task in waiting]
        assert len(set(ids)) == 20
        for execution_id in (*holders, *ids):
            await ended(client, execution_id)
        again = [(await client.submit(quick, {"n": n}, request_id=f"n-{n}")).execution_id for n in range(20)]
        assert again == ids


async def test_results_that_fill_many_messages_travel_and_are_watched(suite: Suite) -> None:
    """72 MB of inline results of one level: more than any message may have, in each hop and in the watch."""
    count = 1_200
    nodes = (
        f"  numbers: {{function: 'limits:numbers', with: {{count: {count}}}}}\n"
        "  large: {function: 'limits:large', map: '${nodes.numbers.output}', with: {n: '${item}'}}\n"
        "  total: {function: 'limits:total', with: {values: '${nodes.large.output}'}}\n"
        "outputs: {total: '${nodes.total.output}'}\n"
    )
    async with open_client(suite.address()) as client:
        execution = await client.submit(document(suite, nodes))
        largest = 0
        async with aclosing(client.watch(execution.execution_id)) as responses:
            async for response in responses:
                largest = max(largest, response.ByteSize())
        assert largest < 2 << 20
        assert await ended(client, execution.execution_id) == {"total": sum(range(count))}
        # Once more from the log, where chunks are as large as turns were.
        assert await ended(client, execution.execution_id) == {"total": sum(range(count))}


async def test_large_arguments_of_many_quick_tasks_are_handed_out_bit_by_bit(suite: Suite) -> None:
    """270 MB for one worker, which bids for hundreds of quick tasks: no service may be busy with that alone."""
    warm, count, large = 300, 300, 900_000
    nodes = (
        f"  warm: {{function: 'limits:numbers', map: {list(range(warm))}, with: {{count: 1}}}}\n"
        f"  size: {{function: 'limits:size', needs: [warm], map: {list(range(count))}, "
        "with: {value: '${inputs.large}', n: '${item}'}}\n"
        "outputs: {sizes: '${nodes.size.output}'}\n"
    )
    async with open_client(suite.address()) as client:
        execution = await client.submit(document(suite, nodes, "{large: {type: string}}"), {"large": "x" * large})
        longest_s = 0.0
        while not (await client.get(execution.execution_id)).HasField("finish_time"):
            began_s = time.monotonic()
            await client.get(execution.execution_id)
            longest_s = max(longest_s, time.monotonic() - began_s)
        assert await ended(client, execution.execution_id) == {"sizes": [large] * count}
        attempts = {task.attempt_number async for task in client.tasks(execution.execution_id) if task.map_index}
    assert attempts == {1}, "none was lost on its way"
    assert "does_not_read" not in suite.logs()
    assert longest_s < 2.0, "others have their turn, before any lease ends"


async def test_a_submission_that_is_too_large_names_the_limit(suite: Suite) -> None:
    one = document(suite, "  one: {function: 'limits:identity', with: {value: 1}}\n", "{a: {type: string}}")
    reference = pb2.WorkflowReference(document=one)
    async with open_channel(suite.address(), max_message_bytes=256 << 20) as channel:
        stub = SchedulerServiceStub(channel)
        request = pb2.SubmitExecutionRequest(workflow=reference, inputs=to_payload({"a": "x" * 1_100_000}))
        told = await refused(stub.SubmitExecution(request))
        assert isinstance(told, InvalidInput)
        assert "at most 1,048,576 are allowed" in told.violations[0].description
        request = pb2.SubmitExecutionRequest(workflow=reference, inputs=Payload(data=bytes(65 << 20)))
        told = await refused(stub.SubmitExecution(request))
        assert (type(told), told.reason) == (InvalidInput, "MESSAGE_TOO_LARGE")
        assert "at most 67,108,864 are allowed" in told.message


async def test_cursors_after_the_end_of_a_running_execution_are_refused(suite: Suite) -> None:
    gate = suite.directory / "another_gate"
    held = document(suite, f"  wait: {{function: 'limits:wait_for', with: {{path: '{gate}'}}}}\n")
    async with open_client(suite.address()) as client:
        execution_id = (await client.submit(held)).execution_id
        beyond = urlsafe_b64encode(f"{execution_id}:999".encode()).decode().rstrip("=")
        with pytest.raises(InvalidInput, match="after the end"):
            await anext(client.watch(execution_id, beyond))
        for follow in (False, True):
            log_cursor = urlsafe_b64encode(f"{execution_id}:logs:999:0".encode()).decode().rstrip("=")
            request = pb2.TailLogsRequest(execution_id=execution_id, cursor=log_cursor, follow=follow)
            with pytest.raises(InvalidInput, match="after_position"):
                await anext(client.logs(request))
        gate.touch()
        await ended(client, execution_id)
