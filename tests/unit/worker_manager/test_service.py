"""The service over real sockets: generated stubs on both sides, and a state-manager that remembers as a real one does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as artifact_grpc
from nodeflow.state_manager.v1 import state_manager_service_pb2 as state_pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as state_grpc
from nodeflow.worker_manager.v1 import attempt_pb2 as attempts
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as pb_grpc
from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import IllegalState, InvalidInput, NotFound, Unavailable
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox
from nodeflow_worker_manager.bootstrap import build
from nodeflow_worker_manager.config import Settings

A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"

Stub = pb_grpc.WorkerManagerServiceStub


class StateManager(state_grpc.StateManagerServiceServicer, artifact_grpc.ArtifactServiceServicer):
    """A state-manager in memory: sessions by worker, ended sessions, artifacts by digest."""

    def __init__(self) -> None:
        self.live: dict[str, set[str]] = {}
        self.ended: set[str] = set()
        self.artifacts: dict[tuple[str, str], bytes] = {}
        self.changed = asyncio.Condition()

    async def RegisterWorkerSession(self, request: Any, context: Any) -> Any:
        if request.session_id in self.ended:
            raise IllegalState("the session has ended")
        created = request.worker_id not in self.live
        sessions = self.live.setdefault(request.worker_id, set())
        sessions.add(request.session_id)
        await self._end(request.replaced_session_ids)
        return state_pb.RegisterWorkerSessionResponse(worker=self._record(request.worker_id), created=created)

    async def EndWorkerSessions(self, request: Any, context: Any) -> Any:
        await self._end(request.session_ids)
        return state_pb.EndWorkerSessionsResponse()

    async def ListWorkers(self, request: Any, context: Any) -> Any:
        names = sorted(name for name, live in self.live.items() if live or not request.live_only)
        start = names.index(request.page_token) if request.page_token else 0
        page, rest = names[start : start + request.page_size], names[start + request.page_size :]
        return state_pb.ListWorkersResponse(workers=map(self._record, page), next_page_token=rest[0] if rest else "")

    async def UploadArtifact(self, request_iterator: Any, context: Any) -> Any:
        header = (await anext(aiter(request_iterator))).header
        data = b"".join([part.data async for part in request_iterator])
        self.artifacts[header.tenant, header.digest] = data
        reference = {"digest": header.digest, "size_bytes": len(data)}
        return artifact_pb.UploadArtifactResponse(artifact=reference)

    async def DownloadArtifact(self, request: Any, context: Any) -> Any:
        data = self.artifacts.get((request.tenant, request.digest))
        if data is None:
            raise NotFound(f"no artifact {request.digest}")
        for start in range(0, len(data), 4):
            yield artifact_pb.DownloadArtifactResponse(data=data[start : start + 4])

    async def until_ended(self, session_id: str) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: session_id in self.ended)

    async def _end(self, session_ids: Any) -> None:
        async with self.changed:
            self.ended.update(session_ids)
            for live in self.live.values():
                live.difference_update(session_ids)
            self.changed.notify_all()

    def _record(self, worker_id: str) -> state_pb.WorkerRecord:
        record = state_pb.WorkerRecord(worker_id=worker_id, live_session_ids=sorted(self.live[worker_id]))
        record.register_time.FromMilliseconds(1_000)
        return record


@asynccontextmanager
async def serving(register: Callable[[grpc.aio.Server], None], port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=[("grpc.so_reuseport", 0)])
    register(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0.2)


def serving_state(state: StateManager, port: int = 0) -> AbstractAsyncContextManager[int]:
    def register(server: grpc.aio.Server) -> None:
        state_grpc.add_StateManagerServiceServicer_to_server(state, server)
        artifact_grpc.add_ArtifactServiceServicer_to_server(state, server)

    return serving(register, port)


@asynccontextmanager
async def worker_manager(state_port: int, **settings: float) -> AsyncIterator[Stub]:
    service = await build(Settings(state_manager=f"127.0.0.1:{state_port}", **settings))  # type: ignore[arg-type]  # floats
    async with serving(service.register) as port, asyncio.TaskGroup() as group:
        run = group.create_task(service.run())
        channel = open_channel(f"127.0.0.1:{port}")
        try:
            await service.ready.wait()
            yield Stub(channel)
        finally:
            await service.drain()
            await run
            await channel.close()
            await service.close()


class Stream:
    """One end of a bidirectional stream that a test reads and writes by hand."""

    def __init__(self, open_call: Callable[[Any], Any], *first: Any) -> None:
        self._requests: Outbox[Any] = Outbox()
        for request in first:
            self._requests.offer(request)
        self.call = open_call(self._requests)
        self._responses = aiter(self.call)

    def send(self, *requests: Any) -> None:
        for request in requests:
            assert self._requests.offer(request)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            return await anext(self._responses)

    async def end(self) -> Any:
        """Read to the end of the stream and return how it ended: the error, or None."""
        try:
            while True:
                await self.next()
        except StopAsyncIteration:
            return None
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)

    def cut(self) -> None:
        self.call.cancel()


def hello(session_id: str = A, worker_id: str = "w", **fields: Any) -> pb.ConnectRequest:
    capacity = pb.Capacity(slots=2, credits=1)
    return pb.ConnectRequest(
        hello=pb.Hello(**{"worker_id": worker_id, "session_id": session_id, "capacity": capacity, **fields})
    )


def result(number: int, shard: int = 0) -> attempts.AttemptResult:
    key = {"execution_id": "e", "task_number": number, "attempt_number": 1, "shard": shard, "fencing_token": 5}
    return attempts.AttemptResult(**key, result_id=number, output={"data": b"1"})  # type: ignore[arg-type]  # mixed dict


def updates(*results: attempts.AttemptResult) -> pb.ConnectRequest:
    return pb.ConnectRequest(updates=attempts.AttemptUpdates(results=results))


def held(*unacknowledged: attempts.AttemptResult) -> pb.ConnectRequest:
    return pb.ConnectRequest(held=pb.HeldAttempts(unacknowledged=unacknowledged))


def attach(*claims: tuple[int, int], scheduler_id: str = "s") -> pb.CoordinateRequest:
    shards = [pb.ShardClaim(shard=shard, fencing_token=token) for shard, token in claims]
    return pb.CoordinateRequest(attach=pb.Attach(scheduler_id=scheduler_id), claims=shards)


async def read(stream: Stream, found: Callable[[Any], bool]) -> list[Any]:
    """Read responses of a scheduler's stream up to the one that is wanted."""
    responses = []
    while not responses or not found(responses[-1]):
        responses.append(await stream.next())
    return responses


@pytest.fixture
def state() -> StateManager:
    return StateManager()


class Worker(Stream):
    """A worker that says at any time what it holds, as it has to; the rest is for the test to read."""

    def __init__(self, stub: Stub, first: pb.ConnectRequest, *holds: attempts.AttemptResult) -> None:
        super().__init__(stub.Connect, first)
        self.holds = list(holds)
        self._others: asyncio.Queue[Any] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            response = await self._others.get()
        if isinstance(response, Exception):
            raise response
        return response

    async def _read(self) -> None:
        while True:
            try:
                response = await anext(self._responses)
            except (grpc.aio.AioRpcError, StopAsyncIteration) as end:
                self._others.put_nowait(end)
                return
            if response.HasField("welcome") or response.HasField("report_held"):
                self.send(held(*self.holds))
            if not response.HasField("report_held"):
                self._others.put_nowait(response)


async def welcomed(stub: Stub, first: pb.ConnectRequest, *holds: attempts.AttemptResult) -> Worker:
    worker = Worker(stub, first, *holds)
    assert (await worker.next()).HasField("welcome")
    return worker


async def test_a_task_travels_to_the_worker_and_its_result_back(state: StateManager) -> None:
    async with serving_state(state) as port, worker_manager(port) as stub:
        worker = Worker(stub, hello(labels={"zone": "a"}))
        welcome = (await worker.next()).welcome
        assert (welcome.lease_timeout.seconds, welcome.heartbeat_interval.seconds) == (10, 2)
        assert welcome.newly_registered
        assert state.live == {"w": {A}}

        scheduler = Stream(stub.Coordinate, attach((0, 5)))
        responses = await read(scheduler, lambda response: bool(response.held))
        opened = [session for response in responses for session in response.opened]
        assert [(each.session_id, each.worker_id, each.connected, dict(each.labels)) for each in opened] == [
            (A, "w", True, {"zone": "a"})
        ]
        assert any(response.attached for response in responses)

        batch = attempts.AssignmentBatch(
            specs=[attempts.TaskSpec(tenant="t", node="n")],
            assignments=[attempts.Assignment(execution_id="e", task_number=1, attempt_number=1, fencing_token=5)],
        )
        scheduler.send(pb.CoordinateRequest(assignments=[pb.SessionAssignments(session_id=A, batch=batch)]))
        assert (await worker.next()).assignments == batch

        worker.send(updates(result(1)))
        responses = await read(scheduler, lambda response: bool(response.updates))
        assert responses[-1].updates[0].updates.results == [result(1)]

        ack = pb.SessionAcknowledgement(session_id=A, acknowledgement=pb.ResultAcknowledgement(result_ids=[1]))
        scheduler.send(pb.CoordinateRequest(acknowledgements=[ack]))
        assert (await worker.next()).acknowledgement.result_ids == [1]

        worker.send(pb.ConnectRequest(goodbye=pb.Goodbye()))
        assert await worker.end() is None
        closed = (await read(scheduler, lambda response: bool(response.closed)))[-1].closed[0]
        assert (closed.session_id, closed.reason) == (A, "GOODBYE")
        await state.until_ended(A)
