"""Processes on virtual time: the worker's port `Processes` inside the test's own process and loop.

Owns durations and outcomes as a test scripts them. The first word of a command names an entry of `programs`: a callable
that is given the task's arguments and the attempt's number, and says how long the process runs and how it ends.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Final

from nodeflow_shared.clock import Clock
from nodeflow_testing.lives import end_if_dead
from nodeflow_testing.machine_clock import MachineClock
from nodeflow_testing.virtual_runners import Died, Scripted, Simulated, Span, Value, VirtualRunners, outcome_of
from nodeflow_worker.domain.events import ProcessEnded, ProcessEvent, ProcessIdentified, ProcessOverdue, ProcessRunning
from nodeflow_worker.domain.output import AttemptOutput, OutputBuffer, Stream
from nodeflow_worker.domain.process_ends import ProcessExit, failure_of
from nodeflow_worker.domain.values import Attempt, Ending, Outcome, ProcessIdentity

RUNNING_AFTER_S: Final = 0.005
IDENTIFIED_AFTER_S: Final = 0.25


class ScriptedProcesses:
    """The port `Processes`. `executed` has (program, execution_id, task_number, attempt_number) of each that began.

    `spans` has the same with their times. The guard ends `runners` with them.
    """

    def __init__(
        self,
        programs: Mapping[str, Simulated],
        context: Context | None = None,
        *,
        runners: VirtualRunners | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._programs = programs
        self._runners = runners
        self._clock = clock or MachineClock()
        self._outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=1 << 20)
        self._context = context or Context()
        """Whose callbacks those of processes are: not their agent's, which may be paused while they work."""
        self._agent = Context()
        self._tell: Callable[[ProcessEvent], None] = _ignore
        self._running: dict[Attempt, tuple[Span, list[asyncio.TimerHandle]]] = {}
        self._last_pid = 0
        self._guard: asyncio.TimerHandle | None = None
        self.executed: list[tuple[str, str, int, int]] = []
        self.spans: list[Span] = []

    def listen(self, tell: Callable[[ProcessEvent], None]) -> None:
        self._tell = tell
        self._agent = copy_context()

    def capture(self, outputs: OutputBuffer) -> None:
        self._outputs = outputs

    def drain_output(self) -> bool:
        return True  # there are no pipes: what is printed is in the buffer at once

    def start(self, attempt: Attempt) -> None:
        end_if_dead()
        loop = asyncio.get_running_loop()
        arguments = json.loads(attempt.arguments)
        program = arguments["command"][0]
        self.executed.append((program, attempt.execution_id, attempt.task_number, attempt.attempt_number))
        span = Span(
            execution_id=attempt.execution_id,
            task_number=attempt.task_number,
            attempt_number=attempt.attempt_number,
            began_s=loop.time(),
        )
        self.spans.append(span)
        duration_s, scripted = self._programs[program](arguments, attempt.attempt_number)
        self._last_pid += 1
        identity = ProcessIdentity(pid=self._last_pid, start_ticks=round(span.began_s * 100))
        timers = [
            self._later(RUNNING_AFTER_S, self._say, ProcessRunning(attempt=attempt)),
            self._later(IDENTIFIED_AFTER_S, self._say, ProcessIdentified(attempt=attempt, process=identity)),
        ]
        if attempt.spec.timeout_s is not None:
            timers.append(self._later(attempt.spec.timeout_s, self._say, ProcessOverdue(attempt=attempt)))
        if duration_s < float("inf"):
            timers.append(self._later(duration_s, self._end, attempt, _outcome(scripted, attempt)))
            if isinstance(scripted, Value) and scripted.prints:
                output = self._outputs.open(attempt)
                for place, line in enumerate(scripted.prints, 1):
                    when_s = duration_s * place / (len(scripted.prints) + 1)
                    timers.append(self._later(when_s, self._print, output, line))
        self._running[attempt] = (span, timers)

    def _later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, call, *arguments, context=self._context)

    def _print(self, output: AttemptOutput, line: str) -> None:
        output.write(Stream.STDOUT, f"{line}\n".encode(), self._clock.now_ms())

    def stop(self, attempt: Attempt, grace_s: float) -> None:
        self.kill(attempt)

    def kill(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_soon(self._end, attempt, Ending.STOPPED, context=self._context)

    def discard(self, attempt: Attempt) -> None:
        """They leave no files."""

    def guard(self, until: float) -> None:
        """End everything then, as the launcher does."""
        if self._guard is not None:
            self._guard.cancel()
        self._guard = asyncio.get_running_loop().call_at(until, self._end_lease, context=self._context)

    async def end_left(self, noted: Sequence[ProcessIdentity]) -> None:
        """There is nothing: the launcher ends all when its agent dies."""

    async def close(self) -> None:
        self.kill_all()

    def kill_all(self) -> None:
        """All have ended when this returns, and nobody is told."""
        self._tell = _ignore
        if self._guard is not None:
            self._guard.cancel()
        for attempt in list(self._running):
            self._end(attempt, Ending.STOPPED)

    def _end_lease(self) -> None:
        for attempt in list(self._running):
            self._end(attempt, _killed(attempt))
        if self._runners is not None:
            self._runners.end_all("it was ended by SIGKILL")

    def _say(self, event: ProcessEvent) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, event, context=self._agent)

    def _deliver(self, event: ProcessEvent) -> None:
        self._tell(event)

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        running = self._running.pop(attempt, None)
        if running is None:
            return
        span, timers = running
        for timer in timers:
            timer.cancel()
        span.ended_s = asyncio.get_running_loop().time()
        self._say(ProcessEnded(attempt=attempt, outcome=outcome, spent_s=span.ended_s - span.began_s))


def _outcome(scripted: Scripted, attempt: Attempt) -> Outcome:
    return _killed(attempt) if isinstance(scripted, Died) else outcome_of(scripted)


def _killed(attempt: Attempt) -> Outcome:
    assert attempt.spec.process is not None, "only processes are started here"
    failure = failure_of(ProcessExit(code=-9), attempt.spec.process)
    assert failure is not None, "a signal is a failure"
    return failure


def _ignore(_event: ProcessEvent) -> None:
    """Before anyone listens, and after the end."""
