"""The protocol that every service speaks: health, reflection, clients without proto files, and an orderly drain."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.scheduler_service_pb2 import WatchExecutionRequest
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as workers_pb
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tests.support.suite import Suite

from nodeflow_sdk.client import open_client
from nodeflow_sdk.suite.health import wait_until_healthy
from nodeflow_shared.channel import open_channel

BUF = Path(sys.executable).with_name("buf")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
SERVICES = {
    "scheduler": {"nodeflow.scheduler.v1.SchedulerService"},
    "state-manager": {
        "nodeflow.state_manager.v1.StateManagerService",
        "nodeflow.state_manager.v1.ArtifactService",
        "nodeflow.state_manager.v1.LogService",
    },
    "worker-manager": {"nodeflow.worker_manager.v1.WorkerManagerService"},
    "worker": set[str](),
}

# It runs until the test lets go of it: no test depends on how long anything takes.
FUNCTIONS = """\
import time
from pathlib import Path

def held(directory):
    with Path(directory, "begun").open("a") as begun:
        begun.write("x")
    while not Path(directory, "released").exists():
        time.sleep(0.01)
    return "done"

def total(values):
    return sum(values)
"""

HELD = """\
apiVersion: nodeflow/v1
kind: Workflow
name: held
inputs: {directory: {type: string}}
nodes:
  only: {function: "functions:held", with: {directory: "${inputs.directory}"}}
"""

TOTAL = """\
apiVersion: nodeflow/v1
kind: Workflow
name: total
inputs: {values: {type: array, items: {type: integer}}}
nodes:
  total: {function: "functions:total", with: {values: "${inputs.values}"}}
outputs: {total: "${nodes.total.output}"}
"""


# --------------------------------------------------------- health and reflection


# Any: the type stubs of these two libraries leave the methods of the stubs out.
def health_of(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401
    return health_pb2_grpc.HealthStub(channel)


async def reflected(
    channel: grpc.aio.Channel, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # typed for blocking ones
    call = stub.ServerReflectionInfo(iter([request]), timeout=10)
    responses: list[reflection_pb2.ServerReflectionResponse] = [each async for each in call]
    [response] = responses
    return response


@pytest.mark.parametrize("service", SERVICES)
async def test_health_answers_per_service_and_overall(suite: Suite, service: str) -> None:
    async with open_channel(suite.address(service)) as channel:
        for name in ("", *SERVICES[service]):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health_of(channel).Check(request, timeout=10)).status == SERVING, name
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health_of(channel).Check(health_pb2.HealthCheckRequest(service="nope"), timeout=10)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", SERVICES)
async def test_reflection_describes_everything_that_is_served(suite: Suite, service: str) -> None:
    async with open_channel(suite.address(service)) as channel:
        listed = (
            await reflected(channel, reflection_pb2.ServerReflectionRequest(list_services=""))
        ).list_services_response.service
        names = {each.name for each in listed}
        assert names == {HEALTH, REFLECTION, *SERVICES[service]}
        for name in names:
            question = reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            described = await reflected(channel, question)
            assert described.file_descriptor_response.file_descriptor_proto, name


# ------------------------------------------------------------ without proto files


async def curl(suite: Suite, method: str, request: dict[str, object]) -> list[dict[str, Any]]:
    """Call a method as anyone can who has nothing but the address; returns the responses."""
    url = f"http://{suite.address()}/nodeflow.scheduler.v1.SchedulerService/{method}"
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", json.dumps(request), url),
        cwd=suite.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return documents_in(out.decode())


def documents_in(text: str) -> list[dict[str, Any]]:
    """Return JSON documents that follow one another."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


def as_bytes(text: str) -> str:
    """Return text in the JSON form of a bytes field."""
    return base64.b64encode(text.encode()).decode()


async def test_buf_curl_registers_submits_and_watches_without_proto_files(suite: Suite) -> None:
    (suite.directory / "functions.py").write_text(FUNCTIONS)
    document = {"source": as_bytes(TOTAL), "directory": str(suite.directory)}
    [registered] = await curl(suite, "RegisterWorkflow", {"document": document})
    revision = registered["workflow"]["revision"]
    assert (registered["workflow"]["name"], registered["created"]) == ("total", True)
    inputs = {"data": as_bytes('{"values": [1, 2, 39]}')}
    [submitted] = await curl(suite, "SubmitExecution", {"workflow": {"revision": revision}, "inputs": inputs})
    execution_id = submitted["execution"]["executionId"]
    watched = await curl(suite, "WatchExecution", {"executionId": execution_id})
    events = [event for response in watched for event in response["events"]]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("EVENT_TYPE_EXECUTION_STARTED", "EVENT_TYPE_EXECUTION_COMPLETED")
    assert base64.b64decode(events[-1]["execution"]["outputs"]["data"]) == b'{"total":42}'


# ------------------------------------------------------------------------ drains


class Held:
    """An execution whose only task runs until it is released."""

    def __init__(self, suite: Suite, directory: Path, execution_id: str) -> None:
        self.suite = suite
        self.directory = directory
        self.execution_id = execution_id

    def release(self) -> None:
        (self.directory / "released").touch()

    @property
    def attempts_begun(self) -> int:
        begun = self.directory / "begun"
        return len(begun.read_text()) if begun.exists() else 0

    async def assert_its_result_counts(self) -> None:
        """Wait for the end: the one attempt that there was is the one that counts."""
        async with open_client(self.suite.address()) as client:
            async for _ in client.watch(self.execution_id):
                pass
            execution = await client.get(self.execution_id)
            task = await client.task(self.execution_id, 0)
        assert execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
        assert (task.attempt_number, self.attempts_begun, task.output.data) == (1, 1, b'"done"')


async def start_held(suite: Suite, name: str) -> Held:
    """Start such an execution, and return once its task runs."""
    directory = suite.directory / name
    directory.mkdir()
    (suite.directory / "functions.py").write_text(FUNCTIONS)
    document = WorkflowDocument(source=HELD.encode(), directory=str(suite.directory))
    async with open_client(suite.address()) as client:
        execution = await client.submit(document, {"directory": str(directory)})
        async for response in client.watch(execution.execution_id):
            if any(event.task.state == TaskState.TASK_STATE_RUNNING for event in response.events):
                break
    return Held(suite, directory, execution.execution_id)


@asynccontextmanager
async def health_watch(address: str) -> AsyncIterator[AsyncIterator[int]]:
    """Watch a service's overall health, from SERVING on."""
    async with open_channel(address) as channel:
        call = health_of(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        statuses = (each.status async for each in call)
        assert await anext(statuses) == SERVING
        yield statuses
        call.cancel()


async def left(process: psutil.Process, suite: Suite, service: str) -> str:
    """Wait until a process has ended and the suite has told so and started the next; returns what it told."""
    told: list[str] = []
    async with asyncio.timeout(20):
        # The supervisor tells by two files, one after the other.
        while suite.pid(service) == process.pid or not told:
            await asyncio.sleep(0.02)
            lines = (suite.directory / "up.log").read_text().splitlines()
            told = [each for each in lines if f"service_restarted service={service}" in each]
    [line] = told
    return line


async def drain_by_signal(suite: Suite) -> None:
    psutil.Process(suite.pid("worker")).terminate()


async def drain_by_call(suite: Suite) -> None:
    async with open_channel(suite.address("worker-manager")) as channel:
        request = workers_pb.DrainWorkerRequest(worker_id="worker-0")
        response = await WorkerManagerServiceStub(channel).DrainWorker(request, timeout=10)
    assert response.worker.worker_id == "worker-0"


@pytest.mark.parametrize("drain", [drain_by_signal, drain_by_call])
async def test_a_worker_that_drains_says_so_finishes_what_runs_and_leaves(own_suite: Suite, drain: Any) -> None:  # noqa: ANN401
    process = psutil.Process(own_suite.pid("worker"))
    held = await start_held(own_suite, "first")
    async with health_watch(own_suite.address("worker")) as statuses:
        await drain(own_suite)
        async with asyncio.timeout(10):
            assert await anext(statuses) == NOT_SERVING
        # It says so while its attempt is still running, and takes nothing new meanwhile.
        assert process.is_running()
        async with open_client(own_suite.address()) as client:
            task = await client.task(held.execution_id, 0)
        assert task.state == TaskState.TASK_STATE_RUNNING
        held.release()
    await held.assert_its_result_counts()
    assert "exit_code=0" in await left(process, own_suite, "worker")


async def test_a_scheduler_that_drains_says_so_before_it_ends_a_stream(own_suite: Suite) -> None:
    held = await start_held(own_suite, "first")
    process = psutil.Process(own_suite.pid("scheduler"))
    order: list[str] = []
    async with open_channel(own_suite.address()) as channel, asyncio.TaskGroup() as group:
        group.create_task(note_health(channel, order), name="health")
        group.create_task(note_end_of_watch(channel, held.execution_id, order), name="watch")
        async with asyncio.timeout(10):
            while sorted(order) != ["serving", "watching"]:  # noqa: ASYNC110  # two tasks fill it
                await asyncio.sleep(0.01)
        process.terminate()
    assert order[2:] == ["not serving", "UNAVAILABLE"]
    assert "exit_code=0" in await left(process, own_suite, "scheduler")
    async with asyncio.timeout(20):
        await wait_until_healthy(own_suite.address())
    held.release()
    await held.assert_its_result_counts()


async def note_health(channel: grpc.aio.Channel, order: list[str]) -> None:
    async for response in health_of(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30):
        order.append("serving" if response.status == SERVING else "not serving")
        if response.status == NOT_SERVING:
            return


async def note_end_of_watch(channel: grpc.aio.Channel, execution_id: str, order: list[str]) -> None:
    call = SchedulerServiceStub(channel).WatchExecution(WatchExecutionRequest(execution_id=execution_id), timeout=30)
    await anext(aiter(call))
    order.append("watching")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in call:
            pass
    order.append(raised.value.code().name)
