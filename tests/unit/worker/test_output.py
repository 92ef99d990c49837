"""Output as the core has it: lines, limits, numbers, and what is held until it is acknowledged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.worker.making import attempt

from nodeflow_worker.domain.output import MAX_LINE_BYTES, AttemptOutput, Batch, LineCutter, OutputBuffer, Stream

OUT, ERR, NOTICE = Stream.STDOUT, Stream.STDERR, Stream.NOTICE


def buffer(limit_bytes: int = 1 << 20, attempt_limit_bytes: int = 1 << 20) -> OutputBuffer:
    return OutputBuffer(limit_bytes=limit_bytes, attempt_limit_bytes=attempt_limit_bytes)


def lines(batch: Batch | None) -> list[tuple[Stream, str]]:
    assert batch is not None
    return [(run.stream, text) for each in batch.chunks for run in each.runs for text in run.text.split("\n")]


def written(*pieces: bytes, limit: int = 1 << 20) -> list[tuple[Stream, str]]:
    outputs = buffer(attempt_limit_bytes=limit)
    output = outputs.open(attempt())
    for piece in pieces:
        output.write(OUT, piece, 0)
    output.end(0)
    return lines(outputs.take()) if outputs.held else []


@given(st.lists(st.binary(max_size=40)))
def test_however_bytes_come_the_lines_are_those_of_all(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = (whole.removesuffix(b"\n") if whole.endswith(b"\n") else whole).split(b"\n") if whole else []
    texts = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in expected]
    assert [text for _, text in written(*pieces)] == texts


def test_a_line_is_told_when_its_end_has_come() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"be") == b""
    assert cutter.feed(b"gun\nnext") == b"begun\n"
    assert cutter.rest() == b"next\n"
    assert cutter.rest() == b""


def test_lines_of_the_limit_stay_whole_and_longer_ones_come_in_parts() -> None:
    exact = b"x" * MAX_LINE_BYTES
    assert [len(text) for _, text in written(exact + b"\n")] == [MAX_LINE_BYTES]
    assert [len(text) for _, text in written(exact + b"y\nz\n")] == [MAX_LINE_BYTES, 1, 1]
    assert [len(text) for _, text in written(b"ab\n" + exact, exact, b"y")] == [2, MAX_LINE_BYTES, MAX_LINE_BYTES, 1]


def test_parts_end_at_whole_characters() -> None:
    texts = [text for _, text in written("€".encode() * 30_000)]
    assert "".join(texts) == "€" * 30_000
    assert len(texts) == 2


def test_the_limit_of_an_attempt_cuts_with_a_notice() -> None:
    assert written(b"12345\n678", b"90\nmore\n", b"and more", limit=10) == [
        (OUT, "12345"),
        (OUT, "6789"),
        (NOTICE, "the limit of 10 bytes is reached: no more is kept"),
        (NOTICE, "15 bytes were left out"),
    ]
    assert written(b"1234567890", limit=10) == [(OUT, "1234567890")]


def test_chunks_are_numbered_on_and_of_one_attempt_each() -> None:
    outputs = buffer()
    one, other = outputs.open(attempt(1)), outputs.open(attempt(2))
    one.write(OUT, b"a\nb\n", 1)
    other.write(ERR, b"c\n", 2)
    one.write(ERR, b"d\n", 3)
    first = outputs.take()
    one.write(OUT, b"e\n", 4)
    second = outputs.take()
    assert first is not None
    assert second is not None
    found = [(each.attempt.task_number, each.first_line, each.line_count) for each in (*first.chunks, *second.chunks)]
    assert found == [(1, 1, 3), (2, 1, 1), (1, 4, 1)]
    assert [(run.stream, run.time_ms, run.text) for run in first.chunks[0].runs] == [(OUT, 1, "a\nb"), (ERR, 3, "d")]


def test_what_went_out_is_held_until_it_is_acknowledged() -> None:
    outputs = buffer()
    output = outputs.open(attempt())
    output.write(OUT, b"a\n", 0)
    first = outputs.take()
    output.write(OUT, b"b\n", 0)
    second = outputs.take()
    assert outputs.take() is None
    assert outputs.unacknowledged() == [first, second]
    told: list[int] = []
    outputs.when_room(lambda: told.append(outputs.held))
    outputs.acknowledge(1)
    assert outputs.unacknowledged() == [second]
    assert told == [output.held]
    assert output.held > 0
    outputs.acknowledge(2)
    assert (outputs.held, output.held, told) == (0, 0, told[:1])


def test_one_attempt_is_full_before_all_are() -> None:
    outputs = buffer(limit_bytes=80_000)
    flooding, quiet = outputs.open(attempt(1)), outputs.open(attempt(2))
    fill(flooding)
    assert (flooding.full, quiet.full, outputs.full) == (True, False, False)
    for task in range(3, 12):
        fill(outputs.open(attempt(task)))
    assert outputs.full
    assert quiet.full


@pytest.mark.parametrize("size", [1, 5_000])
def test_a_batch_has_a_bound(size: int) -> None:
    outputs = buffer(limit_bytes=1 << 30, attempt_limit_bytes=1 << 30)
    output = outputs.open(attempt())
    for _ in range(4_000):
        output.write(OUT, b"x" * size + b"\n", 0)
    batches = []
    while batch := outputs.take():
        batches.append(batch)
    assert len(batches) > 3
    assert max(batch.size for batch in batches) < 300_000
    assert sum(chunk.line_count for batch in batches for chunk in batch.chunks) == 4_000


def fill(output: AttemptOutput) -> None:
    while not output.full:
        output.write(OUT, b"x" * 1_000 + b"\n", 0)
