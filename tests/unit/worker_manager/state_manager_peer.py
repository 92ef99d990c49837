"""A state-manager in memory: what the worker-manager asks of it, answered as the real one does."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as artifact_grpc
from nodeflow.state_manager.v1 import state_manager_service_pb2 as state_pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as state_grpc
from typing_extensions import override

from nodeflow_shared.errors import IllegalState, NotFound

Context = grpc.aio.ServicerContext[Any, Any]


class Registry(state_grpc.StateManagerServiceServicer):
    """Sessions by worker, and those that ended."""

    def __init__(self) -> None:
        self.live: dict[str, set[str]] = {}
        self.ended: set[str] = set()
        self._changed = asyncio.Condition()

    @override
    async def RegisterWorkerSession(
        self, request: state_pb.RegisterWorkerSessionRequest, context: Context
    ) -> state_pb.RegisterWorkerSessionResponse:
        if request.session_id in self.ended:
            raise IllegalState("the session has ended")
        created = request.worker_id not in self.live
        self.live.setdefault(request.worker_id, set()).add(request.session_id)
        await self._end(request.replaced_session_ids)
        return state_pb.RegisterWorkerSessionResponse(worker=self._record(request.worker_id), created=created)

    @override
    async def EndWorkerSessions(
        self, request: state_pb.EndWorkerSessionsRequest, context: Context
    ) -> state_pb.EndWorkerSessionsResponse:
        await self._end(request.session_ids)
        return state_pb.EndWorkerSessionsResponse()

    @override
    async def ListWorkers(self, request: state_pb.ListWorkersRequest, context: Context) -> state_pb.ListWorkersResponse:
        names = sorted(name for name, live in self.live.items() if live or not request.live_only)
        start = names.index(request.page_token) if request.page_token else 0
        page, rest = names[start : start + request.page_size], names[start + request.page_size :]
        return state_pb.ListWorkersResponse(workers=map(self._record, page), next_page_token=rest[0] if rest else "")

    async def until_ended(self, session_id: str) -> None:
        """Wait until the end of a session is recorded."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: session_id in self.ended)

    async def _end(self, session_ids: Iterable[str]) -> None:
        async with self._changed:
            self.ended.update(session_ids)
            for live in self.live.values():
                live.difference_update(self.ended)
            self._changed.notify_all()

    def _record(self, worker_id: str) -> state_pb.WorkerRecord:
        record = state_pb.WorkerRecord(worker_id=worker_id, live_session_ids=sorted(self.live[worker_id]))
        record.register_time.FromMilliseconds(1_000)
        return record


class Artifacts(artifact_grpc.ArtifactServiceServicer):
    """Bytes by tenant and digest, read four at a time."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], bytes] = {}

    @override
    async def UploadArtifact(
        self, request_iterator: AsyncIterator[artifact_pb.UploadArtifactRequest], context: Context
    ) -> artifact_pb.UploadArtifactResponse:
        requests = aiter(request_iterator)
        header = (await anext(requests)).header
        data = b"".join([part.data async for part in requests])
        self.stored[header.tenant, header.digest] = data
        response = artifact_pb.UploadArtifactResponse()
        response.artifact.digest, response.artifact.size_bytes = header.digest, len(data)
        return response

    @override
    async def DownloadArtifact(
        self, request: artifact_pb.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[artifact_pb.DownloadArtifactResponse]:
        data = self.stored.get((request.tenant, request.digest))
        if data is None:
            raise NotFound(f"no artifact {request.digest}")
        for start in range(0, len(data), 4):
            yield artifact_pb.DownloadArtifactResponse(data=data[start : start + 4])


class StateManager:
    """Both services, to be added to a server."""

    def __init__(self) -> None:
        # The generated servicers want every method; a call of one that is not here fails as UNIMPLEMENTED or worse.
        self.registry = Registry()  # type: ignore[abstract]  # the rest of the methods is never called
        self.artifacts = Artifacts()  # type: ignore[abstract]  # the same

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers to a server."""
        state_grpc.add_StateManagerServiceServicer_to_server(self.registry, server)
        artifact_grpc.add_ArtifactServiceServicer_to_server(self.artifacts, server)
