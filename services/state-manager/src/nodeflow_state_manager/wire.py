"""Messages ↔ values: the log, the index and the registry as they travel.

Owns the translation, and the refusal of what is malformed. Must not decide anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.common.v1 import lifecycle_pb2, payload_pb2
from nodeflow.state_manager.v1 import artifact_service_pb2, log_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as service_pb2

from nodeflow_state_manager.domain.names import check_digest, check_tenant, invalid
from nodeflow_state_manager.domain.values import (
    AppendBatch,
    ArtifactRecord,
    ArtifactUse,
    Chunk,
    ExecutionRecord,
    ExecutionSlice,
    ExecutionState,
    HeldShard,
    Refusal,
    RefusalReason,
    ShardAppend,
    ShardLease,
    Snapshot,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)

_STATES_TO_WIRE: Final[Mapping[ExecutionState, lifecycle_pb2.ExecutionState.ValueType]] = {
    ExecutionState.PENDING: lifecycle_pb2.EXECUTION_STATE_PENDING,
    ExecutionState.QUEUED: lifecycle_pb2.EXECUTION_STATE_QUEUED,
    ExecutionState.RUNNING: lifecycle_pb2.EXECUTION_STATE_RUNNING,
    ExecutionState.COMPLETED: lifecycle_pb2.EXECUTION_STATE_COMPLETED,
    ExecutionState.FAILED: lifecycle_pb2.EXECUTION_STATE_FAILED,
    ExecutionState.CANCELLED: lifecycle_pb2.EXECUTION_STATE_CANCELLED,
    ExecutionState.PAUSED: lifecycle_pb2.EXECUTION_STATE_PAUSED,
}
_STATES: Final[Mapping[int, ExecutionState]] = {number: state for state, number in _STATES_TO_WIRE.items()}
_REASONS: Final[Mapping[RefusalReason, service_pb2.RefusalReason.ValueType]] = {
    RefusalReason.STALE_TOKEN: service_pb2.REFUSAL_REASON_STALE_TOKEN,
    RefusalReason.WRONG_OFFSET: service_pb2.REFUSAL_REASON_WRONG_OFFSET,
    RefusalReason.WRONG_SEQUENCE: service_pb2.REFUSAL_REASON_WRONG_SEQUENCE,
    RefusalReason.MISSING_ARTIFACT: service_pb2.REFUSAL_REASON_MISSING_ARTIFACT,
}


def append_batch(request: service_pb2.AppendRequest, shard_count: int) -> AppendBatch:
    """Return the batch; raises InvalidInput where it is malformed."""
    parts = [_shard_append(part, number) for number, part in enumerate(request.shards)]
    shards = check_shards([part.shard for part in parts], shard_count)
    if len(set(shards)) != len(shards):
        raise invalid("shards", "a shard has more than one part", "one part per shard in a batch")
    return AppendBatch(parts=parts)


def append_response(batch_id: int, refusals: Iterable[Refusal]) -> service_pb2.AppendResponse:
    """Return the answer to a batch."""
    return service_pb2.AppendResponse(
        batch_id=batch_id,
        refusals=[
            service_pb2.Refusal(shard=each.shard, reason=_REASONS[each.reason], message=each.message)
            for each in refusals
        ],
    )


def check_shards(shards: Sequence[int], shard_count: int) -> Sequence[int]:
    """Return the shards; raises InvalidInput if one does not exist."""
    for shard in shards:
        if shard >= shard_count:
            raise invalid("shards", f"there is no shard {shard}", f"0 to {shard_count - 1}")
    return shards


def held_shards(shards: Iterable[service_pb2.HeldShard], shard_count: int) -> list[HeldShard]:
    """Return leases as their holder knows them."""
    held = [HeldShard(shard=each.shard, fencing_token=each.fencing_token) for each in shards]
    check_shards([each.shard for each in held], shard_count)
    return held


def lease_message(lease: ShardLease, lease_timeout_ms: int) -> service_pb2.ShardLease:
    """Return a lease as a message."""
    return service_pb2.ShardLease(
        shard=lease.shard,
        fencing_token=lease.fencing_token,
        next_offset=lease.next_offset,
        lease_timeout=duration(lease_timeout_ms),
        expire_time=timestamp(lease.expire_time_ms),
        last_event_time=timestamp(lease.last_event_time_ms),
    )


def execution_record(message: log_pb2.ExecutionRecord, path: str) -> ExecutionRecord:
    """Return an entry of the index; raises InvalidInput without id, tenant or known state."""
    state = _STATES.get(message.state)
    if not message.execution_id or not message.tenant or state is None:
        raise invalid(path, "an entry of the index needs execution_id, tenant and a known state")
    return ExecutionRecord(
        execution_id=message.execution_id,
        tenant=message.tenant,
        shard=message.shard,
        workflow=message.workflow,
        revision=message.revision,
        state=state,
        labels=dict(message.labels),
        create_time_ms=message.create_time.ToMilliseconds(),
        finish_time_ms=message.finish_time.ToMilliseconds() if message.HasField("finish_time") else None,
        request_id=message.request_id,
        request_digest=message.request_digest,
        task_count=message.task_count,
        finished_task_count=message.finished_task_count,
    )


def record_message(record: ExecutionRecord) -> log_pb2.ExecutionRecord:
    """Return an entry of the index as a message."""
    return log_pb2.ExecutionRecord(
        execution_id=record.execution_id,
        tenant=record.tenant,
        shard=record.shard,
        workflow=record.workflow,
        revision=record.revision,
        state=_STATES_TO_WIRE[record.state],
        labels=record.labels,
        create_time=timestamp(record.create_time_ms),
        finish_time=None if record.finish_time_ms is None else timestamp(record.finish_time_ms),
        request_id=record.request_id,
        request_digest=record.request_digest,
        task_count=record.task_count,
        finished_task_count=record.finished_task_count,
    )


def open_message(piece: ExecutionSlice) -> service_pb2.OpenExecution:
    """Return a slice of an open execution."""
    return service_pb2.OpenExecution(
        record=None if piece.record is None else record_message(piece.record),
        snapshot=None if piece.snapshot is None else _snapshot_message(piece.snapshot),
        chunks=_chunk_messages(piece.chunks),
        last=piece.last,
    )


def execution_response(piece: ExecutionSlice) -> service_pb2.ReadExecutionResponse:
    """Return a slice of an execution that is read by id."""
    return service_pb2.ReadExecutionResponse(
        record=None if piece.record is None else record_message(piece.record),
        snapshot=None if piece.snapshot is None else _snapshot_message(piece.snapshot),
        chunks=_chunk_messages(piece.chunks),
    )


def workflow_record(message: log_pb2.WorkflowRecord) -> WorkflowRecord:
    """Return a revision; raises InvalidInput without tenant, name, revision or document."""
    for field in ("tenant", "name", "revision", "document"):
        if not getattr(message, field):
            raise invalid(f"workflow.{field}", "is empty")
    return WorkflowRecord(
        tenant=message.tenant,
        name=message.name,
        revision=message.revision,
        document=message.document,
        content_type=message.content_type,
        directory=message.directory,
    )


def workflow_message(record: WorkflowRecord) -> log_pb2.WorkflowRecord:
    """Return a revision as a message."""
    return log_pb2.WorkflowRecord(
        tenant=record.tenant,
        name=record.name,
        revision=record.revision,
        document=record.document,
        content_type=record.content_type,
        directory=record.directory,
        create_time=timestamp(record.create_time_ms),
    )


def worker_session(request: service_pb2.RegisterWorkerSessionRequest) -> WorkerSession:
    """Return a session that begins; raises InvalidInput without worker or session."""
    for field in ("worker_id", "session_id"):
        if not getattr(request, field):
            raise invalid(field, "is empty")
    return WorkerSession(
        worker_id=request.worker_id,
        session_id=request.session_id,
        replaced_session_ids=list(request.replaced_session_ids),
        labels=dict(request.labels),
        version=request.version,
    )


def worker_message(record: WorkerRecord) -> service_pb2.WorkerRecord:
    """Return a worker as a message."""
    return service_pb2.WorkerRecord(
        worker_id=record.worker_id,
        live_session_ids=record.live_session_ids,
        labels=record.labels,
        version=record.version,
        register_time=timestamp(record.register_time_ms),
        last_session_time=timestamp(record.last_session_time_ms),
    )


def artifact_message(record: ArtifactRecord) -> artifact_service_pb2.Artifact:
    """Return a stored artifact as a message."""
    reference = payload_pb2.ArtifactReference(digest=record.digest, size_bytes=record.size_bytes)
    return artifact_service_pb2.Artifact(reference=reference, content_type=record.content_type)


def timestamp(time_ms: int) -> Timestamp:
    """Return an instant."""
    return Timestamp(seconds=time_ms // 1_000, nanos=time_ms % 1_000 * 1_000_000)


def duration(span_ms: int) -> Duration:
    """Return a span."""
    return Duration(seconds=span_ms // 1_000, nanos=span_ms % 1_000 * 1_000_000)


def _shard_append(part: service_pb2.ShardAppend, number: int) -> ShardAppend:
    # The hot path: a chunk becomes a tuple here, once.
    chunks = [Chunk(c.execution_id, c.first_sequence, c.event_count, c.data) for c in part.chunks]
    for chunk in chunks:
        if not (chunk[0] and chunk[1] and chunk[2]):
            raise invalid(f"shards[{number}].chunks", "a chunk needs execution_id, first_sequence and event_count")
    return ShardAppend(
        shard=part.shard,
        fencing_token=part.fencing_token,
        expected_offset=part.expected_offset,
        chunks=chunks,
        records=_records(part, number) if part.records else (),
        snapshots=[_snapshot(each) for each in part.snapshots] if part.snapshots else (),
        artifacts=_uses(part, number) if part.artifacts else (),
        last_event_time_ms=part.last_event_time.ToMilliseconds(),
    )


def _records(part: service_pb2.ShardAppend, number: int) -> list[ExecutionRecord]:
    path = f"shards[{number}].records"
    records = [execution_record(each, path) for each in part.records]
    for record in records:
        if record.shard != part.shard:
            raise invalid(path, f"execution {record.execution_id} is of shard {record.shard}, not {part.shard}")
    return records


def _uses(part: service_pb2.ShardAppend, number: int) -> list[ArtifactUse]:
    path = f"shards[{number}].artifacts"
    return [
        ArtifactUse(tenant=check_tenant(each.tenant, path), digest=check_digest(each.digest, path))
        for each in part.artifacts
    ]


def _snapshot(message: log_pb2.Snapshot) -> Snapshot:
    return Snapshot(execution_id=message.execution_id, sequence=message.sequence, data=message.data)


def _snapshot_message(snapshot: Snapshot) -> log_pb2.Snapshot:
    return log_pb2.Snapshot(execution_id=snapshot.execution_id, sequence=snapshot.sequence, data=snapshot.data)


def _chunk_messages(chunks: Iterable[Chunk]) -> list[log_pb2.Chunk]:
    return [
        log_pb2.Chunk(execution_id=name, first_sequence=first, event_count=count, data=data, first_offset=offset)
        for name, first, count, data, offset in chunks
    ]
