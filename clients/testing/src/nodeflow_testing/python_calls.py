"""Calls of users' Python for tasks: in this process, on the virtual loop, as a runner process would make them.

Owns what surrounds a call: whose output it is, how time passes in it, and how its end is told. How functions are found,
arguments read, results written and failures described is the real runner's. Must not know who executes what when.
"""

import asyncio
import contextvars
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final, SupportsIndex, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from nodeflow_worker.adapters.runner_words import outcome_of
from nodeflow_worker.domain.output import Stream
from nodeflow_worker.domain.values import Outcome, TaskSpec
from nodeflow_worker.runner import describe
from nodeflow_worker.runner.executor import Stopped
from nodeflow_worker.runner.frames import Failed, Result
from nodeflow_worker.runner.streams import LOG_FORMAT
from nodeflow_worker.runner.values import write_result

Sink = Callable[[Stream, bytes], None]
_SINK: Final = contextvars.ContextVar[Sink | None]("nodeflow_task_output", default=None)
_HEARD: Final = frozenset({"error", "critical", "exception"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """What is called in place of a node: a function that is given the arguments by name, after `takes_s` seconds."""

    function: Callable[..., object]
    takes_s: float = 0.0


class Stubs:
    """Stubs by what they stand for: a function string (`module:callable`), or the name of a node."""

    def __init__(self) -> None:
        self.functions: dict[str, Stub] = {}
        self.nodes: dict[str, Stub] = {}

    def of(self, spec: TaskSpec) -> Stub | None:
        """Return the stub of a task. A node that is called more than once is `name`, `name_2`, …: a stub is for all."""
        name, _, number = spec.node.rpartition("_")
        own = self.nodes.get(spec.node) or (self.nodes.get(name) if number.isdecimal() else None)
        return own or self.functions.get(spec.function)


async def outcome_of_call(
    name: str, function: Callable[..., Any], arguments: Mapping[str, Any], sink: Sink, timeout_s: float | None
) -> Outcome:
    """Call a function, plain or async, and return how it ended, once that time has passed.

    `time.sleep` in a plain function takes virtual time; one that sleeps beyond its timeout ends there and never returns
    here: who waits cancels this. What is no Exception (Ctrl-C, a test that fails inside of a node) is raised.
    """
    context = contextvars.copy_context()
    context.run(_SINK.set, sink)
    nap = _Nap(timeout_s)
    try:
        value = await _called(function, arguments, nap, context)
        if inspect.iscoroutine(value):
            value = await asyncio.get_running_loop().create_task(value, name=f"node {name}", context=context)
        result = write_result(name, value)
    except asyncio.CancelledError as error:
        if cast("asyncio.Task[object]", asyncio.current_task()).cancelling():
            raise
        result = describe.raised(_without_own_frames(error))
    except Stopped:
        await asyncio.Event().wait()  # until who counts the time stops it
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever user code raises is its failure
        result = _failed(name, function, arguments, _without_own_frames(error))
    await asyncio.sleep(nap.slept_s)
    return outcome_of(result)


@contextmanager
def heard() -> Iterator[None]:
    """While inside, give what calls print and log to their sinks, and let nothing but errors of the engine be heard."""
    handler = _Records()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    root, configured = logging.getLogger(), structlog.get_config()
    level = root.level
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(cast(TextIO, _Tee(sys.stdout, Stream.STDOUT))))
        stack.enter_context(redirect_stderr(cast(TextIO, _Tee(sys.stderr, Stream.STDERR))))
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        root.setLevel(min(level or logging.INFO, logging.INFO))
        stack.callback(root.setLevel, level)
        structlog.configure(**{**configured, "processors": [_hush, *configured["processors"]]})
        stack.callback(lambda: structlog.configure(**configured))
        yield


class _Nap:
    """What stands for `time.sleep` in one call: it counts."""

    def __init__(self, limit_s: float | None) -> None:
        self.slept_s = 0.0
        self._limit_s = limit_s

    def sleep(self, seconds: float | SupportsIndex, /) -> None:
        """Take virtual time; ends the call when its time is up."""
        span_s = float(seconds)
        if span_s < 0:
            raise ValueError("sleep length must be non-negative")
        self.slept_s += span_s
        if self._limit_s is not None and self.slept_s > self._limit_s:
            raise Stopped


async def _called(
    function: Callable[..., Any], arguments: Mapping[str, Any], nap: _Nap, context: contextvars.Context
) -> object:
    """Call a function where plain code is called: in no task and on no loop, so that it may run one of its own."""
    loop = asyncio.get_running_loop()
    called: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def call() -> None:
        real, time.sleep = time.sleep, nap.sleep
        asyncio._set_running_loop(None)
        try:
            ended: tuple[object, BaseException | None] = (function(**arguments), None)
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            ended = (None, error)
        finally:
            asyncio._set_running_loop(loop)
            time.sleep = real
        if not called.cancelled():
            called.set_result(ended)

    loop.call_soon(call, context=context)
    value, error = await called
    if error is not None:
        raise error
    return value


def _failed(name: str, function: Callable[..., Any], arguments: Mapping[str, Any], error: BaseException) -> Result:
    fault: Failed | None = None
    if isinstance(error, TypeError):
        fault = describe.mismatch(name, function, dict(arguments), error)
    return fault or describe.raised(error)


def _without_own_frames(error: BaseException) -> BaseException:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)


class _Tee:
    """A standard stream that also gives what is written to the call that writes it.

    Nothing of `io`: their finalizers would close the stream.
    """

    def __init__(self, stream: TextIO, kind: Stream) -> None:
        self._stream = stream
        self._kind = kind

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the stream has
        return getattr(self._stream, name)

    def write(self, text: str, /) -> int:
        sink = _SINK.get()
        if sink is not None:
            sink(self._kind, text.encode("utf-8", "backslashreplace"))
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        for line in lines:
            self.write(line)


class _Records(logging.Handler):
    """Shows records of calls as a runner does: on their standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        sink = _SINK.get()
        if sink is not None:
            sink(Stream.STDERR, f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))


def _hush(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if _SINK.get() is None and method not in _HEARD:
        raise structlog.DropEvent
    return event
