"""RPC → event or call → reply, for WorkerManagerService.

Owns how a stream is read and written. Must not decide anything: what a message means is the core's business.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final, TypeVar, assert_never

import grpc.aio
from nodeflow.common.v1 import payload_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.errors import FieldViolation, InvalidInput
from nodeflow_worker_manager import wire
from nodeflow_worker_manager.directory import WorkerDirectory
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.hello import check_heartbeat, check_hello, check_session_id, check_worker_id
from nodeflow_worker_manager.driver import Driver, Peer
from nodeflow_worker_manager.log_relay import Flush, Flushed, FromWorker, LogRelay, Stored
from nodeflow_worker_manager.ports import ArtifactHeader, Artifacts, LogBatch

FIRST_REQUEST_TIMEOUT_S: Final = 10.0
MAX_QUESTION_BYTES: Final = 16 << 10
"""Many are passed on together."""

R = TypeVar("R")

# Any: the context is used for the caller's deadline only, whatever the types of the call are.
Context = grpc.aio.ServicerContext[Any, Any]


class WorkerManagerServicer(pb_grpc.WorkerManagerServiceServicer):
    """The one service of this process."""

    def __init__(
        self,
        driver: Driver,
        directory: WorkerDirectory,
        artifacts: Artifacts,
        logs: LogRelay,
        worker_writer: wire.WorkerWriter,
    ) -> None:
        self._driver = driver
        self._directory = directory
        self._artifacts = artifacts
        self._logs = logs
        self._worker_writer = worker_writer

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        """Serve a worker's stream."""
        requests = aiter(request_iterator)
        first = await _first(requests, "hello")
        if first.WhichOneof("content") != "hello":
            raise _not_first("hello")
        hello = wire.read_hello(first.hello)
        check_hello(hello)
        peer = self._driver.worker(hello)
        try:
            self._driver.spawn(self._read_worker(peer, requests), f"worker.{hello.session_id}")
            async for frame in peer:
                yield self._worker_writer.write(frame)
        finally:
            self._driver.worker_left(peer)

    async def _read_worker(self, peer: Peer[do.ToWorker], requests: AsyncIterator[pb.ConnectRequest]) -> None:
        try:
            async for request in requests:
                await self._driver.hear(peer, _worker_event(peer.number, request))
        except Exception as error:  # noqa: BLE001  # raised again by the writing side, where the interceptor sees it
            peer.end(error)
        finally:
            self._driver.worker_left(peer)

    async def Coordinate(
        self, request_iterator: AsyncIterator[pb.CoordinateRequest], context: Context
    ) -> AsyncIterator[pb.CoordinateResponse]:
        """Serve a scheduler's stream."""
        requests = aiter(request_iterator)
        first = await _first(requests, "attach")
        if not first.HasField("attach"):
            raise _not_first("attach")
        if not first.attach.scheduler_id:
            raise InvalidInput(
                "a scheduler needs a name",
                violations=[FieldViolation("attach.scheduler_id", "is empty", "scheduler-0")],
            )
        peer = self._driver.scheduler(first.attach.scheduler_id)
        try:
            self._driver.feed(wire.read_scheduler_request(peer.number, first))
            self._driver.spawn(self._read_scheduler(peer, requests), f"scheduler.{first.attach.scheduler_id}")
            writer = wire.SchedulerWriter()
            async for frame in peer:
                if not writer.add(frame):
                    yield writer.take()
                    writer.add(frame)
                if not peer.waiting:
                    yield writer.take()
        finally:
            self._driver.scheduler_left(peer)

    async def _read_scheduler(self, peer: Peer[do.ToScheduler], requests: AsyncIterator[pb.CoordinateRequest]) -> None:
        try:
            async for request in requests:
                if request.HasField("attach"):
                    raise InvalidInput("attach comes in the first request only")
                self._driver.feed(wire.read_scheduler_request(peer.number, request))
        except Exception as error:  # noqa: BLE001  # raised again by the writing side, where the interceptor sees it
            peer.end(error)
        finally:
            self._driver.scheduler_left(peer)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> pb.ListWorkersResponse:
        """List known workers."""
        state = None if request.state == pb.WORKER_STATE_UNSPECIFIED else wire.read_worker_state(request.state)
        page = await self._directory.page(request.page_size, request.page_token, state, context.time_remaining())
        workers = map(wire.write_worker, page.workers)
        return pb.ListWorkersResponse(workers=workers, next_page_token=page.next_page_token)

    async def DrainWorker(self, request: pb.DrainWorkerRequest, context: Context) -> pb.DrainWorkerResponse:
        """Tell a worker to finish and leave."""
        check_worker_id(request.worker_id)
        worker = await self._directory.drain(request.worker_id, context.time_remaining())
        return pb.DrainWorkerResponse(worker=wire.write_worker(worker))

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: Context
    ) -> pb.UploadArtifactResponse:
        """Pass an upload on."""
        requests = aiter(request_iterator)
        first = await _first(requests, "header")
        if first.WhichOneof("content") != "header":
            raise _not_first("header")
        header = ArtifactHeader(
            tenant=first.header.tenant, digest=first.header.digest, content_type=first.header.content_type
        )
        stored = await self._artifacts.upload(header, _data(requests), context.time_remaining())
        reference = payload_pb2.ArtifactReference(digest=stored.digest, size_bytes=stored.size_bytes)
        return pb.UploadArtifactResponse(artifact=reference)

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """Pass a download on."""
        download = self._artifacts.download(request.tenant, request.digest, context.time_remaining())
        async with aclosing(download):
            async for data in download:
                yield pb.DownloadArtifactResponse(data=data)

    async def WriteLogs(
        self, request_iterator: AsyncIterator[pb.WriteLogsRequest], context: Context
    ) -> AsyncIterator[pb.WriteLogsResponse]:
        """Pass a worker's output on."""
        requests = aiter(request_iterator)
        first = await _first(requests, "hello")
        if first.WhichOneof("content") != "hello":
            raise _not_first("hello")
        check_session_id(first.hello.session_id)
        async for answer in self._logs.serve(first.hello.session_id, _output(requests)):
            yield _log_response(answer)

    async def FlushLogs(self, request: pb.FlushLogsRequest, context: Context) -> pb.FlushLogsResponse:
        """Wait until all output by now is stored."""
        await self._logs.flush()
        return pb.FlushLogsResponse()

    async def GetTaskDependencies(
        self, request: pb.GetTaskDependenciesRequest, context: Context
    ) -> pb.GetTaskDependenciesResponse:
        """Ask the scheduler that owns the execution."""
        if request.ByteSize() > MAX_QUESTION_BYTES:
            raise InvalidInput(
                f"the question has {request.ByteSize():,} bytes; at most {MAX_QUESTION_BYTES:,} are allowed"
            )
        answer = await self._driver.ask(request.session_id, request.attempt.shard, request, context.time_remaining())
        assert isinstance(answer, pb.DependencyAnswer)
        return wire.read_answer(answer)


def _worker_event(connection: int, request: pb.ConnectRequest) -> ev.Event:
    event = wire.read_worker_request(connection, request)
    if event is None:
        found = request.WhichOneof("content") or "nothing that this version knows"
        raise InvalidInput(f"a message after hello holds {found}; it holds one of held, heartbeat, updates, goodbye")
    if isinstance(event, ev.HeartbeatReceived):
        check_heartbeat(event.capacity)
    return event


async def _first(requests: AsyncIterator[R], name: str) -> R:
    try:
        async with asyncio.timeout(FIRST_REQUEST_TIMEOUT_S):
            return await anext(requests)
    except (StopAsyncIteration, TimeoutError):
        raise _not_first(name) from None


def _not_first(name: str) -> InvalidInput:
    return InvalidInput(
        f"the first message has to hold {name}",
        violations=[FieldViolation(name, "is missing in the first message", f"begin the stream with {name}")],
    )


async def _data(requests: AsyncIterator[pb.UploadArtifactRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("content") != "data":
            raise InvalidInput("after the header only data may follow")
        yield request.data


async def _output(requests: AsyncIterator[pb.WriteLogsRequest]) -> AsyncIterator[FromWorker]:
    async for request in requests:
        match request.WhichOneof("content"):
            case "batch":
                yield LogBatch(batch_id=request.batch.batch_id, chunks=request.batch.chunks)
            case "flushed":
                yield Flushed(flush_id=request.flushed.flush_id)
            case _:
                raise InvalidInput("a message after hello holds batch or flushed")


def _log_response(answer: Stored | Flush) -> pb.WriteLogsResponse:
    match answer:
        case Stored():
            return pb.WriteLogsResponse(acknowledgement=pb.LogAcknowledgement(batch_id=answer.batch_id))
        case Flush():
            return pb.WriteLogsResponse(flush=pb.LogFlush(flush_id=answer.flush_id))
        case _:
            assert_never(answer)
