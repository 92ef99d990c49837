"""Runners that call the real functions of workflows, in this process and on virtual time.

Owns the life of a task here: found, called or stubbed, stopped, overdue. All else is as in `virtual_runners`.
"""

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

from nodeflow_shared.clock import LoopClock
from nodeflow_testing.python_calls import Sink, Stubs, outcome_of_call
from nodeflow_testing.virtual_runners import RUNNING_AFTER_S, Span, VirtualRunner, VirtualRunners
from nodeflow_worker.adapters.runner_words import extras_of, outcome_of
from nodeflow_worker.domain.events import RunnerEvent, TaskOverdue, TaskRunning
from nodeflow_worker.domain.output import AttemptOutput, OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt, Ending, Outcome
from nodeflow_worker.runner import describe
from nodeflow_worker.runner.frames import Failed
from nodeflow_worker.runner.functions import Functions
from nodeflow_worker.runner.values import read_arguments

Abort = Callable[[BaseException], None]


class PythonRunners(VirtualRunners):
    """The port `Runners`. `abort` is told of what ends the whole run: Ctrl-C, or a test that fails inside of a node."""

    def __init__(self, stubs: Stubs, abort: Abort, *, context: Context, clock: LoopClock) -> None:
        super().__init__({}, start_s=0.0, context=context, clock=clock)
        self._stubs = stubs
        self._abort = abort
        self._wall = clock

    def _hired(self, runner: int) -> VirtualRunner:
        return _PythonRunner(
            runner,
            self._stubs,
            self._abort,
            self.executed,
            self.spans,
            tell=self._on_event,
            outputs=self._outputs,
            context=self._context,
            clock=self._wall,
        )


class _PythonRunner(VirtualRunner):
    """One runner."""

    def __init__(
        self,
        number: int,
        stubs: Stubs,
        abort: Abort,
        executed: list[tuple[str, str, int, int]],
        spans: list[Span],
        *,
        tell: Callable[[RunnerEvent], None],
        outputs: OutputBuffer,
        context: Context,
        clock: LoopClock,
    ) -> None:
        super().__init__(number, {}, executed, spans, tell=tell, outputs=outputs, context=context, clock=clock)
        self._stubs = stubs
        self._abort = abort
        self._wall = clock
        self._work: asyncio.Task[None] | None = None
        self._stopping = False

    def _perform(self, attempt: Attempt, sequence: int) -> None:
        self._later(RUNNING_AFTER_S, self._say, TaskRunning(runner=self._number, sequence=sequence))
        if attempt.spec.timeout_s is not None:
            self._later(attempt.spec.timeout_s, self._say, TaskOverdue(runner=self._number, sequence=sequence))
        # Held in a field; it tells its end itself.
        self._work = self._loop.create_task(
            self._worked(attempt), name=f"runner {self._number}", context=self._context.copy()
        )

    def _interrupt(self, grace_s: float) -> None:
        self._stopping = True
        if self._work is not None:
            self._work.cancel()
        self._later(grace_s, self.die_now, "it was ended by SIGKILL", True)

    def die_now(self, cause: str, killed: bool) -> None:
        if self._work is not None:
            self._work.cancel()
        super().die_now(cause, killed)

    async def _worked(self, attempt: Attempt) -> None:
        output = OutputOf(self._outputs, attempt, self._wall)
        began_s = self._loop.time()
        outcome: Outcome
        try:
            outcome = await self._outcome(attempt, output.write)
        except asyncio.CancelledError:
            if not self._stopping or self._dead:
                raise
            outcome = Ending.STOPPED
        except BaseException as error:  # noqa: BLE001  # it ends the run, and is raised there
            self._abort(error)
            return
        output.end()
        self._work = None
        self._end(outcome, self._loop.time() - began_s)
        if outcome is Ending.STOPPED:
            self.die_now("it exited with code 0", False)

    async def _outcome(self, attempt: Attempt, sink: Sink) -> Outcome:
        spec = attempt.spec
        stub = self._stubs.of(spec)
        if stub is not None:
            await asyncio.sleep(stub.takes_s)
            function = stub.function
        else:
            found = found_function(spec.function, spec.directory)
            if isinstance(found, Failed):
                return outcome_of(found)
            function = found
        arguments = read_arguments(attempt.arguments, extras_of(attempt))
        return await outcome_of_call(spec.function, function, arguments, sink, spec.timeout_s)


class OutputOf:
    """The output of one attempt, opened with the first thing that is written; from whatever code writes."""

    def __init__(self, outputs: OutputBuffer, attempt: Attempt, clock: LoopClock) -> None:
        self._outputs = outputs
        self._attempt = attempt
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._opened: AttemptOutput | None = None

    def write(self, stream: Stream, data: bytes) -> None:
        """Take in what was written."""
        if self._opened is None:
            self._opened = self._outputs.open(self._attempt)
        self._opened.write(stream, data, self._now_ms())

    def end(self) -> None:
        """The attempt is over."""
        if self._opened is not None:
            self._opened.end(self._now_ms())

    def _now_ms(self) -> int:
        # Not `now_ms`: plain code writes from where no loop runs.
        return self._clock.at_ms(self._loop.time())


def found_function(name: str, directory: str) -> Callable[..., Any] | Failed:
    """Return what `module:callable` means in this process, at this moment: what a test has put in its place, too."""
    if directory and directory not in sys.path:
        sys.path.insert(0, directory)
    module_name = name.partition(":")[0]
    loaded = getattr(sys.modules.get(module_name), "__file__", None)
    meant = Path(directory, *module_name.split(".")).with_suffix(".py")
    if directory and isinstance(loaded, str) and meant.exists() and not meant.samefile(loaded):
        return describe.not_found(
            f"{name} means {meant}, but this process has imported {module_name!r} from {loaded} already; "
            "give one of both files another name"
        )
    return Functions().find(name)
