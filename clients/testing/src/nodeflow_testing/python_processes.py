"""Processes on virtual time: stubbed, or refused with a word on how to stub them, for nothing real can run there.

Owns the port `Processes` for that. Must not start anything.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from nodeflow_shared.clock import LoopClock
from nodeflow_testing.python_calls import Stubs, outcome_of_call
from nodeflow_testing.python_runners import Abort, OutputOf
from nodeflow_worker.domain.events import ProcessEnded, ProcessEvent, ProcessOverdue, ProcessRunning
from nodeflow_worker.domain.output import OutputBuffer
from nodeflow_worker.domain.values import Attempt, Ending, Failure, FailureKind, Key, Outcome, ProcessIdentity

NOT_STUBBED: Final = "PROCESS_NOT_STUBBED"
RUNNING_AFTER_S: Final = 0.002


class PythonProcesses:
    """The port `Processes`. A stub is given `command`, `env` and `stdin`, and returns the output."""

    def __init__(self, stubs: Stubs, abort: Abort, clock: LoopClock) -> None:
        self._stubs = stubs
        self._abort = abort
        self._clock = clock
        self._tell: Callable[[ProcessEvent], None] = _ignore
        self._outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=1 << 20)
        self._running: dict[Key, asyncio.Task[None]] = {}

    def listen(self, tell: Callable[[ProcessEvent], None]) -> None:
        self._tell = tell

    def capture(self, outputs: OutputBuffer) -> None:
        self._outputs = outputs

    def drain_output(self) -> bool:
        return True  # there are no pipes

    def start(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        self._running[attempt.key] = loop.create_task(self._worked(attempt), name=f"process of {attempt.spec.node}")

    def stop(self, attempt: Attempt, grace_s: float) -> None:
        self.kill(attempt)

    def kill(self, attempt: Attempt) -> None:
        running = self._running.get(attempt.key)
        if running is not None:
            running.cancel()

    def discard(self, attempt: Attempt) -> None:
        """Do nothing: stubs leave no files."""

    def guard(self, until: float) -> None:
        """Do nothing: stubs stand still with us."""

    async def end_left(self, noted: Sequence[ProcessIdentity]) -> None:
        """Do nothing: stubs end with their worker."""

    async def close(self) -> None:
        self._tell = _ignore
        for running in list(self._running.values()):
            running.cancel()

    async def _worked(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        timers = [loop.call_later(RUNNING_AFTER_S, self._say, ProcessRunning(attempt=attempt))]
        if attempt.spec.timeout_s is not None:
            timers.append(loop.call_later(attempt.spec.timeout_s, self._say, ProcessOverdue(attempt=attempt)))
        output = OutputOf(self._outputs, attempt, self._clock)
        try:
            outcome = await self._outcome(attempt, output)
        except asyncio.CancelledError:
            outcome = Ending.STOPPED
        except BaseException as error:  # noqa: BLE001  # it ends the run, and is raised there
            self._abort(error)
            return
        finally:
            for timer in timers:
                timer.cancel()
        output.end()
        del self._running[attempt.key]
        # Later, and never from within a call, as the port says.
        loop.call_soon(
            partial(self._say, ProcessEnded(attempt=attempt, outcome=outcome, spent_s=loop.time() - began_s))
        )

    async def _outcome(self, attempt: Attempt, output: OutputOf) -> Outcome:
        stub = self._stubs.of(attempt.spec)
        if stub is None:
            return _not_stubbed(attempt.spec.node)
        await asyncio.sleep(stub.takes_s)
        return await outcome_of_call(
            f"the stub of {attempt.spec.node}", stub.function, _given(attempt), output.write, attempt.spec.timeout_s
        )

    def _say(self, event: ProcessEvent) -> None:
        self._tell(event)


def _given(attempt: Attempt) -> dict[str, Any]:  # Any: JSON of the user's
    """Return what a process is started with, as far as a node says it."""
    given = json.loads(attempt.arguments or b"{}")
    stdin = next((each.data.decode() for each in attempt.extras if each.parameter == "stdin"), given.get("stdin"))
    return {"command": given.get("command", []), "env": given.get("env", {}), "stdin": stdin}


def _not_stubbed(node: str) -> Failure:
    message = (
        f"node {node} runs a process, which nothing can do on virtual time; "
        f'say what it gives: nodeflow.stub("{node}", returns=…)'
    )
    return Failure(kind=FailureKind.PERMANENT, reason=NOT_STUBBED, message=message, retryable=False)


def _ignore(_event: ProcessEvent) -> None:
    """Before anyone listens, and after the end."""
