"""Standard output and error as user code has them, and what `logging` writes when nobody has configured it.

Owns that a task's output is out before the next task begins. Lines go out as they are written, also those of C code.
"""

import ctypes
import io
import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Final

READ_POLL_S: Final = 0.00005
PATIENCE_S: Final = 10.0
"""A process that user code left behind and that writes without pause must not stop the runner for good."""
LOG_FORMAT: Final = "%(levelname)s %(name)s: %(message)s"
_IOLBF: Final = 1


class Stream(io.TextIOWrapper):
    """A text stream that knows whether something was written that may not be out yet."""

    touched = False

    def write(self, text: str, /) -> int:
        """Write text."""
        self.touched = True
        return super().write(text)


class Streams:
    """Both streams of this process. `unread` are the other ends of their pipes, which the agent reads."""

    def __init__(self, unread: Sequence[int]) -> None:
        self.out = sys.stdout = _text_stream(1)
        self.err = sys.stderr = _text_stream(2)
        _flush_c_lines()
        _show_log_records()
        self._poll = select.poll()
        for fd in unread:
            self._poll.register(fd, select.POLLIN)
        os.register_at_fork(after_in_child=partial(_close_all, unread))
        self.unread: Callable[[int], Sequence[object]] = self._poll.poll
        """Called with 0: what is in the pipes, as far as it matters whether there is anything."""

    def flush(self) -> None:
        """Have all that was written out."""
        for stream in (self.out, self.err):
            stream.touched = False
            with suppress(OSError, ValueError):  # user code closed it
                stream.flush()

    def wait_until_read(self) -> None:
        """Wait until the agent has read all; it does not while it has no room for more."""
        gives_up_at = monotonic() + PATIENCE_S
        while self.unread(0) and monotonic() < gives_up_at:
            sleep(READ_POLL_S)


def _text_stream(fd: int) -> Stream:
    binary = open(fd, "wb", closefd=False)  # noqa: SIM115  # it is open for as long as the process lives
    return Stream(binary, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush_c_lines() -> None:
    """Have C code's output come by the line, as that of Python."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IOLBF, 0)


def _show_log_records() -> None:
    """Show records from INFO on, with level and logger; user code that configures logging has its way."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.lastResort = handler
    logging.root.setLevel(logging.INFO)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
