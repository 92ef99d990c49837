"""A worker-manager that a test plays by hand, over real gRPC."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from nodeflow.common.v1 import log_chunk_pb2, payload_pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as wm_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class Stream:
    """One life of the worker's stream."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[wm.ConnectResponse | grpc.StatusCode | None] = asyncio.Queue()
        self.heartbeats: list[wm.Heartbeat] = []
        self.answers_heartbeats = True
        self._received: asyncio.Queue[wm.ConnectRequest] = asyncio.Queue()

    async def take(self, requests: AsyncIterator[wm.ConnectRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("content") == "heartbeat":
                self.heartbeats.append(request.heartbeat)
                if self.answers_heartbeats:
                    self.say(wm.ConnectResponse(heartbeat_reply=wm.HeartbeatReply(beat=request.heartbeat.beat)))
                continue
            await self._received.put(request)
            if request.WhichOneof("content") == "goodbye":
                self.end()

    async def next(self, content: str) -> Any:  # noqa: ANN401  # whichever message the content is
        """Return the next message, which must be of this kind; heartbeats are kept apart."""
        async with asyncio.timeout(10):
            request = await self._received.get()
        assert request.WhichOneof("content") == content, request
        return getattr(request, content)

    def say(self, response: wm.ConnectResponse) -> None:
        self.sent.put_nowait(response)

    def welcome(self, lease_s: float = 10.0, interval_s: float = 2.0) -> None:
        lease, interval = Duration(), Duration()
        lease.FromNanoseconds(round(lease_s * 1e9))
        interval.FromNanoseconds(round(interval_s * 1e9))
        self.say(wm.ConnectResponse(welcome=wm.Welcome(lease_timeout=lease, heartbeat_interval=interval)))

    def assign(self, function: str, *assignments: attempt_pb2.Assignment, directory: str = "") -> None:
        executor = attempt_pb2.FunctionExecutor(function=function, directory=directory)
        self._assign(attempt_pb2.TaskSpec(tenant="acme", function=executor), assignments)

    def assign_script(self, script: str, *assignments: attempt_pb2.Assignment) -> None:
        self._assign(
            attempt_pb2.TaskSpec(tenant="acme", process=attempt_pb2.ProcessExecutor(script=script)), assignments
        )

    def _assign(self, spec: attempt_pb2.TaskSpec, assignments: Sequence[attempt_pb2.Assignment]) -> None:
        batch = attempt_pb2.AssignmentBatch(specs=[spec], assignments=assignments)
        self.say(wm.ConnectResponse(assignments=batch))

    def acknowledge(self, *result_ids: int) -> None:
        self.say(wm.ConnectResponse(acknowledgement=wm.ResultAcknowledgement(result_ids=result_ids)))

    def end(self, code: grpc.StatusCode | None = None) -> None:
        """End the stream, orderly or with a code."""
        self.sent.put_nowait(code)


class ManagerDouble(wm_grpc.WorkerManagerServiceServicer):
    """Serves Connect, and artifacts from a dictionary."""

    def __init__(self) -> None:
        self.artifacts: dict[tuple[str, str], bytes] = {}
        self.upload_failures = 0
        self.chunks: list[log_chunk_pb2.LogChunk] = []
        self.address = ""
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self._server = grpc.aio.server()
        wm_grpc.add_WorkerManagerServiceServicer_to_server(self, self._server)

    async def start(self) -> None:
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def stream(self) -> Stream:
        """Wait for the worker to connect."""
        async with asyncio.timeout(10):
            return await self._streams.get()

    async def Connect(  # noqa: N802  # named by the proto
        self, request_iterator: AsyncIterator[wm.ConnectRequest], context: Context
    ) -> AsyncIterator[wm.ConnectResponse]:
        stream = Stream()
        self._streams.put_nowait(stream)
        taking = asyncio.ensure_future(stream.take(request_iterator))
        try:
            while isinstance(response := await stream.sent.get(), wm.ConnectResponse):
                yield response
            if response is not None:
                await context.abort(response, "the test ends the stream")
        finally:
            taking.cancel()

    async def WriteLogs(  # noqa: N802  # named by the proto
        self, request_iterator: AsyncIterator[wm.WriteLogsRequest], context: Context
    ) -> AsyncIterator[wm.WriteLogsResponse]:
        async for request in request_iterator:
            if request.WhichOneof("content") == "batch":
                self.chunks += request.batch.chunks
                acknowledgement = wm.LogAcknowledgement(batch_id=request.batch.batch_id)
                yield wm.WriteLogsResponse(acknowledgement=acknowledgement)

    async def FlushLogs(  # noqa: N802  # named by the proto
        self, request: wm.FlushLogsRequest, context: Context
    ) -> wm.FlushLogsResponse:
        raise AssertionError("a worker does not wait for output")

    async def GetTaskDependencies(  # noqa: N802  # named by the proto
        self, request: wm.GetTaskDependenciesRequest, context: Context
    ) -> wm.GetTaskDependenciesResponse:
        raise AssertionError("this worker asks nothing")

    async def Coordinate(  # noqa: N802  # named by the proto
        self, request_iterator: object, context: Context
    ) -> AsyncIterator[wm.CoordinateResponse]:
        raise AssertionError("a worker does not coordinate")
        yield

    async def ListWorkers(  # noqa: N802  # named by the proto
        self, request: wm.ListWorkersRequest, context: Context
    ) -> wm.ListWorkersResponse:
        raise AssertionError("a worker does not ask for workers")

    async def DrainWorker(  # noqa: N802  # named by the proto
        self, request: wm.DrainWorkerRequest, context: Context
    ) -> wm.DrainWorkerResponse:
        raise AssertionError("a worker does not drain others")

    async def UploadArtifact(  # noqa: N802  # named by the proto
        self, request_iterator: AsyncIterator[wm.UploadArtifactRequest], context: Context
    ) -> wm.UploadArtifactResponse:
        header, data = wm.UploadHeader(), b""
        async for request in request_iterator:
            if request.HasField("header"):
                header = request.header
            data += request.data
        if self.upload_failures:
            self.upload_failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.artifacts[header.tenant, digest] = data
        return wm.UploadArtifactResponse(artifact=payload_pb2.ArtifactReference(digest=digest, size_bytes=len(data)))

    async def DownloadArtifact(  # noqa: N802  # named by the proto
        self, request: wm.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[wm.DownloadArtifactResponse]:
        data = self.artifacts.get((request.tenant, request.digest))
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no artifact {request.digest}")
            return
        for start in range(0, len(data), 1024):
            yield wm.DownloadArtifactResponse(data=data[start : start + 1024])
