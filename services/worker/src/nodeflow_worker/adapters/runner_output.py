"""The pipes behind the standard output and error of one runner.

Owns which task what comes out of them belongs to, and that they are not read while there is no room: then the writer
waits, and nobody else. A runner begins no task while something of the one before is in a pipe. So what is read is of
the task that was begun last, if that is looked up first, and the pipe was not empty then.
"""

import asyncio
import fcntl
import os
import select
import termios
import time
from typing import Final, Protocol

from nodeflow_shared.logs import get_log
from nodeflow_worker.domain.output import AttemptOutput, OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt

READ_BYTES: Final = 64 * 1024
MAX_LAST_READS: Final = 32
"""How much of what a runner left is read: all of it, unless something that escaped its group writes on and on."""

_log = get_log()


class Tasks(Protocol):
    """What a runner executes; its tasks are counted from 1."""

    @property
    def begun(self) -> int:
        """The task that was begun last, 0 if none was."""
        ...

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        ...

    def attempt(self, number: int) -> Attempt | None:
        """Return a task that has not ended, or the one that ended last."""
        ...


class RunnerOutput:
    """Two pipes, for a runner that is about to be started."""

    def __init__(self, outputs: OutputBuffer, tasks: Tasks) -> None:
        self._outputs = outputs
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        out, child_out = os.pipe()
        try:
            err, child_err = os.pipe()
        except OSError:
            os.close(out)
            os.close(child_out)
            raise
        self.child_fds = (child_out, child_err, out, err)
        """What the runner gets: output and error to write to, and their other ends, by which it sees what was read."""
        self._pipes = {out: Stream.STDOUT, err: Stream.STDERR}
        self._number = 0
        self._output: AttemptOutput | None = None
        self.unended = False
        """Whether something was read of a task whose end was not told yet."""
        self._paused = False
        self._finishing = False

    @property
    def closed(self) -> bool:
        """Whether nothing can come any more."""
        return not self._pipes

    def start(self) -> None:
        """Begin to read: the runner has its ends."""
        self._close_child_ends()
        for fd in self._pipes:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._on_readable, fd)

    def abandon(self) -> None:
        """Close everything: the runner did not start."""
        self._close_child_ends()
        self.close()

    def drain(self) -> bool:
        """Read what the pipes hold now; False if there is no room for it."""
        for fd in list(self._pipes):
            if not self._read(fd):
                return False
        self._end_if_over()
        return True

    def finish(self) -> None:
        """The runner is gone: read what it left, as soon as there is room, and close."""
        self._finishing = True
        for _ in range(MAX_LAST_READS):
            if not self.drain():
                return
            if not any(map(waiting_bytes, self._pipes)):
                break
        self._end()
        self.close()

    def close(self) -> None:
        """Close the pipes, whatever is in them."""
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pipes.clear()

    def _close_child_ends(self) -> None:
        for fd in self.child_fds[:2]:
            os.close(fd)

    def _on_readable(self, fd: int) -> None:
        if self._read(fd):
            self._end_if_over()

    def _read(self, fd: int) -> bool:
        """Read once; False if there is no room.

        Something must be there before the task is looked up, which a loop that was told so a moment ago cannot know.
        """
        if not waiting_bytes(fd):
            if _is_closed(fd):
                self._loop.remove_reader(fd)
            return True
        output = self._current()
        if output is not None and output.full:
            self._pause()
            return False
        data = os.read(fd, READ_BYTES)
        if output is None:
            _log.warning("runner_output", text=data.decode("utf-8", "replace"))
        else:
            self.unended = True
            output.write(self._pipes[fd], data, now_ms())
        return True

    def _current(self) -> AttemptOutput | None:
        """Return the output of the task that was begun last."""
        number = self._tasks.begun
        if number != self._number:
            self._end()
            self._number = number
            attempt = self._tasks.attempt(number)
            self._output = self._outputs.open(attempt) if attempt is not None else None
        return self._output

    def _end_if_over(self) -> None:
        """A task's last line is one even without an end, once the task is over and all of it is read."""
        if self.unended and self._number <= self._tasks.done and not any(map(waiting_bytes, self._pipes)):
            self._end()

    def _end(self) -> None:
        if self.unended and self._output is not None:
            self.unended = False
            self._output.end(now_ms())

    def _pause(self) -> None:
        if self._paused:
            return
        self._paused = True
        for fd in self._pipes:
            self._loop.remove_reader(fd)
        self._outputs.when_room(self._resume)

    def _resume(self) -> None:
        self._paused = False
        if self._finishing:
            self.finish()
            return
        for fd in self._pipes:
            self._loop.add_reader(fd, self._on_readable, fd)


def waiting_bytes(fd: int) -> int:
    """Return how many bytes are in a pipe."""
    count = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return int.from_bytes(count, "little")


def _is_closed(fd: int) -> bool:
    """Whether nobody can write into a pipe any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def now_ms() -> int:
    """Return the time that a line is read at."""
    return time.time_ns() // 1_000_000
