"""Both ends of the worker-manager's streams, to be driven by hand, and the service itself on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import grpc.aio
from nodeflow.worker_manager.v1 import attempt_pb2 as attempts
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox
from nodeflow_worker_manager.bootstrap import build
from nodeflow_worker_manager.config import Settings

Q = TypeVar("Q")
R = TypeVar("R")

Stub = pb_grpc.WorkerManagerServiceStub


@asynccontextmanager
async def serving(register: Callable[[grpc.aio.Server], None], port: int = 0) -> AsyncIterator[int]:
    """Serve on a loopback port, and yield it."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=[("grpc.so_reuseport", 0)])
    register(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0.2)


@asynccontextmanager
async def worker_manager(
    state_port: int, *, lease_timeout_s: float = 10.0, register_timeout_s: float = 8.0
) -> AsyncIterator[Stub]:
    """Run the service, and yield a stub once it is ready; at the end it is drained as `serve` does it."""
    settings = Settings(
        state_manager=f"127.0.0.1:{state_port}",
        lease_timeout_s=lease_timeout_s,
        heartbeat_interval_s=lease_timeout_s / 5,
        register_timeout_s=register_timeout_s,
    )
    service = await build(settings)
    try:
        async with serving(service.register) as port, asyncio.TaskGroup() as group:
            run = group.create_task(service.run())
            try:
                await service.ready.wait()
                yield Stub(open_channel(f"127.0.0.1:{port}"))
            finally:
                await service.drain()
                await run
    finally:
        await service.close()


class Stream(Generic[Q, R]):
    """A caller's end of a bidirectional stream."""

    def __init__(self, call: Callable[[AsyncIterator[Q]], grpc.aio.StreamStreamCall[Q, R]], *first: Q) -> None:
        self._requests: Outbox[Q] = Outbox()
        self.send(*first)
        self._call = call(self._requests)
        self._responses = aiter(self._call)

    def send(self, *requests: Q) -> None:
        """Send messages, in order."""
        for request in requests:
            assert self._requests.offer(request)

    async def next(self) -> R:
        """Return the next response."""
        async with asyncio.timeout(10):
            return await anext(self._responses)

    async def end(self) -> NodeflowError | None:
        """Read to the end of the stream and return how it ended: the error, or None."""
        try:
            while True:
                await self.next()
        except StopAsyncIteration:
            return None
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        finally:
            self.close()

    def close(self) -> None:
        """Send nothing more."""
        self._requests.close()

    def cut(self) -> None:
        """Break the stream off."""
        self._call.cancel()


class Worker(Stream[pb.ConnectRequest, pb.ConnectResponse]):
    """A worker that says what it holds whenever it has to; all other responses are for the test to read."""

    def __init__(self, stub: Stub, first: pb.ConnectRequest, *holds: attempts.AttemptResult) -> None:
        super().__init__(stub.Connect, first)
        self.holds = list(holds)
        self._others: asyncio.Queue[pb.ConnectResponse | BaseException] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self) -> pb.ConnectResponse:
        async with asyncio.timeout(10):
            response = await self._others.get()
        if isinstance(response, BaseException):
            raise response
        return response

    async def _read(self) -> None:
        while True:
            try:
                response = await anext(self._responses)
            except (grpc.aio.AioRpcError, StopAsyncIteration, asyncio.CancelledError) as end:
                self._others.put_nowait(end)
                return
            if response.HasField("welcome") or response.HasField("report_held"):
                held = pb.HeldAttempts(unacknowledged=self.holds)
                self.send(pb.ConnectRequest(held=held))
            if not response.HasField("report_held"):
                self._others.put_nowait(response)


class Scheduler(Stream[pb.CoordinateRequest, pb.CoordinateResponse]):
    """A scheduler that claims shards (by token) with its first message."""

    def __init__(self, stub: Stub, claims: dict[int, int], name: str = "scheduler-0") -> None:
        shards = [pb.ShardClaim(shard=shard, fencing_token=token) for shard, token in claims.items()]
        super().__init__(stub.Coordinate, pb.CoordinateRequest(attach=pb.Attach(scheduler_id=name), claims=shards))

    async def until(self, found: Callable[[pb.CoordinateResponse], object]) -> list[pb.CoordinateResponse]:
        """Read up to the response that is wanted, and return all of them."""
        responses = [await self.next()]
        while not found(responses[-1]):
            responses.append(await self.next())
        return responses
