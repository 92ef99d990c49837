"""Executes tasks one after the other, and tells how they ended.

Owns the order that makes the blame exact: a task is marked on the page before it begins, and what ended before it is
told at once unless it ended a moment ago. Must not know attempts, nor the agent's reasons.
"""

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Callable
from time import monotonic, sleep
from types import FrameType
from typing import Any, Final

import msgspec

from nodeflow_worker.runner import describe
from nodeflow_worker.runner.frames import (
    STALE_EXIT,
    Batch,
    Ended,
    Failed,
    FrameReader,
    Page,
    Result,
    Results,
    Task,
    encode,
)
from nodeflow_worker.runner.functions import CHECK_INTERVAL_S, Functions
from nodeflow_worker.runner.streams import Streams
from nodeflow_worker.runner.values import read_arguments, write_result

FLUSH_S: Final = 0.001
"""Results older than this are told before the next task begins."""
FLUSHER_S: Final = 0.002
"""How often the flusher looks for results that wait behind a task that turned out to be long."""


class Stopped(BaseException):
    """Raised in user code by the agent's SIGTERM; not an Exception, so that `except Exception` lets it through."""


class Executor:
    """One runner's state: its functions, its results that were not told yet, its place in the count of tasks."""

    def __init__(self, tasks_fd: int, results_fd: int, page: Page, streams: Streams) -> None:
        self._tasks_fd = tasks_fd
        self._results_fd = results_fd
        self._page = page
        self._streams = streams
        self._functions = Functions()
        self._addresses: list[str] = []
        self._names: list[str] = []
        self._found: list[Callable[..., Any] | None] = []
        self._number = 0
        self._told = 0
        self._current = 0
        self._results: list[Result] = []
        self._spent: list[tuple[int, int, float]] = []
        self._last_flush = monotonic()
        self._last_check = monotonic()
        self._flush_lock = threading.Lock()
        self._busy = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._coroutine: asyncio.Task[Any] | None = None

    def run(self) -> int:
        """Execute what comes until the agent closes the pipe; returns the exit code."""
        signal.signal(signal.SIGTERM, self._on_stop)
        threading.Thread(target=self._keep_flushing, name="nodeflow-flusher", daemon=True).start()
        decoder = msgspec.msgpack.Decoder(Batch)
        reader = FrameReader()
        while data := os.read(self._tasks_fd, 1 << 20):
            for frame in reader.feed(data):
                if not self._execute(decoder.decode(frame)):
                    return STALE_EXIT
        return 0

    def _execute(self, batch: Batch) -> bool:
        """Execute a batch; False if the code is stale, and nothing of the batch was begun."""
        if batch.paths:
            self._functions.bind(batch.paths)
        self._addresses += batch.functions
        self._names += [each.partition("@")[0] for each in batch.functions]
        self._found += [None] * len(batch.functions)
        now = monotonic()
        # One that is pinned to a file's bytes is new here: they may have been written a moment ago.
        pinned = any("@" in each for each in batch.functions)
        if pinned or now - self._last_check > CHECK_INTERVAL_S:
            if self._functions.stale():
                return False
            self._last_check = now = monotonic()
        # A single task is told when it ends; nothing can wait behind it.
        if len(batch.tasks) > 1:
            self._busy.set()
        self._execute_all(batch.tasks, now)
        self._busy.clear()
        self._flush()
        return True

    def _execute_all(self, tasks: list[Task], now: float) -> None:
        page, results, spent = self._page, self._results, self._spent
        pack_begun, memory = page.pack_begun, page.memory
        out, err, unread = self._streams.out, self._streams.err, self._streams.unread
        row, function, began = 0, -1, now
        for task in tasks:
            if task.function != function or (results and now - self._last_flush > FLUSH_S):
                if row:
                    spent.append((function, row, now - began))
                row, function, began = 0, task.function, now
                if results and now - self._last_flush > FLUSH_S:
                    self._flush()
            if unread(0):
                self._streams.wait_until_read()
            self._number = number = self._number + 1
            # First the mark, then the look: the agent does it the other way round, so that one of both sees the other.
            pack_begun(memory, 0, number, now)
            if memory[page.SKIP_AT + (number & page.SKIP_MASK)] and page.taken_skip(number):
                results.append(Ended(started=False))
            else:
                results.append(self._call(task))
                if out.touched or err.touched:
                    self._streams.flush()
                row += 1
            now = monotonic()
        if row:
            spent.append((function, row, now - began))

    def _call(self, task: Task) -> Result:
        name = self._names[task.function]
        arguments: dict[str, Any] | None = None
        function: Callable[..., Any] | None = None
        try:
            self._current = self._number
            function = self._found[task.function]
            if function is None:
                found = self._functions.find(self._addresses[task.function])
                if isinstance(found, Failed):
                    self._current = 0
                    return found
                function = self._found[task.function] = self._as_plain(found)
            arguments = read_arguments(task.arguments, task.extras)
            result = write_result(name, function(**arguments))
            self._current = 0
        except Stopped:
            self._current = 0
            return self._stop()
        except TypeError as error:
            self._current = 0
            fault = None
            if function is not None and arguments is not None:
                fault = describe.mismatch(name, function, arguments, error)
            return fault or describe.raised(error)
        except BaseException as error:  # noqa: BLE001  # sys.exit and Ctrl-C in user code are its failures, not the runner's
            self._current = 0
            return describe.raised(error)
        else:
            return result

    def _as_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a coroutine function as one that runs on this runner's own loop; others as they are."""
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        if not inspect.iscoroutinefunction(called):
            return function
        loop = self._loop = self._loop or asyncio.new_event_loop()

        def call(**arguments: object) -> object:
            coroutine = function(**arguments)
            self._coroutine = loop.create_task(coroutine)
            try:
                return loop.run_until_complete(self._coroutine)
            except asyncio.CancelledError:
                if self._page.stop() == self._number:
                    raise Stopped from None
                raise
            finally:
                self._coroutine = None

        call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # what inspect.signature looks at
        return call

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        # The signal may come late, when the task that it means has ended: then it means nothing.
        if self._current == 0 or self._page.stop() != self._current:
            return
        if self._coroutine is not None and self._loop is not None:
            self._coroutine.cancel()
            self._loop.call_soon_threadsafe(int)  # wakes the loop out of its wait
            return
        raise Stopped

    def _stop(self) -> Result:
        """End after a stopped task: whatever it left half-done goes with the process, but for what it has said."""
        self._streams.flush()
        self._results.append(Ended(started=True))
        self._flush()
        os._exit(0)

    def _flush(self) -> None:
        with self._flush_lock:
            results, spent = self._results[:], self._spent[:]
            if not results:
                return
            del self._results[: len(results)], self._spent[: len(spent)]
            self._last_flush = monotonic()
            first, self._told = self._told + 1, self._told + len(results)
            _write_all(self._results_fd, encode(Results(first, results, spent)))

    def _keep_flushing(self) -> None:
        """Tell results that wait behind a long task. While it runs, none is added: what is seen is complete."""
        while True:
            self._busy.wait()
            sleep(FLUSHER_S)
            if self._results and monotonic() - self._last_flush > FLUSHER_S:
                self._flush()


def _write_all(fd: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError:  # the agent is gone, or user code has closed the pipe or forked: nobody waits for this process
            os._exit(1)
