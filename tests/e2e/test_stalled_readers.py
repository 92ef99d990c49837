"""Fifty streams that nobody reads, and a worker that babbles, beside a run of 10,000 tasks: others hardly notice."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tests.support.suite import Suite, running

from nodeflow_sdk.client import Client, open_client
from nodeflow_shared.channel import open_channel
from nodeflow_shared.status import from_rpc_error

TASKS = 10_000
WATCHES = 30
OTHERS = 5
DEAF_WORKERS = 10
READER_TIMEOUT_S = 5.0
LEASE_S = 2.0
GROWTH_LIMIT_BYTES = 256 << 20
"""Of a service, by all these streams. What they do not read is 20 MB for each, a gigabyte in all."""

COST_OF_STREAMS_S = 11.0

FUNCTIONS = """\
def numbers(count):
    return list(range(count))

def page(n):
    return f"{n:05d}" + "x" * 2_000
"""
WORKFLOW = f"""\
apiVersion: nodeflow/v1
kind: Workflow
name: pages
nodes:
  numbers: {{function: 'pages:numbers', with: {{count: {TASKS}}}}}
  pages: {{function: 'pages:page', map: '${{nodes.numbers.output}}', with: {{n: '${{item}}'}}}}
"""


async def run(client: Client, document: WorkflowDocument, begun: Callable[[str], Any] | None = None) -> float:
    """Run it to its end; returns the seconds that this took."""
    started_at = time.monotonic()
    execution_id = (await client.submit(document)).execution_id
    if begun is not None:
        await begun(execution_id)
    async with aclosing(client.watch(execution_id)) as responses:
        async for _ in responses:
            pass
    assert (await client.get(execution_id)).state == ExecutionState.EXECUTION_STATE_COMPLETED
    return time.monotonic() - started_at


class Stalled:
    """Streams that are open, and that nobody reads."""

    def __init__(self, scheduler: grpc.aio.Channel, worker_manager: grpc.aio.Channel) -> None:
        self._scheduler = SchedulerServiceStub(scheduler)
        self._workers = WorkerManagerServiceStub(worker_manager)
        self.watches: list[Any] = []  # calls, which the stubs know as blocking ones
        self.others: list[Any] = []

    async def open(self, execution_id: str) -> None:
        watch = pb2.WatchExecutionRequest(execution_id=execution_id)
        tail = pb2.TailLogsRequest(execution_id=execution_id, follow=True)
        self.watches = [self._scheduler.WatchExecution(watch) for _ in range(WATCHES)]
        self.others = [self._scheduler.TailLogs(tail) for _ in range(OTHERS)]
        self.others += [
            self._scheduler.ExportExecution(pb2.ExportExecutionRequest(execution_id=execution_id))
            for _ in range(OTHERS)
        ]
        self.others += [self._workers.Connect(deaf_worker(number)) for number in range(DEAF_WORKERS)]
        self.others.append(self._workers.Connect(babbling_worker()))
        for call in self.watches:
            await call.initial_metadata()


async def deaf_worker(number: int) -> AsyncIterator[wm.ConnectRequest]:
    """A worker that wants work, and then neither reads nor says anything."""
    capacity = wm.Capacity(slots=8, credits=100)
    yield wm.ConnectRequest(
        hello=wm.Hello(worker_id=f"deaf-{number}", session_id=str(uuid.uuid4()), capacity=capacity, version="0")
    )
    await asyncio.Event().wait()


async def babbling_worker() -> AsyncIterator[wm.ConnectRequest]:
    """A worker that reports results of attempts that nobody gave it, as fast as it can."""
    yield wm.ConnectRequest(
        hello=wm.Hello(worker_id="babbling", session_id=str(uuid.uuid4()), capacity=wm.Capacity(), version="0")
    )
    yield wm.ConnectRequest(held=wm.HeldAttempts())
    nonsense = [
        attempt_pb2.AttemptResult(
            execution_id="nobody's", task_number=n, attempt_number=1, fencing_token=1, result_id=n + 1
        )
        for n in range(100)
    ]
    while True:
        yield wm.ConnectRequest(updates=attempt_pb2.AttemptUpdates(results=nonsense))


def memory(suite: Suite) -> dict[str, int]:
    services = ("scheduler", "worker-manager", "state-manager")
    return {service: psutil.Process(suite.pid(service)).memory_info().rss for service in services}


async def test_streams_that_nobody_reads_cost_little_and_end(tmp_path: Path) -> None:
    (tmp_path / "pages.py").write_text(FUNCTIONS)
    document = WorkflowDocument(source=WORKFLOW.encode(), directory=str(tmp_path))
    environment = {
        "NODEFLOW_SCHEDULER_READER_TIMEOUT_S": str(READER_TIMEOUT_S),
        "NODEFLOW_WORKER_MANAGER_LEASE_TIMEOUT_S": str(LEASE_S),
        "NODEFLOW_WORKER_MANAGER_HEARTBEAT_INTERVAL_S": str(LEASE_S / 4),
    }
    with running(tmp_path, "--slots", "2", environment=environment) as suite:
        async with (
            open_client(suite.address()) as client,
            open_channel(suite.address()) as scheduler,
            open_channel(suite.address("worker-manager")) as worker_manager,
        ):
            await run(client, document)  # what is imported and cached with the first run counts for neither
            alone_s = await run(client, document)
            before = memory(suite)
            stalled = Stalled(scheduler, worker_manager)
            together_s = await run(client, document, stalled.open)
            grown = {service: size - before[service] for service, size in memory(suite).items()}
            assert max(grown.values()) < GROWTH_LIMIT_BYTES, grown
            # Each of the streams costs the making of the megabytes that its sockets take before they are full.
            assert together_s < 4 * alone_s + COST_OF_STREAMS_S, (alone_s, together_s)
            await given_up(suite)
            ends = [await end_of(call) for call in stalled.watches]
            assert set(ends) == {"NOT_READING"}

            for call in stalled.others:
                call.cancel()


async def given_up(suite: Suite) -> None:
    """Wait until the scheduler has given up every watch. Its log tells: a client that would look would read."""
    log = suite.data_dir / "logs" / "scheduler.log"
    async with asyncio.timeout(60):
        while stalled_watches(log) < WATCHES:  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.1)


def stalled_watches(log: Path) -> int:
    lines = log.read_text().splitlines()
    return sum("reader_stalled" in line and "WatchExecution" in line for line in lines)


async def end_of(call: Any) -> str:  # noqa: ANN401  # the stubs know blocking calls only
    """Read it to its end: why it ended."""
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call)
    return from_rpc_error(caught.value).reason


async def read_all(call: Any) -> None:  # noqa: ANN401  # the stubs know blocking calls only
    while await call.read() is not grpc.aio.EOF:
        pass
