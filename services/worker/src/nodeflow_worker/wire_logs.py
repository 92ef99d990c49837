"""Messages of the WriteLogs stream ↔ the domain's terms.

Owns the mapping, and the form in which lines are compressed.
"""

import zlib
from typing import Final, assert_never

from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm

from nodeflow_worker.domain.output import Batch, Chunk
from nodeflow_worker.ports import Flushed, FlushRequested, LogIncoming, LogOutgoing, LogsStored

LEVEL: Final = 1
"""Output is text and shrinks well at the quickest level: about 2 ms for a batch, which is what a heartbeat may wait."""


def log_hello(session_id: str) -> wm.WriteLogsRequest:
    """Return the first request of a stream."""
    return wm.WriteLogsRequest(hello=wm.LogHello(session_id=session_id))


def log_request(message: LogOutgoing) -> wm.WriteLogsRequest:
    """Return a message as a request."""
    match message:
        case Batch():
            chunks = [_chunk(each) for each in message.chunks]
            return wm.WriteLogsRequest(batch=wm.LogBatch(batch_id=message.batch_id, chunks=chunks))
        case Flushed():
            return wm.WriteLogsRequest(flushed=wm.LogFlushed(flush_id=message.flush_id))
        case _:
            assert_never(message)


def read_log_response(response: wm.WriteLogsResponse) -> LogIncoming | None:
    """Return what a response says; None if this version does not know it."""
    match response.WhichOneof("content"):
        case "acknowledgement":
            return LogsStored(batch_id=response.acknowledgement.batch_id)
        case "flush":
            return FlushRequested(flush_id=response.flush.flush_id)
        case None:
            return None
        case _:
            assert_never(response)


def _chunk(chunk: Chunk) -> log_chunk_pb2.LogChunk:
    attempt = chunk.attempt
    runs = log_chunk_pb2.LogRuns()
    for each in chunk.runs:
        run = runs.runs.add(stream=log_chunk_pb2.LogStream.ValueType(each.stream), text=each.text)
        run.read_time.FromMilliseconds(each.time_ms)
    return log_chunk_pb2.LogChunk(
        tenant=attempt.spec.tenant,
        execution_id=attempt.execution_id,
        task_number=attempt.task_number,
        attempt_number=attempt.attempt_number,
        fencing_token=attempt.fencing_token,
        first_line=chunk.first_line,
        line_count=chunk.line_count,
        runs=zlib.compress(runs.SerializeToString(), LEVEL),
    )
