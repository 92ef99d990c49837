"""What goes to the state-manager."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.state_manager.v1 import log_pb2 as store_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as manager_pb2

from nodeflow_scheduler.domain.messages import IndexEntry, Lease, ShardWrite
from nodeflow_scheduler.domain.progress import Draft
from nodeflow_scheduler.wire.log import encode_chunk
from nodeflow_scheduler.wire.snapshot import encode_snapshot
from nodeflow_scheduler.wire.values import timestamp, timestamp_or_none


def append_request(batch_id: int, writes: Iterable[ShardWrite]) -> manager_pb2.AppendRequest:
    """One turn, for the log. Everything is serialised here and now, for the state goes on changing."""
    request = manager_pb2.AppendRequest(batch_id=batch_id)
    for write in writes:
        part = request.shards.add(shard=write.shard, fencing_token=write.token, expected_offset=write.expected_offset)
        for draft in write.drafts:
            _add_draft(part, draft)
        for entry in write.entries:
            part.records.append(record_of(entry))
        for execution in write.snapshots:
            part.snapshots.add(
                execution_id=execution.execution_id, sequence=execution.sequence, data=encode_snapshot(execution)
            )
    return request


def _add_draft(part: manager_pb2.ShardAppend, draft: Draft) -> None:
    execution = draft.execution
    part.chunks.add(
        execution_id=execution.execution_id,
        first_sequence=draft.first_sequence,
        event_count=execution.sequence - draft.first_sequence + 1,
        data=encode_chunk(draft.events, draft.now_ms, draft.token),
    )
    for digest in draft.artifacts:
        part.artifacts.add(tenant=execution.tenant, digest=digest)


def record_of(entry: IndexEntry) -> store_pb2.ExecutionRecord:
    """An entry of the index."""
    execution = entry.execution
    origin = execution.origin
    return store_pb2.ExecutionRecord(
        execution_id=execution.execution_id,
        tenant=origin.tenant,
        shard=execution.shard,
        workflow=origin.workflow,
        revision=origin.revision,
        state=lifecycle_pb2.ExecutionState.ValueType(int(entry.state)),
        labels=origin.labels,
        create_time=timestamp(execution.start_ms),
        finish_time=timestamp_or_none(execution.finish_ms),
        request_id=origin.request_id,
        request_digest=origin.request_digest,
        task_count=entry.task_count,
        finished_task_count=entry.finished_task_count,
    )


def held_shards(leases: Sequence[Lease]) -> list[manager_pb2.HeldShard]:
    """Leases, as their holder names them."""
    return [manager_pb2.HeldShard(shard=lease.shard, fencing_token=lease.token) for lease in leases]
