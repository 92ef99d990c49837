"""What attempts write, on its way from the pipes to the worker-manager: cut into lines, numbered, bounded.

Owns the limits: how much is kept of an attempt, how long a line is, how much is held in memory. Must not know pipes,
nor who stores it. Time is an argument.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from nodeflow_worker.domain.values import Attempt

MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line comes in parts."""
BATCH_BYTES: Final = 256 * 1024
"""About how much text goes out at once."""
ATTEMPT_SHARE: Final = 8
"""One attempt holds at most this part of the buffer, so that a flood does not stop the others."""
RUN_BYTES: Final = 256
"""What a run costs beside its text."""


class Stream(IntEnum):
    """Where a line was written to; the numbers are those of the wire."""

    STDOUT = 1
    STDERR = 2
    NOTICE = 3


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive lines of one stream, read at the same moment; joined by newlines."""

    stream: Stream
    time_ms: int
    text: str
    line_count: int


@dataclass(slots=True)
class Chunk:
    """Consecutive lines of one attempt."""

    attempt: Attempt
    first_line: int
    line_count: int = 0
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Chunks that go out together. Kept until they are acknowledged, and repeated unchanged."""

    batch_id: int
    chunks: Sequence[Chunk]
    size: int


class AttemptOutput:
    """The output of one attempt. Whoever reads its pipes holds this for as long as anything may come."""

    def __init__(self, buffer: "OutputBuffer", attempt: Attempt) -> None:
        self.attempt = attempt
        self.held = 0
        """Bytes of it in memory."""
        self.next_line = 1
        """The number of the next line that goes out."""
        self._buffer = buffer
        self._cutters = {Stream.STDOUT: LineCutter(), Stream.STDERR: LineCutter()}
        self._kept = 0
        self._left_out = 0

    @property
    def full(self) -> bool:
        """Whether no more should be read for now; `OutputBuffer.when_room` tells when to look again."""
        return self._buffer.full or self.held >= self._buffer.limit_bytes // ATTEMPT_SHARE

    def write(self, stream: Stream, data: bytes, time_ms: int) -> None:
        """Take bytes in. Beyond the limit of an attempt they are counted only, and a notice says where."""
        for start in range(0, len(data), MAX_LINE_BYTES):
            self._write(stream, data[start : start + MAX_LINE_BYTES], time_ms)

    def _write(self, stream: Stream, data: bytes, time_ms: int) -> None:
        room = self._buffer.attempt_limit_bytes - self._kept
        if len(data) > room:
            self._left_out += len(data) - max(room, 0)
            if room < 0:
                return
            self._kept = self._buffer.attempt_limit_bytes + 1
            self._add(stream, self._cutters[stream].feed(data[:room]), time_ms)
            self._flush(time_ms)
            self.notice(f"the limit of {_size(self._buffer.attempt_limit_bytes)} is reached: no more is kept", time_ms)
            return
        self._kept += len(data)
        self._add(stream, self._cutters[stream].feed(data), time_ms)

    def end(self, time_ms: int) -> None:
        """The attempt ended: a line without an end is one. Nothing goes wrong if something comes later."""
        self._flush(time_ms)
        if self._left_out:
            self.notice(f"{_size(self._left_out)} were left out", time_ms)
            self._left_out = 0

    def notice(self, text: str, time_ms: int) -> None:
        """Add a remark of the worker's own."""
        self._add(Stream.NOTICE, text.encode() + b"\n", time_ms)

    def _flush(self, time_ms: int) -> None:
        for stream, cutter in self._cutters.items():
            self._add(stream, cutter.rest(), time_ms)

    def _add(self, stream: Stream, lines: bytes, time_ms: int) -> None:
        if lines:
            text = lines.decode("utf-8", "replace").replace("\r\n", "\n")[:-1]
            self._buffer.add(self, Run(stream, time_ms, text, text.count("\n") + 1))


class LineCutter:
    """Cuts the bytes of one stream into whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are complete now, each with its newline."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        lines, rest = data[:end], data[end:]
        if len(lines) > MAX_LINE_BYTES and max(map(len, lines.split(b"\n"))) > MAX_LINE_BYTES:
            lines = b"".join(piece + b"\n" for line in lines[:-1].split(b"\n") for piece in _pieces(line))
        if len(rest) > MAX_LINE_BYTES:
            *pieces, rest = _pieces(rest)
            lines += b"".join(piece + b"\n" for piece in pieces)
        self._rest = rest
        return lines

    def rest(self) -> bytes:
        """Return what has no newline yet as a line, and forget it."""
        rest, self._rest = self._rest, b""
        return rest + b"\n" if rest else b""


class OutputBuffer:
    """All output that is not stored yet, first in, first out. Bounded by who heeds `full`: nobody else ever waits."""

    def __init__(self, *, limit_bytes: int, attempt_limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.attempt_limit_bytes = attempt_limit_bytes
        self.held = 0
        """Bytes in memory: waiting, or sent and not acknowledged."""
        self.added = 0
        """How many runs were ever added."""
        self.taken = 0
        """How many of these went out."""
        self.on_added: Callable[[], None] = _ignore
        self._waiting: deque[tuple[AttemptOutput, Run]] = deque()
        self._unacknowledged: deque[tuple[Batch, list[tuple[AttemptOutput, int]]]] = deque()
        self._last_batch = 0
        self._room_waiters: list[Callable[[], None]] = []

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        return self.held >= self.limit_bytes

    def open(self, attempt: Attempt) -> AttemptOutput:
        """Begin to take the output of an attempt."""
        return AttemptOutput(self, attempt)

    def when_room(self, call: Callable[[], None]) -> None:
        """Have a function called once, when something was acknowledged."""
        self._room_waiters.append(call)

    def add(self, output: AttemptOutput, run: Run) -> None:
        """Put lines at the end."""
        size = len(run.text) + RUN_BYTES
        output.held += size
        self.held += size
        self.added += 1
        self._waiting.append((output, run))
        self.on_added()

    def take(self) -> Batch | None:
        """Return the next lines, or None if all went out; they are held until they are acknowledged."""
        if not self._waiting:
            return None
        chunks: dict[AttemptOutput, Chunk] = {}
        sizes: dict[AttemptOutput, int] = {}
        total = 0
        while self._waiting and total < BATCH_BYTES:
            output, run = self._waiting.popleft()
            chunk = chunks.get(output)
            if chunk is None:
                chunk = chunks[output] = Chunk(output.attempt, output.next_line)
            chunk.runs.append(run)
            chunk.line_count += run.line_count
            output.next_line += run.line_count
            sizes[output] = sizes.get(output, 0) + len(run.text) + RUN_BYTES
            total += len(run.text) + RUN_BYTES
            self.taken += 1
        self._last_batch += 1
        batch = Batch(batch_id=self._last_batch, chunks=list(chunks.values()), size=total)
        self._unacknowledged.append((batch, list(sizes.items())))
        return batch

    def unacknowledged(self) -> list[Batch]:
        """Return what went out and was not acknowledged, oldest first."""
        return [batch for batch, _ in self._unacknowledged]

    def forget_sent(self) -> None:
        """Forget all that went out: nobody will ever take it."""
        self.acknowledge(self._last_batch)

    def acknowledge(self, batch_id: int) -> None:
        """Forget a batch and those before it, and tell who waits for room."""
        while self._unacknowledged and self._unacknowledged[0][0].batch_id <= batch_id:
            _, sizes = self._unacknowledged.popleft()
            for output, size in sizes:
                output.held -= size
                self.held -= size
        waiters, self._room_waiters = self._room_waiters, []
        for call in waiters:
            call()


def _pieces(line: bytes) -> Iterator[bytes]:
    """Cut a line into parts that are short enough, at whole characters where it is UTF-8."""
    start = 0
    while len(line) - start > MAX_LINE_BYTES:
        end = start + MAX_LINE_BYTES
        while end > start + MAX_LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[start:end]
        start = end
    yield line[start:]


def _size(count: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} bytes"


def _ignore() -> None:
    """Before anyone sends."""
