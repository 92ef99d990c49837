"""LogService: chunks in, chunks out.

Owns what a well-formed request is. Must not know where chunks are kept.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc.aio
from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.state_manager.v1 import log_service_pb2 as pb
from nodeflow.state_manager.v1 import log_service_pb2_grpc as pb_grpc

from nodeflow_state_manager.domain.names import check_tenant, invalid
from nodeflow_state_manager.domain.values import LogChunk, StoredLogChunk
from nodeflow_state_manager.driver import AppendStream, LogDriver
from nodeflow_state_manager.task_logs import TaskLogs

# Any: a context's type arguments are the messages, which the handlers' signatures say already.
Context = grpc.aio.ServicerContext[Any, Any]

MAX_ID: Final = 128
MAX_RUNS_BYTES: Final = 1 << 20
MAX_NUMBER: Final = 1 << 62
"""Of a line, or of a token: a store counts with 63 bits, and what it cannot take would fail with all of its group."""

_Batch = Sequence[LogChunk]


class LogServicer(pb_grpc.LogServiceServicer):
    """Appends through a group commit; reads from the store."""

    def __init__(self, logs: TaskLogs, driver: LogDriver[_Batch]) -> None:
        self._logs = logs
        self._driver = driver

    async def AppendLogs(
        self, request_iterator: AsyncIterator[pb.AppendLogsRequest], context: Context
    ) -> AsyncIterator[pb.AppendLogsResponse]:
        """Store chunks, answering each batch after its commit."""

        async def feed(stream: AppendStream[_Batch]) -> None:
            async for request in request_iterator:
                await stream.submit(request.batch_id, [_chunk(each) for each in request.chunks], request.ByteSize())

        async for answer in self._driver.exchange(feed):
            yield pb.AppendLogsResponse(batch_id=answer.batch_id)

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> AsyncIterator[pb.ReadLogsResponse]:
        """Read chunks; the first response says where that begins."""
        name = (check_tenant(request.tenant), _check_id(request.execution_id))
        after = request.after_position
        if request.from_end or after:
            last = await self._logs.last_position(name)
            if after > last:
                raise invalid("after_position", f"is {after}, and the output ends at {last}", "a last_position")
            after = last if request.from_end else after
        yield pb.ReadLogsResponse(last_position=after)
        chunks = self._logs.read(
            name,
            after,
            follow=request.follow,
            task_number=request.task_number if request.HasField("task_number") else None,
            attempt_number=request.attempt_number if request.HasField("attempt_number") else None,
        )
        async for group in chunks:
            yield pb.ReadLogsResponse(chunks=map(_message, group), last_position=group[-1].position)


def _chunk(message: log_chunk_pb2.LogChunk) -> LogChunk:
    if not message.first_line or not message.line_count or not message.attempt_number:
        raise invalid("chunks", "a chunk has no first line, no lines or no attempt", "numbers from 1 on")
    for field, number in (("first_line", message.first_line), ("fencing_token", message.fencing_token)):
        if number > MAX_NUMBER:
            raise invalid(f"chunks.{field}", f"is {number}", f"at most {MAX_NUMBER}")
    if len(message.runs) > MAX_RUNS_BYTES:
        raise invalid("chunks.runs", f"has {len(message.runs)} bytes", f"at most {MAX_RUNS_BYTES}")
    return LogChunk(
        tenant=check_tenant(message.tenant, "chunks.tenant"),
        execution_id=_check_id(message.execution_id, "chunks.execution_id"),
        task_number=message.task_number,
        attempt_number=message.attempt_number,
        fencing_token=message.fencing_token,
        first_line=message.first_line,
        line_count=message.line_count,
        runs=message.runs,
    )


def _message(stored: StoredLogChunk) -> pb.StoredLogChunk:
    chunk = stored.chunk
    return pb.StoredLogChunk(
        position=stored.position,
        chunk=log_chunk_pb2.LogChunk(
            tenant=chunk.tenant,
            execution_id=chunk.execution_id,
            task_number=chunk.task_number,
            attempt_number=chunk.attempt_number,
            fencing_token=chunk.fencing_token,
            first_line=chunk.first_line,
            line_count=chunk.line_count,
            runs=chunk.runs,
        ),
    )


def _check_id(execution_id: str, path: str = "execution_id") -> str:
    if not execution_id or len(execution_id) > MAX_ID:
        raise invalid(path, "is empty or too long", "the id of an execution")
    return execution_id
