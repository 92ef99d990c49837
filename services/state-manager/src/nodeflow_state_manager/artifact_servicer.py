"""ArtifactService: bytes first, then the entry that makes them known.

Owns the order of the two. Must not know where bytes lie.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio
from nodeflow.common.v1 import payload_pb2
from nodeflow.state_manager.v1 import artifact_service_pb2 as pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as pb_grpc

from nodeflow_shared.errors import NotFound
from nodeflow_state_manager import wire
from nodeflow_state_manager.domain.names import check_digest, check_tenant, invalid
from nodeflow_state_manager.domain.values import ArtifactRecord
from nodeflow_state_manager.ports import ArtifactFiles, Store
from nodeflow_state_manager.writability import Writability

# Any: a context's type arguments are the messages, which the handlers' signatures say already.
Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
MAX_DIGESTS: Final = 1_000


class ArtifactServicer(pb_grpc.ArtifactServiceServicer):
    """Stores and reads artifacts. One that has no entry does not exist, whatever bytes lie around."""

    def __init__(self, store: Store, files: ArtifactFiles, *, of_store: Writability, of_files: Writability) -> None:
        self._store = store
        self._files = files
        self._of_store = of_store
        self._of_files = of_files

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: Context
    ) -> pb.UploadArtifactResponse:
        """Store bytes."""
        header = await _header(request_iterator)
        pieces = _pieces(request_iterator)
        digest, size = await self._of_files.watched(self._files.receive(header.tenant, pieces, header.digest))
        content_type = header.content_type or DEFAULT_CONTENT_TYPE
        record = ArtifactRecord(tenant=header.tenant, digest=digest, size_bytes=size, content_type=content_type)
        await self._of_store.watched(self._store.put_artifact(record))
        return pb.UploadArtifactResponse(artifact=payload_pb2.ArtifactReference(digest=digest, size_bytes=size))

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """Read bytes."""
        tenant, digest = check_tenant(request.tenant), check_digest(request.digest)
        if not await self._store.get_artifacts(tenant, [digest]):
            raise NotFound(f"there is no artifact {digest}", reason="ARTIFACT_NOT_FOUND")
        async for piece in self._files.read(tenant, digest):
            yield pb.DownloadArtifactResponse(data=piece)

    async def BatchGetArtifacts(
        self, request: pb.BatchGetArtifactsRequest, context: Context
    ) -> pb.BatchGetArtifactsResponse:
        """Tell which artifacts are stored."""
        if len(request.digests) > MAX_DIGESTS:
            raise invalid("digests", f"{len(request.digests)} digests are too many", f"at most {MAX_DIGESTS}")
        digests = [check_digest(each, "digests") for each in dict.fromkeys(request.digests)]
        found = await self._store.get_artifacts(check_tenant(request.tenant), digests)
        return pb.BatchGetArtifactsResponse(artifacts=[wire.artifact_message(each) for each in found])


async def _header(requests: AsyncIterator[pb.UploadArtifactRequest]) -> pb.UploadHeader:
    async for request in requests:
        if not request.HasField("header"):
            break
        check_tenant(request.header.tenant, "header.tenant")
        if request.header.digest:
            check_digest(request.header.digest, "header.digest")
        return request.header
    raise invalid("header", "the first message of an upload has no header", "header {tenant, digest, content_type}")


async def _pieces(requests: AsyncIterator[pb.UploadArtifactRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if not request.HasField("data"):
            raise invalid("data", "a message after the first has no data")
        yield request.data
