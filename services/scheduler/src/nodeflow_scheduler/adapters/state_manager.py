"""Shard leases, the journal and the catalogue, over unary calls and server streams of the state-manager."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from nodeflow.state_manager.v1 import log_pb2 as store_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as manager_pb2
from nodeflow.state_manager.v1.state_manager_service_pb2_grpc import StateManagerServiceStub

from nodeflow_scheduler.adapters.silence import in_time
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.messages import Lease
from nodeflow_scheduler.ports import Compiled, ExecutionRecord, Granted, LoggedChunk, StoredSlice, WorkflowRecord
from nodeflow_scheduler.wire.log import decode_chunk, started_in_chunk
from nodeflow_scheduler.wire.snapshot import restore_snapshot, started_in
from nodeflow_scheduler.wire.store import held_shards
from nodeflow_shared.errors import NotFound
from nodeflow_shared.status import from_rpc_error

CALL_TIMEOUT_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")


def translated(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Lets a call raise our errors instead of gRPC's."""

    @functools.wraps(call)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(*args, **kwargs)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    return wrapper


class GrpcShardLeases:
    """`ShardLeases` of one holder."""

    def __init__(self, channel: grpc.aio.Channel, holder: str, timeout_s: float) -> None:
        self._stub = StateManagerServiceStub(channel)
        self._holder = holder
        self._timeout = _duration(timeout_s)

    @translated
    async def acquire(self, shards: Sequence[int]) -> Granted:
        """See the port."""
        request = manager_pb2.AcquireShardsRequest(holder=self._holder, shards=shards, lease_timeout=self._timeout)
        response = await self._stub.AcquireShards(request, timeout=CALL_TIMEOUT_S)
        timeouts = [lease.lease_timeout.ToTimedelta().total_seconds() for lease in response.leases]
        return Granted(
            leases=[
                Lease(lease.shard, lease.fencing_token, lease.next_offset, lease.last_event_time.ToMilliseconds())
                for lease in response.leases
            ],
            shard_count=response.shard_count,
            timeout_s=min(timeouts, default=self._timeout.ToTimedelta().total_seconds()),
        )

    @translated
    async def renew(self, leases: Sequence[Lease]) -> tuple[frozenset[int], float]:
        """See the port."""
        request = manager_pb2.RenewShardsRequest(
            holder=self._holder, shards=held_shards(leases), lease_timeout=self._timeout
        )
        response = await self._stub.RenewShards(request, timeout=CALL_TIMEOUT_S)
        return frozenset(response.lost), response.lease_timeout.ToTimedelta().total_seconds()

    @translated
    async def release(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        request = manager_pb2.ReleaseShardsRequest(holder=self._holder, shards=held_shards(leases))
        await self._stub.ReleaseShards(request, timeout=CALL_TIMEOUT_S)


class GrpcJournal:
    """A `Journal`, and an `Archive`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = StateManagerServiceStub(channel)

    async def open_executions(self, leases: Sequence[Lease], compiled: Compiled) -> AsyncIterator[Execution]:
        """See the port."""
        request = manager_pb2.ReadShardsRequest(shards=held_shards(leases))
        building: Execution | None = None
        try:
            async for response in in_time(self._stub.ReadShards(request)):
                for part in response.executions:
                    if building is None:
                        snapshot = part.snapshot if part.HasField("snapshot") else None
                        building = await _begin(part.record, snapshot, part.chunks, compiled)
                    _replay(building, part.chunks)
                    if part.last:
                        building.derive()
                        yield building
                        building = None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def execution(self, execution_id: str, compiled: Compiled) -> Execution:
        """See the port."""
        request = manager_pb2.ReadExecutionRequest(execution_id=execution_id, allow_snapshot=True)
        building: Execution | None = None
        try:
            async for response in in_time(self._stub.ReadExecution(request)):
                if building is None:
                    snapshot = response.snapshot if response.HasField("snapshot") else None
                    building = await _begin(response.record, snapshot, response.chunks, compiled)
                _replay(building, response.chunks)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        if building is None:
            raise NotFound(f"there is no execution {execution_id!r}")
        building.derive()
        return building

    async def chunks(self, execution_id: str, after_sequence: int) -> AsyncIterator[LoggedChunk]:
        """See the port."""
        request = manager_pb2.ReadExecutionRequest(execution_id=execution_id, after_sequence=after_sequence)
        try:
            async for response in in_time(self._stub.ReadExecution(request)):
                for chunk in response.chunks:
                    decoded = decode_chunk(chunk.data)
                    yield LoggedChunk(
                        first_sequence=chunk.first_sequence,
                        last_sequence=chunk.first_sequence + chunk.event_count - 1,
                        time_ms=decoded.time_ms,
                        events=decoded.events,
                    )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def slices(self, execution_id: str, after_sequence: int) -> AsyncIterator[StoredSlice]:
        """See the port."""
        request = manager_pb2.ReadExecutionRequest(execution_id=execution_id, after_sequence=after_sequence)
        try:
            async for response in in_time(self._stub.ReadExecution(request)):
                record = response.record if response.HasField("record") else None
                yield StoredSlice(record=record, chunks=response.chunks)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


async def _begin(
    record: ExecutionRecord,
    snapshot: store_pb2.Snapshot | None,
    chunks: Sequence[store_pb2.Chunk],
    compiled: Compiled,
) -> Execution:
    """An execution before its first chunk, or at its snapshot."""
    if snapshot is not None:
        started = started_in(snapshot.data)
        workflow = await compiled.workflow(started.tenant, started.revision)
        return restore_snapshot(snapshot.data, record.execution_id, record.shard, workflow)
    first = started_in_chunk(chunks[0].data)
    workflow = await compiled.workflow(first.tenant, first.revision)
    return Execution(record.execution_id, record.shard, workflow)


def _replay(execution: Execution, chunks: Sequence[store_pb2.Chunk]) -> None:
    for chunk in chunks:
        decoded = decode_chunk(chunk.data)
        for event in decoded.events:
            execution.apply(event, decoded.time_ms, decoded.token)


class GrpcCatalogue:
    """A `Catalogue`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = StateManagerServiceStub(channel)

    @translated
    async def records(self, execution_ids: Sequence[str]) -> Mapping[str, ExecutionRecord]:
        """See the port."""
        found: dict[str, ExecutionRecord] = {}
        for start in range(0, len(execution_ids), 1000):
            request = manager_pb2.BatchGetExecutionsRequest(execution_ids=execution_ids[start : start + 1000])
            response = await self._stub.BatchGetExecutions(request, timeout=CALL_TIMEOUT_S)
            found.update({record.execution_id: record for record in response.records})
        return found

    @translated
    async def find(self, tenant: str, prefix: str) -> list[ExecutionRecord]:
        """See the port."""
        request = manager_pb2.FindExecutionsRequest(tenant=tenant, prefix=prefix)
        return list((await self._stub.FindExecutions(request, timeout=CALL_TIMEOUT_S)).records)

    @translated
    async def list_executions(
        self, tenant: str, page_size: int, page_token: str, filter_text: str
    ) -> tuple[list[ExecutionRecord], str]:
        """See the port."""
        request = manager_pb2.ListExecutionsRequest(
            tenant=tenant, page_size=page_size, page_token=page_token, filter=filter_text
        )
        response = await self._stub.ListExecutions(request, timeout=CALL_TIMEOUT_S)
        return list(response.records), response.next_page_token

    @translated
    async def create_workflow(self, record: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        """See the port."""
        request = manager_pb2.CreateWorkflowRequest(workflow=record)
        response = await self._stub.CreateWorkflow(request, timeout=CALL_TIMEOUT_S)
        return response.workflow, response.created

    @translated
    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        """See the port."""
        request = manager_pb2.GetWorkflowRequest(tenant=tenant, name=name, revision=revision)
        return (await self._stub.GetWorkflow(request, timeout=CALL_TIMEOUT_S)).workflow

    @translated
    async def list_workflows(
        self, tenant: str, page_size: int, page_token: str, name: str
    ) -> tuple[list[WorkflowRecord], str]:
        """See the port."""
        request = manager_pb2.ListWorkflowsRequest(tenant=tenant, page_size=page_size, page_token=page_token, name=name)
        response = await self._stub.ListWorkflows(request, timeout=CALL_TIMEOUT_S)
        return list(response.workflows), response.next_page_token


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
