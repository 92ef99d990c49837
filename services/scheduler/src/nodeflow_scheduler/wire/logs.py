"""Lines of output as readers see them, out of the chunks in which workers send them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.scheduler.v1 import log_line_pb2

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_shared.errors import Internal

CONTENT_LIMIT = 1 << 20
"""What a chunk may have when it is decompressed; more would be an attack on memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFilter:
    """Which lines of a chunk are wanted."""

    first_line: int = 0
    streams: frozenset[int] = frozenset()
    text: str = ""


def lines_of(
    chunk: log_chunk_pb2.LogChunk, execution: Execution, wanted: LineFilter, skip: int
) -> Iterator[tuple[int, log_line_pb2.LogLine]]:
    """The wanted lines of a chunk but its first `skip`, each with its place in the chunk, from 1."""
    task = chunk.task_number
    node = execution.workflow.nodes[execution.node_of(task)].name
    map_index = execution.map_index_of(task)
    place = 0
    for run in _runs(chunk).runs:
        for text in run.text.split("\n"):
            place += 1
            number = chunk.first_line + place - 1
            if place <= skip or number < wanted.first_line or wanted.text not in text:
                continue
            if wanted.streams and run.stream not in wanted.streams:
                continue
            yield (
                place,
                log_line_pb2.LogLine(
                    node=node,
                    task_number=task,
                    map_index=map_index,
                    attempt_number=chunk.attempt_number,
                    line_number=number,
                    read_time=run.read_time,
                    stream=run.stream,
                    text=text,
                ),
            )


def _runs(chunk: log_chunk_pb2.LogChunk) -> log_chunk_pb2.LogRuns:
    try:
        content = zlib.decompressobj().decompress(chunk.runs, CONTENT_LIMIT)
        return log_chunk_pb2.LogRuns.FromString(content)
    except (zlib.error, DecodeError) as error:
        raise Internal(f"the output of task {chunk.task_number} cannot be read: {error}") from error
