"""The worker-manager over gRPC: the Connect stream, the stream of output, and the transfer of artifacts.

Owns streams, chunks and the mapping of errors. Must not know what the messages lead to.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

import grpc
import grpc.aio
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as wm_grpc

from nodeflow_shared.errors import DeadlineExceeded
from nodeflow_shared.retry import as_lost_connection
from nodeflow_shared.status import from_rpc_error
from nodeflow_worker.domain.values import Stored
from nodeflow_worker.ports import Incoming, LogIncoming, LogOutgoing, Outgoing
from nodeflow_worker.wire import WireReader, WireWriter
from nodeflow_worker.wire_logs import log_hello, log_request, read_log_response

CHUNK_BYTES: Final = 1024 * 1024
TRANSFER_TIMEOUT_S: Final = 120.0


class WorkerManager:
    """The ports `Manager`, `LogSink` and `Artifacts`, on one channel."""

    def __init__(self, channel: grpc.aio.Channel, writer: WireWriter) -> None:
        self._stub = wm_grpc.WorkerManagerServiceStub(channel)
        self._reader = WireReader()
        self._writer = writer

    async def connect(self, outgoing: AsyncIterator[Outgoing]) -> AsyncGenerator[Incoming]:
        """Open the stream and yield what comes; see the port for its errors."""
        call = self._stub.Connect(self._requests(outgoing))
        try:
            async for response in call:
                incoming = self._reader.read(response)
                if incoming is not None:
                    yield incoming
        except grpc.aio.AioRpcError as error:
            raise as_lost_connection(error) or from_rpc_error(error) from error
        finally:
            call.cancel()

    async def _requests(self, outgoing: AsyncIterator[Outgoing]) -> AsyncIterator[wm.ConnectRequest]:
        async for message in outgoing:
            yield self._writer.write(message)

    async def write_logs(self, session_id: str, outgoing: AsyncIterator[LogOutgoing]) -> AsyncGenerator[LogIncoming]:
        """Open the stream of output; see the port for its errors."""
        call = self._stub.WriteLogs(_log_requests(session_id, outgoing))
        try:
            async for response in call:
                incoming = read_log_response(response)
                if incoming is not None:
                    yield incoming
        except grpc.aio.AioRpcError as error:
            raise as_lost_connection(error) or from_rpc_error(error) from error
        finally:
            call.cancel()

    async def download(self, tenant: str, digest: str) -> bytes:
        """Return the bytes of an artifact."""
        data = bytearray()
        async for piece in self._pieces(tenant, digest):
            data += piece
        return bytes(data)

    async def download_file(self, tenant: str, digest: str, path: str) -> None:
        """Write the bytes of an artifact to a file, piece by piece."""
        with Path(path).open("wb") as file:  # noqa: ASYNC230  # pieces of a megabyte to the page cache take no time
            async for piece in self._pieces(tenant, digest):
                file.write(piece)

    async def _pieces(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        request = wm.DownloadArtifactRequest(tenant=tenant, digest=digest)
        try:
            async for response in self._stub.DownloadArtifact(request, timeout=TRANSFER_TIMEOUT_S):
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise as_lost_connection(error) or from_rpc_error(error) from error

    async def upload(self, tenant: str, value: Stored) -> Stored:
        """Store the bytes of a value."""
        return await self._upload(tenant, value.content_type, io.BytesIO(value.data))

    async def upload_file(self, tenant: str, path: str, content_type: str) -> Stored:
        """Store the bytes of a file, piece by piece."""
        with Path(path).open("rb") as file:  # noqa: ASYNC230  # pieces of a megabyte from the page cache take no time
            return await self._upload(tenant, content_type, file)

    async def _upload(self, tenant: str, content_type: str, source: BinaryIO) -> Stored:
        header = wm.UploadHeader(tenant=tenant, content_type=content_type)
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                response = await self._stub.UploadArtifact(_requests(header, source))
        except grpc.aio.AioRpcError as error:
            raise as_lost_connection(error) or from_rpc_error(error) from error
        except asyncio.CancelledError as error:
            # What grpc.aio makes of a source that cannot be read on. Nobody would hear of a task that ends like this.
            lost = as_lost_connection(error)
            if lost is None:
                raise
            raise lost from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"the upload was not answered within {TRANSFER_TIMEOUT_S:g} s") from error
        reference = response.artifact
        return Stored(content_type=content_type, digest=reference.digest, size_bytes=reference.size_bytes)


async def _log_requests(session_id: str, outgoing: AsyncIterator[LogOutgoing]) -> AsyncIterator[wm.WriteLogsRequest]:
    yield log_hello(session_id)
    async for message in outgoing:
        yield log_request(message)


async def _requests(header: wm.UploadHeader, source: BinaryIO) -> AsyncIterator[wm.UploadArtifactRequest]:
    yield wm.UploadArtifactRequest(header=header)
    while data := source.read(CHUNK_BYTES):
        yield wm.UploadArtifactRequest(data=data)
