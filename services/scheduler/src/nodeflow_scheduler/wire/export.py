"""What the state-manager stores of an execution, as those are given it who keep or check it."""

from __future__ import annotations

from nodeflow.scheduler.v1 import export_pb2, log_pb2
from nodeflow.state_manager.v1 import log_pb2 as store_pb2


def indexed_execution(record: store_pb2.ExecutionRecord) -> export_pb2.IndexedExecution:
    """An entry of the index."""
    message = export_pb2.IndexedExecution(
        execution_id=record.execution_id,
        tenant=record.tenant,
        shard=record.shard,
        workflow=record.workflow,
        revision=record.revision,
        state=record.state,
        labels=record.labels,
        create_time=record.create_time,
        request_id=record.request_id,
        request_digest=record.request_digest,
        task_count=record.task_count,
    )
    if record.HasField("finish_time"):
        message.finish_time.CopyFrom(record.finish_time)
    return message


def committed_chunk(chunk: store_pb2.Chunk) -> export_pb2.CommittedChunk:
    """A chunk of the log with its data opened. Records of unknown kinds stay in it as they are."""
    return export_pb2.CommittedChunk(
        first_sequence=chunk.first_sequence,
        first_offset=chunk.first_offset,
        event_count=chunk.event_count,
        log=log_pb2.LogChunk.FromString(chunk.data),
    )
