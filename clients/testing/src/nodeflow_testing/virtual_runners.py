"""Runners on virtual time: the worker's port `Runners` inside the test's own process and loop.

Owns durations and outcomes as a test scripts them; all else follows the real adapter, event by event. A function string
names an entry of `functions`: a callable that is given the task's arguments and the attempt's number, and says how long
the task takes and how it ends.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final

from nodeflow_shared.clock import Clock
from nodeflow_testing.machine_clock import MachineClock
from nodeflow_worker.domain.events import (
    RunnerDied,
    RunnerEvent,
    RunnerReady,
    RunnerResults,
    TaskOverdue,
    TaskRunning,
    TaskSkipped,
    TasksTakenBack,
)
from nodeflow_worker.domain.output import AttemptOutput, OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt, Ending, Failure, FailureKind, Outcome, Stored

RUNNING_AFTER_S: Final = 0.002
START_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Value:
    """The task returns this JSON value (or bytes), and has printed lines, evenly over its time."""

    value: object
    prints: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Raised:
    """The task raises; a retry may help."""

    error_type: str = "RuntimeError"
    message: str = "simulated"


@dataclass(frozen=True, slots=True)
class Died:
    """The task takes its runner process with it."""

    cause: str = "it exited with code 1"


Scripted = Value | Raised | Died
# Any: arguments are whatever JSON the workflow under test has.
Simulated = Callable[[dict[str, Any], int], tuple[float, Scripted]]
"""(arguments, attempt_number) → (seconds it takes, how it ends). `float("inf")` hangs."""


@dataclass(slots=True, kw_only=True)
class Span:
    """A task at work in a runner, on the loop's clock; without an end it still is."""

    execution_id: str
    task_number: int
    attempt_number: int
    began_s: float
    ended_s: float = float("inf")


class VirtualRunners:
    """The port `Runners`. `executed` has (function, execution_id, task_number, attempt_number) of each task begun.

    `spans` has the same tasks with their times.
    """

    def __init__(
        self,
        functions: Mapping[str, Simulated],
        *,
        start_s: float = START_S,
        context: Context | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or MachineClock()
        self._functions = functions
        self._start_s = start_s
        self._context = context or Context()
        """Whose callbacks the runners' are: not their agent's, which may be paused while they work."""
        self._agent = Context()
        self._tell: Callable[[RunnerEvent], None] = _ignore
        self._runners: dict[int, VirtualRunner] = {}
        self._closed = False
        self._outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=1 << 20)
        self.executed: list[tuple[str, str, int, int]] = []
        self.spans: list[Span] = []

    def capture(self, outputs: OutputBuffer) -> None:
        self._outputs = outputs

    def drain_output(self) -> bool:
        return True  # there are no pipes: what is printed is in the buffer at once

    def listen(self, tell: Callable[[RunnerEvent], None]) -> None:
        self._tell = tell
        self._agent = copy_context()

    def spawn(self, runner: int, delay_s: float) -> None:
        if self._closed:
            return
        self._runners[runner] = self._hired(runner)
        self._runners[runner].start(delay_s + self._start_s)

    def _hired(self, runner: int) -> "VirtualRunner":
        return VirtualRunner(
            runner,
            self._functions,
            self.executed,
            self.spans,
            tell=self._on_event,
            outputs=self._outputs,
            context=self._context,
            clock=self._clock,
        )

    def feed(self, runner: int, directory: str, attempts: Sequence[Attempt]) -> None:
        if runner in self._runners:
            self._runners[runner].feed(directory, attempts)

    def stop_task(self, runner: int, sequence: int, grace_s: float) -> None:
        if runner in self._runners:
            self._runners[runner].stop_task(sequence, grace_s)

    def take_back(self, runner: int, sequences: Sequence[int]) -> None:
        if runner in self._runners:
            self._runners[runner].take_back(sequences)

    def retire(self, runner: int) -> None:
        if runner in self._runners:
            self._runners[runner].die("it exited with code 0", killed=False)

    def kill(self, runner: int) -> None:
        if runner in self._runners:
            self._runners[runner].die("it was ended by SIGKILL", killed=True)

    async def close(self) -> None:
        self.kill_all()

    def kill_all(self) -> None:
        """All runners are dead when this returns, and nobody is told."""
        self._closed = True
        self._tell = _ignore
        for runner in list(self._runners.values()):
            runner.die_now("closed", killed=True)

    def end_all(self, cause: str) -> None:
        """All runners are killed, by someone else than their agent, which is told."""
        for runner in list(self._runners.values()):
            runner.die_now(cause, killed=True)

    def crash(self, runner: int, cause: str = "it was ended by SIGSEGV") -> None:
        """Let a runner die by itself, now."""
        self._runners[runner].die(cause, killed=False)

    @property
    def alive(self) -> list[int]:
        """The numbers of the runners that have not died."""
        return list(self._runners)

    def _on_event(self, event: RunnerEvent) -> None:
        if isinstance(event, RunnerDied):
            self._runners.pop(event.runner, None)
        asyncio.get_running_loop().call_soon(self._deliver, event, context=self._agent)

    def _deliver(self, event: RunnerEvent) -> None:
        self._tell(event)


class VirtualRunner:
    """One runner: executes what it was fed, one task after the other."""

    def __init__(
        self,
        number: int,
        functions: Mapping[str, Simulated],
        executed: list[tuple[str, str, int, int]],
        spans: list[Span],
        *,
        tell: Callable[[RunnerEvent], None],
        outputs: OutputBuffer,
        context: Context,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._outputs = outputs
        self._context = context
        self._number = number
        self._functions = functions
        self._executed = executed
        self._spans = spans
        self._span: Span | None = None
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Attempt] = deque()
        self._directory: str | None = None
        self._done = 0
        self._begun = 0
        self._skipped: set[int] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._dead = False

    def start(self, after_s: float) -> None:
        self._later(after_s, self._say, RunnerReady(runner=self._number))

    def feed(self, directory: str, attempts: Sequence[Attempt]) -> None:
        assert self._directory in (None, directory), "a runner has one directory for its life"
        self._directory = directory
        idle = not self._queue
        self._queue.extend(attempts)
        if idle:
            self._soon(self._begin)

    def stop_task(self, sequence: int, grace_s: float) -> None:
        if sequence <= self._done:
            return
        if sequence > self._begun:
            self._skipped.add(sequence)
            self._soon(self._say, TaskSkipped(runner=self._number, sequence=sequence))
            return
        self._interrupt(grace_s)

    def _interrupt(self, grace_s: float) -> None:
        """Ask the task under way to stop. Simulated code does at once, like code that does not catch it."""
        self._soon(self._end, Ending.STOPPED, 0.0)
        self._soon(self.die_now, "it exited with code 0", False)

    def take_back(self, sequences: Sequence[int]) -> None:
        unbegun = [each for each in sequences if each > self._begun]
        self._skipped.update(unbegun)
        if unbegun:
            self._soon(self._say, TasksTakenBack(runner=self._number, sequences=unbegun))

    def die(self, cause: str, *, killed: bool) -> None:
        self._soon(self.die_now, cause, killed)

    def _say(self, event: RunnerEvent) -> None:
        if not self._dead:
            self._tell(event)

    def _begin(self) -> None:
        while self._queue and self._done + 1 in self._skipped and not self._dead:
            self._finish(Ending.SKIPPED, 0.0)
        busy = self._begun > self._done  # fed again from within the report of a result
        if self._dead or not self._queue or busy:
            return
        attempt = self._queue[0]
        self._begun = sequence = self._done + 1
        self._executed.append(
            (attempt.spec.function, attempt.execution_id, attempt.task_number, attempt.attempt_number)
        )
        self._span = Span(
            execution_id=attempt.execution_id,
            task_number=attempt.task_number,
            attempt_number=attempt.attempt_number,
            began_s=self._loop.time(),
        )
        self._spans.append(self._span)
        self._cancel_timers()
        self._perform(attempt, sequence)

    def _perform(self, attempt: Attempt, sequence: int) -> None:
        """Execute a task that has just begun; `_end` or `die_now` follows."""
        duration_s, scripted = self._call(attempt)
        if duration_s >= RUNNING_AFTER_S:
            self._later(RUNNING_AFTER_S, self._say, TaskRunning(runner=self._number, sequence=sequence))
        if attempt.spec.timeout_s is not None and attempt.spec.timeout_s < duration_s:
            self._later(attempt.spec.timeout_s, self._say, TaskOverdue(runner=self._number, sequence=sequence))
        if isinstance(scripted, Value) and scripted.prints:
            output = self._outputs.open(attempt)
            for place, line in enumerate(scripted.prints, 1):
                self._later(duration_s * place / (len(scripted.prints) + 1), self._print, output, line)
        if duration_s == float("inf"):
            return
        match scripted:
            case Died():
                self._later(duration_s, self.die_now, scripted.cause, False)
            case _:
                self._later(duration_s, self._end, outcome_of(scripted), duration_s)

    def _call(self, attempt: Attempt) -> tuple[float, Scripted]:
        arguments = json.loads(attempt.arguments)
        for extra in attempt.extras:
            parts = dict(extra.parts)
            value: Any = json.loads(extra.data) if "json" in extra.content_type else extra.data
            if extra.content_type.startswith("application/vnd.nodeflow.manifest"):
                value = [
                    json.loads(parts[each["artifact"]["digest"]]) if "artifact" in each else each["value"]
                    for each in value
                ]
            arguments[extra.parameter] = value
        return self._functions[attempt.spec.function](arguments, attempt.attempt_number)

    def _print(self, output: AttemptOutput, line: str) -> None:
        output.write(Stream.STDOUT, f"{line}\n".encode(), self._clock.now_ms())

    def _later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        self._timers.append(self._loop.call_later(delay_s, call, *arguments, context=self._context))

    def _soon(self, call: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon(call, *arguments, context=self._context)

    def _end(self, outcome: Outcome, duration_s: float) -> None:
        if self._dead or self._begun != self._done + 1:
            return
        self._finish(outcome, duration_s)
        if outcome is not Ending.STOPPED:
            self._begin()

    def _finish(self, outcome: Outcome, duration_s: float) -> None:
        attempt = self._queue.popleft()
        self._done += 1
        self._end_span()
        self._cancel_timers()
        # As the real one: what was stopped or never begun says nothing about how long the function takes.
        spent = [] if isinstance(outcome, Ending) else [(attempt.spec.function, 1, duration_s)]
        self._say(RunnerResults(runner=self._number, outcomes=[outcome], spent=spent))

    def die_now(self, cause: str, killed: bool) -> None:
        """End, in the middle of whatever is executed."""
        if self._dead:
            return
        self._end_span()
        self._cancel_timers()
        event = RunnerDied(runner=self._number, last_started=self._begun, cause=cause, killed=killed)
        self._dead = True
        self._tell(event)

    def _end_span(self) -> None:
        if self._span is not None:
            self._span.ended_s, self._span = self._loop.time(), None

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _ignore(_event: RunnerEvent) -> None:
    """Before anyone listens, and after the end."""


def outcome_of(scripted: Scripted) -> Outcome:
    """What a script means to the worker."""
    match scripted:
        case Value(bytes() as data):
            return Stored(content_type="application/octet-stream", data=data)
        case Value(value):
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        case Raised():
            return Failure(
                kind=FailureKind.USER,
                reason="FUNCTION_RAISED",
                message=scripted.message,
                retryable=True,
                error_type=scripted.error_type,
            )
        case Died():
            raise AssertionError("a death is no outcome")
