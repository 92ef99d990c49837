"""What goes to the state-manager."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.state_manager.v1 import log_pb2 as store_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as manager_pb2

from nodeflow_scheduler.domain.messages import IndexEntry, Lease, ShardWrite
from nodeflow_scheduler.wire.log import encode_chunk
from nodeflow_scheduler.wire.snapshot import encode_snapshot, least_size
from nodeflow_scheduler.wire.values import timestamp, timestamp_or_none

REQUEST_BYTES = 16 * 1024 * 1024
"""A request is sent when it has this size. Chunks are not cut; the driver bounds what a turn takes in, and so them."""
SNAPSHOT_BYTES = 16 * 1024 * 1024
"""A larger snapshot is not worth its message: a replay reads the events."""
CHUNK_BYTES = 512
"""About what a chunk takes beside its data."""


def append_requests(first_batch_id: int, writes: Iterable[ShardWrite]) -> list[manager_pb2.AppendRequest]:
    """One turn, for the log: one request, or several where one would be too large, numbered on.

    Everything is serialised here and now, for the state goes on changing.
    """
    packer = _Packer(first_batch_id)
    for write in writes:
        packer.add(write)
    return packer.requests


class _Packer:
    """Puts the writes of a turn into requests."""

    def __init__(self, first_batch_id: int) -> None:
        self.requests = [manager_pb2.AppendRequest(batch_id=first_batch_id)]
        self._size = 0

    def add(self, write: ShardWrite) -> None:
        """Add a shard's part. What follows in another request expects the offset where this one ends."""
        offset = write.expected_offset
        entries = {entry.execution.execution_id: entry for entry in write.entries}
        part: manager_pb2.ShardAppend | None = None
        for draft in write.drafts:
            data = encode_chunk(draft.events, draft.now_ms, draft.token)
            if self._begin(len(data) + CHUNK_BYTES) or part is None:
                part = self._part(write, offset)
            execution = draft.execution
            count = execution.sequence - draft.first_sequence + 1
            part.chunks.add(
                execution_id=execution.execution_id,
                first_sequence=draft.first_sequence,
                event_count=count,
                data=data,
            )
            offset += count
            for digest in draft.artifacts:
                part.artifacts.add(tenant=execution.tenant, digest=digest)
            entry = entries.get(execution.execution_id)
            if entry is not None:
                part.records.append(record_of(entry))
                if execution.origin.labels:
                    self._size += part.records[-1].ByteSize()
        for execution in write.snapshots:
            if least_size(execution) > SNAPSHOT_BYTES:
                continue  # To make it takes as many bytes again, and time, with every few thousand events.
            data = encode_snapshot(execution)
            if len(data) > SNAPSHOT_BYTES:
                continue
            if self._begin(len(data)) or part is None:
                part = self._part(write, offset)
            part.snapshots.add(execution_id=execution.execution_id, sequence=execution.sequence, data=data)

    def _begin(self, size: int) -> bool:
        """Make room for so many bytes; whether that took another request."""
        full = self._size > 0 and self._size + size > REQUEST_BYTES
        if full:
            self.requests.append(manager_pb2.AppendRequest(batch_id=self.requests[-1].batch_id + 1))
            self._size = 0
        self._size += size
        return full

    def _part(self, write: ShardWrite, offset: int) -> manager_pb2.ShardAppend:
        return self.requests[-1].shards.add(
            shard=write.shard,
            fencing_token=write.token,
            expected_offset=offset,
            last_event_time=timestamp(write.time_ms),
        )


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
