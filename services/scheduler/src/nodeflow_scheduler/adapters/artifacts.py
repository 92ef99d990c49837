"""Artifacts, over the state-manager's ArtifactService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import grpc
import grpc.aio
from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb2
from nodeflow.state_manager.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from nodeflow_scheduler.adapters.silence import in_time
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.ports import Upload
from nodeflow_shared.errors import InvalidInput, NodeflowError
from nodeflow_shared.retry import as_lost_connection
from nodeflow_shared.status import from_rpc_error

PIECE_BYTES = 512 * 1024
TIMEOUT_S = 300.0
LOOK_UP_TIMEOUT_S = 5.0
LOOK_UP_LIMIT = 1_000


class GrpcArtifacts:
    """`Artifacts`. What is kept and fetched for the core is retried over any outage, for an execution waits for it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ArtifactServiceStub(channel)

    async def keep(self, tenant: str, value: Stored) -> None:
        """See the port."""
        await _persistent()(self._upload, tenant, value)

    async def _upload(self, tenant: str, value: Stored) -> None:
        try:
            await self._stub.UploadArtifact(_requests(tenant, value), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def fetch(self, tenant: str, digest: str, limit_bytes: int) -> bytes:
        """See the port."""
        return await _persistent()(self._download, tenant, digest, limit_bytes)

    async def _download(self, tenant: str, digest: str, limit_bytes: int) -> bytes:
        data = bytearray()
        async for piece in self.stream(tenant, digest):
            data += piece
            if len(data) > limit_bytes:
                raise InvalidInput(f"artifact {digest} has more than {limit_bytes} bytes")
        return bytes(data)

    async def missing(self, tenant: str, digests: Collection[str]) -> set[str]:
        """See the port."""
        wanted = sorted(digests)
        found: set[str] = set()
        for start in range(0, len(wanted), LOOK_UP_LIMIT):
            found |= await _persistent()(self._stored, tenant, wanted[start : start + LOOK_UP_LIMIT])
        return set(wanted) - found

    async def _stored(self, tenant: str, digests: Sequence[str]) -> set[str]:
        request = artifact_pb2.BatchGetArtifactsRequest(tenant=tenant, digests=digests)
        try:
            response = await self._stub.BatchGetArtifacts(request, timeout=LOOK_UP_TIMEOUT_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return {artifact.reference.digest for artifact in response.artifacts}

    async def upload(self, tenant: str, upload: Upload, data: AsyncIterator[bytes], timeout_s: float | None) -> Stored:
        """See the port. Tried once: the bytes cannot be had again."""
        header = artifact_pb2.UploadHeader(tenant=tenant, digest=upload.digest, content_type=upload.content_type)
        passed_on = _PassedOn(header, data)
        try:
            response = await self._stub.UploadArtifact(passed_on.requests(), timeout=timeout_s or TIMEOUT_S)
        except grpc.RpcError as error:
            raise passed_on.fault or from_rpc_error(error) from error
        except asyncio.CancelledError:
            # grpc cancels a call whose request iterator raises; without a fault it is this task that is cancelled.
            if passed_on.fault is None:
                raise
            raise passed_on.fault from None
        stored = response.artifact
        return Stored(content_type=upload.content_type, digest=stored.digest, size_bytes=stored.size_bytes)

    async def stream(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        """See the port."""
        request = artifact_pb2.DownloadArtifactRequest(tenant=tenant, digest=digest)
        try:
            async for response in in_time(self._stub.DownloadArtifact(request)):
                yield response.data
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _persistent() -> AsyncRetrying:
    """Tries again for as long as the store cannot be reached; any other error is raised."""
    return AsyncRetrying(
        sleep=asyncio.sleep,
        retry=retry_if_exception(lambda error: as_lost_connection(error) is not None),
        wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
    )


async def _requests(tenant: str, value: Stored) -> AsyncIterator[artifact_pb2.UploadArtifactRequest]:
    header = artifact_pb2.UploadHeader(tenant=tenant, digest=value.digest, content_type=value.content_type)
    yield artifact_pb2.UploadArtifactRequest(header=header)
    for start in range(0, len(value.data), PIECE_BYTES):
        yield artifact_pb2.UploadArtifactRequest(data=value.data[start : start + PIECE_BYTES])


class _PassedOn:
    """An upload on its way; grpc only logs what its request iterator raises, so the fault is kept here."""

    def __init__(self, header: artifact_pb2.UploadHeader, data: AsyncIterator[bytes]) -> None:
        self._header = header
        self._data = data
        self.fault: NodeflowError | None = None

    async def requests(self) -> AsyncIterator[artifact_pb2.UploadArtifactRequest]:
        yield artifact_pb2.UploadArtifactRequest(header=self._header)
        try:
            async for piece in self._data:
                yield artifact_pb2.UploadArtifactRequest(data=piece)
        except NodeflowError as fault:
            self.fault = fault
            raise
