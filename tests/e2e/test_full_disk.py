"""A suite whose disk fills up in the middle of a run: nothing acknowledged is lost, and it goes on by itself."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import grpc.aio
import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.support.health import NOT_SERVING, SERVING, health_becomes
from tests.support.small_disk import small_disk
from tests.support.suite import running

from nodeflow_sdk.client import Client, open_client
from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.status import from_rpc_error

DISK_BYTES = 64 << 20
ITEMS = 300
LEASE_S = 2.0

STEPS = """\
import time

def items(count):
    return list(range(count))

def work(n):
    print("working on", n)
    time.sleep(0.01)
    return n * n
"""
WORKFLOW = f"""\
apiVersion: nodeflow/v1
kind: Workflow
name: squares
inputs: {{count: {{type: integer, default: {ITEMS}}}}}
nodes:
  items: {{function: 'steps:items', with: {{count: '${{inputs.count}}'}}}}
  squares: {{function: 'steps:work', map: '${{nodes.items.output}}', with: {{n: '${{item}}'}}}}
outputs: {{squares: '${{nodes.squares.output}}'}}
"""


async def test_a_run_outlives_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    document = WorkflowDocument(source=WORKFLOW.encode(), directory=str(tmp_path))
    environment = {"NODEFLOW_SCHEDULER_LEASE_TIMEOUT_S": str(LEASE_S)}
    with (
        small_disk(tmp_path / ".nodeflow", DISK_BYTES) as disk,
        running(tmp_path, "--slots", "2", disk=disk, environment=environment) as suite,
    ):
        async with (
            open_client(suite.address()) as client,
            open_channel(suite.address()) as channel,
            open_channel(suite.address("state-manager")) as store,
        ):
            pids = dict(suite.record.pids)
            execution = await client.submit(document)
            events: list[Event] = []
            async with asyncio.TaskGroup() as group:
                middle = asyncio.Event()
                watching = group.create_task(watch(client, execution.execution_id, events, middle))
                await middle.wait()
                disk.fill()
                await health_becomes(store, "", NOT_SERVING)
                told = await refused_submission(channel, document)
                assert (type(told), told.reason, told.retry_after_s) == (Unavailable, "DISK_FULL", 1.0)
                await reads_go_on(client, execution.execution_id)
                await health_becomes(channel, "", NOT_SERVING)  # its leases are over, and cannot be had anew
                assert (await refused_submission(channel, document)).reason == "DISK_FULL"
                await reads_go_on(client, execution.execution_id)
                patient = group.create_task(client.submit(document, {"count": 1}, request_id="in-the-outage"))
                disk.free()
                await health_becomes(store, "", SERVING)
                await watching
            assert await outputs(client, execution.execution_id) == {"squares": [n * n for n in range(ITEMS)]}
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            late = patient.result().execution_id
            await watch(client, late, [], asyncio.Event())
            assert await outputs(client, late) == {"squares": [0]}
            assert [each.execution_id for each in await client.executions()] == [late, execution.execution_id]
            assert suite.record.pids == pids  # nobody was started anew


async def watch(client: Client, execution_id: str, events: list[Event], middle: asyncio.Event) -> None:
    """Gather events to the end; some way in, `middle` is set."""
    async with aclosing(client.watch(execution_id)) as responses:
        async for response in responses:
            events += response.events
            if len(events) > ITEMS * 3 // 2:
                middle.set()


async def refused_submission(channel: grpc.aio.Channel, document: WorkflowDocument) -> NodeflowError:
    """Submit as a client does that never tries again."""
    request = pb2.SubmitExecutionRequest(workflow=pb2.WorkflowReference(document=document))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await SchedulerServiceStub(channel).SubmitExecution(request, timeout=5)
    return from_rpc_error(caught.value)


async def reads_go_on(client: Client, execution_id: str) -> None:
    async with asyncio.timeout(5):
        assert (await client.get(execution_id)).state == ExecutionState.EXECUTION_STATE_RUNNING
        assert [each.execution_id for each in await client.executions()] == [execution_id]
        assert [task.node async for task in client.tasks(execution_id)].count(
            "squares"
        ) == ITEMS + 1  # with the node itself


async def outputs(client: Client, execution_id: str) -> object:
    execution = await client.get(execution_id)
    assert execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
    return json.loads(await client.read(execution.outputs))
