"""The registry, the artifact store and the store of output, at the state-manager over gRPC.

Owns calls, deadlines, repeats and the translation of the state-manager's messages. Must not know live sessions.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as artifact_grpc
from nodeflow.state_manager.v1 import log_service_pb2 as log_pb
from nodeflow.state_manager.v1 import log_service_pb2_grpc as log_grpc
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.retry import STARTING_S, as_lost_connection, reconnect_delays
from nodeflow_shared.status import from_rpc_error
from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.workers import KnownWorker
from nodeflow_worker_manager.ports import ArtifactHeader, LogBatch, StoredArtifact, WorkerPage

ATTEMPT_TIMEOUT_S: Final = 5.0
ARTIFACT_TIMEOUT_S: Final = 600.0
# Workers wait while the state-manager is looked for; a single one does not mind being asked often.
LONGEST_DELAY_S: Final = 0.2
_PAGE: Final = 1_000

_log = get_log()

T = TypeVar("T")


class GrpcRegistry:
    """`ports.Registry` over StateManagerService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = pb_grpc.StateManagerServiceStub(channel)

    async def register_session(self, hello: Hello, timeout_s: float) -> bool:
        """Record a session; see the port."""
        request = pb.RegisterWorkerSessionRequest(
            worker_id=hello.worker_id,
            session_id=hello.session_id,
            replaced_session_ids=hello.replaced_session_ids,
            labels=hello.labels,
            version=hello.version,
        )
        try:
            async with asyncio.timeout(timeout_s):
                response = await _repeat(
                    "register_session", lambda: self._stub.RegisterWorkerSession(request, timeout=ATTEMPT_TIMEOUT_S)
                )
        except TimeoutError:
            raise Unavailable(
                f"the state-manager did not record the session within {timeout_s} s", reason="STATE_MANAGER_AWAY"
            ) from None
        return response.created

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """Record ends; see the port."""
        request = pb.EndWorkerSessionsRequest(session_ids=session_ids)
        await _repeat("end_sessions", lambda: self._stub.EndWorkerSessions(request, timeout=ATTEMPT_TIMEOUT_S))

    async def live_workers(self) -> list[KnownWorker]:
        """Return all workers with live sessions; see the port."""
        workers: list[KnownWorker] = []
        token = ""
        while True:
            page = await _repeat("live_workers", self._pages(_PAGE, token, live_only=True))
            workers.extend(map(_known, page.workers))
            token = page.next_page_token
            if not token:
                return workers

    async def list_workers(self, page_size: int, page_token: str, *, live_only: bool, timeout_s: float) -> WorkerPage:
        """Return a page of known workers; see the port."""
        try:
            page = await self._pages(page_size, page_token, live_only=live_only, timeout_s=timeout_s)()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return WorkerPage(workers=[_known(each) for each in page.workers], next_page_token=page.next_page_token)

    def _pages(
        self, size: int, token: str, *, live_only: bool, timeout_s: float = ATTEMPT_TIMEOUT_S
    ) -> Callable[[], Awaitable[pb.ListWorkersResponse]]:
        request = pb.ListWorkersRequest(page_size=size, page_token=token, live_only=live_only)
        return lambda: self._stub.ListWorkers(request, timeout=timeout_s)


class GrpcArtifacts:
    """`ports.Artifacts` over ArtifactService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = artifact_grpc.ArtifactServiceStub(channel)

    async def upload(
        self, header: ArtifactHeader, data: AsyncIterator[bytes], timeout_s: float | None
    ) -> StoredArtifact:
        """Pass bytes on; see the port."""
        upload = _Upload(header, data)
        try:
            response = await self._stub.UploadArtifact(upload.requests(), timeout=timeout_s or ARTIFACT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise (upload.fault or from_rpc_error(error)) from error
        except asyncio.CancelledError:
            # grpc cancels a call whose request iterator raises; without a fault it is this task that is cancelled.
            if upload.fault is None:
                raise
            raise upload.fault from None
        return StoredArtifact(digest=response.artifact.digest, size_bytes=response.artifact.size_bytes)

    async def download(self, tenant: str, digest: str, timeout_s: float | None) -> AsyncGenerator[bytes, None]:
        """Pass bytes on; see the port."""
        request = artifact_pb.DownloadArtifactRequest(tenant=tenant, digest=digest)
        call = self._stub.DownloadArtifact(request, timeout=timeout_s or ARTIFACT_TIMEOUT_S)
        try:
            async for part in call:
                yield part.data
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            # A reader that leaves early must not have the rest sent to nobody.
            call.cancel()


class GrpcLogs:
    """`ports.LogStore` over LogService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = log_grpc.LogServiceStub(channel)

    async def append(self, batches: AsyncGenerator[LogBatch, None]) -> AsyncGenerator[int, None]:
        """Pass batches on; see the port."""
        requests = _Requests(batches)
        call = self._stub.AppendLogs(requests.all())
        try:
            async for response in call:
                yield response.batch_id
        except grpc.aio.AioRpcError as error:
            raise (requests.fault or as_lost_connection(error) or from_rpc_error(error)) from error
        except asyncio.CancelledError:
            # grpc cancels a call whose request iterator raises; without a fault it is this task that is cancelled.
            if requests.fault is None:
                raise
            raise requests.fault from None
        finally:
            call.cancel()


class _Requests:
    """Batches on their way; grpc only logs what its request iterator raises, so the fault is kept here."""

    def __init__(self, batches: AsyncGenerator[LogBatch, None]) -> None:
        self._batches = batches
        self.fault: NodeflowError | None = None

    async def all(self) -> AsyncIterator[log_pb.AppendLogsRequest]:
        try:
            async for batch in self._batches:
                yield log_pb.AppendLogsRequest(batch_id=batch.batch_id, chunks=batch.chunks)
        except NodeflowError as fault:
            self.fault = fault
            raise


class _Upload:
    """An upload under way; grpc only logs what its request iterator raises, so the fault is kept here."""

    def __init__(self, header: ArtifactHeader, data: AsyncIterator[bytes]) -> None:
        self._header = header
        self._data = data
        self.fault: NodeflowError | None = None

    async def requests(self) -> AsyncIterator[artifact_pb.UploadArtifactRequest]:
        header = self._header
        yield artifact_pb.UploadArtifactRequest(
            header=artifact_pb.UploadHeader(
                tenant=header.tenant, digest=header.digest, content_type=header.content_type
            )
        )
        try:
            async for data in self._data:
                yield artifact_pb.UploadArtifactRequest(data=data)
        except NodeflowError as fault:
            self.fault = fault
            raise


async def _repeat(name: str, call: Callable[[], Awaitable[T]]) -> T:
    """Call until somebody answers; raises what the answer is if it is an error."""
    delays = reconnect_delays(max_s=LONGEST_DELAY_S)
    loop = asyncio.get_running_loop()
    began_s, said = loop.time(), False
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            lost = as_lost_connection(error)
            if lost is None:
                raise from_rpc_error(error) from error
            if not said and loop.time() - began_s >= STARTING_S:
                _log.warning("state_manager_away", call=name, error=lost.message)
                said = True
            await asyncio.sleep(max(next(delays), lost.retry_after_s or 0.0))


def _known(worker: pb.WorkerRecord) -> KnownWorker:
    return KnownWorker(
        worker_id=worker.worker_id,
        live_session_ids=tuple(worker.live_session_ids),
        labels=dict(worker.labels),
        version=worker.version,
        register_time_ms=_milliseconds(worker.register_time),
        last_session_time_ms=_milliseconds(worker.last_session_time),
    )


def _milliseconds(time: Timestamp) -> int:
    return time.ToMilliseconds()
