"""StateManagerService: each RPC becomes a call and a reply.

Owns no decision: limits and defaults of requests that the protos state, and nothing more.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc

from nodeflow_state_manager import wire
from nodeflow_state_manager.domain.filters import parse_filter
from nodeflow_state_manager.domain.names import invalid
from nodeflow_state_manager.domain.paging import decode_token, encode_token, page_limit
from nodeflow_state_manager.domain.values import AppendBatch, ExecutionSlice
from nodeflow_state_manager.driver import AppendStream, LogDriver
from nodeflow_state_manager.ports import Store
from nodeflow_state_manager.writability import Writability

T = TypeVar("T")

# Any: a context's type arguments are the messages, which the handlers' signatures say already.
Context = grpc.aio.ServicerContext[Any, Any]

MAX_IDS: Final = 1_000
MAX_FOUND: Final = 10
LATEST: Final = "@latest"


class StateManagerServicer(pb_grpc.StateManagerServiceServicer):
    """Answers from the store; appends go through the driver."""

    def __init__(
        self,
        store: Store,
        driver: LogDriver[AppendBatch],
        writability: Writability,
        *,
        max_lease_timeout_ms: int,
    ) -> None:
        self._store = store
        self._written = writability.watched
        self._driver = driver
        self._max_lease_timeout_ms = max_lease_timeout_ms

    async def AcquireShards(self, request: pb.AcquireShardsRequest, context: Context) -> pb.AcquireShardsResponse:
        """Lease shards."""
        holder = _required(request.holder, "holder")
        shards = wire.check_shards(list(request.shards), self._store.shard_count)
        timeout_ms = self._lease_timeout_ms(request.lease_timeout)
        leases = await self._written(self._store.acquire_shards(holder, shards, timeout_ms))
        return pb.AcquireShardsResponse(
            leases=[wire.lease_message(lease, timeout_ms) for lease in leases], shard_count=self._store.shard_count
        )

    async def RenewShards(self, request: pb.RenewShardsRequest, context: Context) -> pb.RenewShardsResponse:
        """Extend leases."""
        holder = _required(request.holder, "holder")
        held = wire.held_shards(request.shards, self._store.shard_count)
        timeout_ms = self._lease_timeout_ms(request.lease_timeout)
        lost = await self._written(self._store.renew_shards(holder, held, timeout_ms))
        return pb.RenewShardsResponse(lost=lost, lease_timeout=wire.duration(timeout_ms))

    async def ReleaseShards(self, request: pb.ReleaseShardsRequest, context: Context) -> pb.ReleaseShardsResponse:
        """Free shards."""
        holder = _required(request.holder, "holder")
        held = wire.held_shards(request.shards, self._store.shard_count)
        await self._written(self._store.release_shards(holder, held))
        return pb.ReleaseShardsResponse()

    async def Append(
        self, request_iterator: AsyncIterator[pb.AppendRequest], context: Context
    ) -> AsyncIterator[pb.AppendResponse]:
        """Append batches, answering each after its commit."""

        async def feed(stream: AppendStream[AppendBatch]) -> None:
            async for request in request_iterator:
                batch = wire.append_batch(request, self._store.shard_count)
                await stream.submit(request.batch_id, batch, request.ByteSize())

        async for answer in self._driver.exchange(feed):
            yield wire.append_response(answer.batch_id, answer.refusals)

    async def ReadShards(self, request: pb.ReadShardsRequest, context: Context) -> AsyncIterator[pb.ReadShardsResponse]:
        """Read the open executions of shards."""
        held = wire.held_shards(request.shards, self._store.shard_count)
        async for group in self._store.read_open(held):
            yield pb.ReadShardsResponse(executions=[wire.open_message(piece) for piece in group])

    async def ReadExecution(
        self, request: pb.ReadExecutionRequest, context: Context
    ) -> AsyncIterator[pb.ReadExecutionResponse]:
        """Read the log of one execution."""
        pieces: AsyncIterator[ExecutionSlice] = self._store.read_execution(
            request.execution_id, request.after_sequence, allow_snapshot=request.allow_snapshot
        )
        async for piece in pieces:
            yield wire.execution_response(piece)

    async def BatchGetExecutions(
        self, request: pb.BatchGetExecutionsRequest, context: Context
    ) -> pb.BatchGetExecutionsResponse:
        """Get entries of the index by id."""
        if len(request.execution_ids) > MAX_IDS:
            raise invalid("execution_ids", f"{len(request.execution_ids)} ids are too many", f"at most {MAX_IDS}")
        records = await self._store.get_executions(_distinct(request.execution_ids))
        return pb.BatchGetExecutionsResponse(records=[wire.record_message(each) for each in records])

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """List entries of the index."""
        tenant = _required(request.tenant, "tenant")
        terms = parse_filter(request.filter)
        listing = ("executions", tenant, request.filter)
        after = decode_token(request.page_token, (int, int), *listing)
        page = await self._store.list_executions(tenant, terms, after, page_limit(request.page_size))
        return pb.ListExecutionsResponse(
            records=[wire.record_message(each) for each in page.entries],
            next_page_token=encode_token(page.next_position, *listing),
        )

    async def FindExecutions(self, request: pb.FindExecutionsRequest, context: Context) -> pb.FindExecutionsResponse:
        """Find executions by the beginning of their id."""
        tenant = _required(request.tenant, "tenant")
        prefix = _required(request.prefix, "prefix")
        latest = prefix == LATEST
        records = await self._store.find_executions(tenant, "" if latest else prefix, 1 if latest else MAX_FOUND)
        return pb.FindExecutionsResponse(records=[wire.record_message(each) for each in records])

    async def CreateWorkflow(self, request: pb.CreateWorkflowRequest, context: Context) -> pb.CreateWorkflowResponse:
        """Store a revision."""
        workflow, created = await self._written(self._store.create_workflow(wire.workflow_record(request.workflow)))
        return pb.CreateWorkflowResponse(workflow=wire.workflow_message(workflow), created=created)

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        """Get a revision."""
        tenant = _required(request.tenant, "tenant")
        if not request.revision:
            _required(request.name, "name")
        workflow = await self._store.get_workflow(tenant, request.name, request.revision)
        return pb.GetWorkflowResponse(workflow=wire.workflow_message(workflow))

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Context) -> pb.ListWorkflowsResponse:
        """List workflows, or the revisions of one."""
        tenant = _required(request.tenant, "tenant")
        listing = ("workflows", tenant, request.name)
        after = decode_token(request.page_token, (int,) if request.name else (str,), *listing)
        page = await self._store.list_workflows(tenant, request.name, after, page_limit(request.page_size))
        return pb.ListWorkflowsResponse(
            workflows=[wire.workflow_message(each) for each in page.entries],
            next_page_token=encode_token(page.next_position, *listing),
        )

    async def RegisterWorkerSession(
        self, request: pb.RegisterWorkerSessionRequest, context: Context
    ) -> pb.RegisterWorkerSessionResponse:
        """Record a session."""
        worker, created = await self._written(self._store.register_session(wire.worker_session(request)))
        return pb.RegisterWorkerSessionResponse(worker=wire.worker_message(worker), created=created)

    async def EndWorkerSessions(
        self, request: pb.EndWorkerSessionsRequest, context: Context
    ) -> pb.EndWorkerSessionsResponse:
        """Record that sessions ended."""
        if not all(request.session_ids):
            raise invalid("session_ids", "a session's id is empty")
        await self._written(self._store.end_sessions(_distinct(request.session_ids)))
        return pb.EndWorkerSessionsResponse()

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> pb.ListWorkersResponse:
        """List workers."""
        listing = ("workers", str(request.live_only))
        after = decode_token(request.page_token, (str,), *listing)
        page = await self._store.list_workers(after, page_limit(request.page_size), live_only=request.live_only)
        return pb.ListWorkersResponse(
            workers=[wire.worker_message(each) for each in page.entries],
            next_page_token=encode_token(page.next_position, *listing),
        )

    def _lease_timeout_ms(self, wanted: Duration) -> int:
        wanted_ms = wanted.ToMilliseconds()
        if wanted_ms <= 0:
            raise invalid("lease_timeout", "is not set, or not positive", "10s")
        return min(wanted_ms, self._max_lease_timeout_ms)


def _required(value: str, path: str) -> str:
    if not value:
        raise invalid(path, "is empty")
    return value


def _distinct(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
