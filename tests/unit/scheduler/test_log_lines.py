"""Cursors of output, and lines out of chunks that may be anything."""

import zlib

import pytest
from nodeflow.common.v1 import log_chunk_pb2
from tests.unit.scheduler import making

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.wire.cursors import execution_cursor, log_cursor, log_place_in
from nodeflow_scheduler.wire.logs import CONTENT_LIMIT, LineFilter, lines_of
from nodeflow_shared.errors import Internal, InvalidInput

ID = "0199a7c4-0000-7000-8000-000000000001"


def chunk(*texts: str, first: int = 1, runs: bytes | None = None) -> log_chunk_pb2.LogChunk:
    """A chunk with a run of each text, on standard output and error by turns."""
    content = log_chunk_pb2.LogRuns(
        runs=[log_chunk_pb2.LogRun(stream=number % 2 + 1, text=text) for number, text in enumerate(texts)]  # type: ignore[arg-type]
    )
    return log_chunk_pb2.LogChunk(
        task_number=1,
        attempt_number=2,
        first_line=first,
        runs=zlib.compress(content.SerializeToString()) if runs is None else runs,
    )


def read(piece: log_chunk_pb2.LogChunk, wanted: LineFilter | None = None, skip: int = 0) -> list[tuple[int, int, str]]:
    execution = Execution("e1", 0, making.chain(3))
    return [
        (place, line.line_number, line.text) for place, line in lines_of(piece, execution, wanted or LineFilter(), skip)
    ]


def test_lines_are_numbered_over_runs() -> None:
    assert read(chunk("a\nb", "", "c", first=5)) == [(1, 5, "a"), (2, 6, "b"), (3, 7, ""), (4, 8, "c")]


def test_what_is_not_wanted_keeps_its_place() -> None:
    piece = chunk("a\nb", "ab", "c")
    assert read(piece, LineFilter(text="b")) == [(2, 2, "b"), (3, 3, "ab")]
    assert read(piece, LineFilter(streams=frozenset({log_chunk_pb2.LOG_STREAM_STDERR}))) == [(3, 3, "ab")]
    assert read(piece, LineFilter(first_line=3)) == [(3, 3, "ab"), (4, 4, "c")]
    assert read(piece, skip=2) == [(3, 3, "ab"), (4, 4, "c")]


@pytest.mark.parametrize(
    "runs", [b"not compressed", zlib.compress(b"\xff\xff"), zlib.compress(bytes(CONTENT_LIMIT * 2))]
)
def test_a_chunk_that_cannot_be_read_is_named(runs: bytes) -> None:
    with pytest.raises(Internal, match="task 1"):
        read(chunk(runs=runs))


def test_cursors_belong_to_the_output_of_their_execution() -> None:
    assert log_place_in("", ID) == (0, 0)
    assert log_place_in(log_cursor(ID, 7, 3), ID) == (7, 3)
    for foreign in (log_cursor("other", 7, 3), execution_cursor(ID, 7), "nonsense", "!"):
        with pytest.raises(InvalidInput):
            log_place_in(foreign, ID)
