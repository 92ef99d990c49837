"""What agent and runner say to each other: frames on two pipes, and a page of shared memory.

Owns both formats. A frame is its length in 4 bytes (little endian) and MessagePack of plain arrays, decoded into these
types only: whatever hostile user code writes to the pipe, the agent decodes it into these shapes or kills the runner.
"""

import math
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

MAX_RESULT_BYTES: Final = 256 * 1024 * 1024
MAX_FRAME_BYTES: Final = 1024 * 1024 * 1024
"""Longer frames from a runner are no frames: its code wrote to the pipe."""

STALE_EXIT: Final = 75
"""The exit code of a runner whose code changed on disk: it started nothing of what it had not told."""


class Part(msgspec.Struct, array_like=True, frozen=True):
    """An artifact that a manifest names."""

    digest: str
    data: bytes


class Extra(msgspec.Struct, array_like=True, frozen=True):
    """An argument that came by reference."""

    parameter: str
    content_type: str
    data: bytes
    parts: list[Part]


class Task(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One task: the position of its function among all that were announced, its arguments as a JSON object."""

    function: int
    arguments: bytes
    extras: list[Extra] = []


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """Tasks for a runner. `functions` are numbered on; `paths` (in the first batch) come first on its import path."""

    paths: list[str]
    functions: list[str]
    tasks: list[Task]


class Octets(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """A result in bytes."""

    data: bytes


class Failed(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A failure. `kind` is that of common.v1.Failure."""

    kind: int
    reason: str
    message: str
    retryable: bool
    error_type: str = ""
    traceback: str = ""
    cause: "Failed | None" = None


class Ended(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """No result: the task was not started (`started` false) or was stopped, as the agent wished."""

    started: bool


Result: TypeAlias = bytes | Octets | Failed | Ended
"""Plain bytes are a JSON value."""


class Results(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Ends of tasks in order, the first of which has the number `first`, so that none can be taken for another's.

    `spent`: (function, how many calls, seconds), not in step with `results`.
    """

    first: int
    results: list[Result]
    spent: list[tuple[int, int, float]]


_LENGTH: Final = struct.Struct("<I")
_encoder: Final = msgspec.msgpack.Encoder()


def encode(message: Batch | Results) -> bytearray:
    """Return a message as a frame."""
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    _LENGTH.pack_into(frame, 0, len(frame) - 4)
    return frame


class FrameReader:
    """Cuts what comes from a pipe into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the frames that are complete. Raises ValueError if they cannot be frames."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                if len(buffer) - start - 4 < length:
                    break
                start += 4 + length
                yield bytes(memoryview(buffer)[start - length : start])
        finally:  # also when the reader fails on a frame: what it was given must not come again
            del buffer[:start]


class Page:
    """The shared page: which task was begun last, and when; which one is to be stopped; which are not to be begun.

    The runner writes the first, so that the blame is right however it dies; the agent writes the others.
    """

    SIZE: Final = 4096
    _BEGUN: Final = struct.Struct("<Qd")
    _NUMBER: Final = struct.Struct("<Q")
    _STOP_AT: Final = 16
    SKIP_AT: Final = 64
    SKIP_MASK: Final = 2047
    """One byte for each task, by the last bits of its number: more than a runner is ever fed."""

    def __init__(self, memory: "memoryview") -> None:
        self.memory = memory
        self.pack_begun = self._BEGUN.pack_into

    def begun(self) -> tuple[int, float]:
        """Return the task begun last (0: none) and when, in seconds of the monotonic clock.

        User code can write here too: the reader must expect any number, and no number but a finite one.
        """
        number, at = self._BEGUN.unpack_from(self.memory)
        return number, at if math.isfinite(at) else 0.0

    def set_stop(self, number: int) -> None:
        """Name the task that the next SIGTERM means."""
        self._NUMBER.pack_into(self.memory, self._STOP_AT, number)

    def stop(self) -> int:
        """Return the task that SIGTERM means."""
        (number,) = self._NUMBER.unpack_from(self.memory, self._STOP_AT)
        return int(number)

    def skip(self, number: int) -> None:
        """Have a task not begun."""
        self.memory[self.SKIP_AT + (number & self.SKIP_MASK)] = 1

    def unskip(self, number: int) -> None:
        """Free a task's place for the one that comes around to it."""
        self.memory[self.SKIP_AT + (number & self.SKIP_MASK)] = 0

    def taken_skip(self, number: int) -> bool:
        """Whether a task is not to be begun; asks once."""
        place = self.SKIP_AT + (number & self.SKIP_MASK)
        if not self.memory[place]:
            return False
        self.memory[place] = 0
        return True
