"""Real runner processes under a real core, without a worker-manager: feeds attempts and collects how they end."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nodeflow_worker.adapters.runner_process import RunnerProcesses
from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.output import Chunk, OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt, Outcome, TaskSpec


class Lab:
    """A worker without its stream. Functions come from files that `write` puts into the lab's directory."""

    def __init__(
        self,
        directory: Path,
        *,
        slots: int = 1,
        paths: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        attempt_limit_bytes: int = 64 << 20,
    ) -> None:
        self.directory = directory
        self.agent = Agent(slots=slots, max_credits=10_000)
        self.agent.bid.credits = 10_000
        self.agent.handle(events.BeatSent(beat=1), 0.0)
        self.runners = RunnerProcesses(paths, os.environ if environment is None else environment)
        self.outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=attempt_limit_bytes)
        self.outputs.on_added = self._deliver
        self.delivers = True
        """Whether output is taken as soon as it is there."""
        self.chunks: list[Chunk] = []
        self.seen: list[events.Event] = []
        self.running: list[Attempt] = []
        self._changed = asyncio.Event()
        self._tasks = 0

    async def __aenter__(self) -> Self:
        self.runners.capture(self.outputs)
        self.runners.listen(self.handle)
        self.handle(events.Started())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.runners.close()

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def attempt(
        self, function: str, arguments: bytes = b"{}", *, timeout_s: float | None = None, directory: str | None = None
    ) -> Attempt:
        self._tasks += 1
        folder = str(self.directory) if directory is None else directory
        spec = TaskSpec(tenant="t", function=function, directory=folder, timeout_s=timeout_s)
        return Attempt("e", self._tasks, 1, 1, 1, spec, arguments)

    async def run(self, *attempts: Attempt) -> list[Outcome | None]:
        """Assign attempts and wait until all have ended."""
        self.handle(events.Assigned(attempts=attempts))
        await self.until(lambda: all(each.outcome is not None for each in attempts))
        return [each.outcome for each in attempts]

    async def call(self, function: str, arguments: bytes = b"{}", *, timeout_s: float | None = None) -> Outcome | None:
        """Run one attempt of a function."""
        [outcome] = await self.run(self.attempt(function, arguments, timeout_s=timeout_s))
        return outcome

    async def warm(self, function: str) -> None:
        """Have the function measured, so that it is fed in batches."""
        await self.call(function)

    async def known_as_quick(self, function: str, arguments: bytes) -> None:
        """Have the function measured so often that the import of its module counts no more."""
        for _ in range(20):
            await self.call(function, arguments)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at after each event."""
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def until_running(self, attempt: Attempt) -> None:
        """Wait until a runner was seen busy with an attempt."""
        await self.until(lambda: attempt in self.running)

    def cancel(self, attempt: Attempt, grace_s: float) -> None:
        """Ask for an attempt's cancellation."""
        self.handle(events.CancelRequested(keys=[attempt.key], grace_s=grace_s))

    async def lines(self, attempt: Attempt) -> list[tuple[Stream, str]]:
        """All that an attempt wrote by now, as lines."""
        await self.until(self.runners.drain_output)
        return [
            (run.stream, line)
            for chunk in self.chunks
            if chunk.attempt is attempt
            for run in chunk.runs
            for line in run.text.split("\n")
        ]

    def deliver(self) -> None:
        """Take output from now on."""
        self.delivers = True
        self._deliver()

    def _deliver(self) -> None:
        while self.delivers and (batch := self.outputs.take()):
            self.chunks += batch.chunks
            self.outputs.acknowledge(batch.batch_id)
        self._changed.set()

    def pids(self) -> list[int]:
        """The processes of the runners that live."""
        return [each._popen.pid for each in self.runners._processes.values()]

    def deaths(self) -> list[events.RunnerDied]:
        """What was told of runners that died."""
        return [each for each in self.seen if isinstance(each, events.RunnerDied)]

    def handle(self, event: events.Event) -> None:
        """Take in an event, as the driver does."""
        self.seen.append(event)
        for order in self.agent.handle(event, asyncio.get_running_loop().time()):
            self._carry_out(order)
        self._changed.set()

    def _carry_out(self, order: do.Instruction) -> None:
        match order:
            case do.Spawn():
                self.runners.spawn(order.runner, order.delay_s)
            case do.Feed():
                self.runners.feed(order.runner, order.directory, order.attempts)
            case do.StopTask():
                self.runners.stop_task(order.runner, order.sequence, order.grace_s)
            case do.TakeBack():
                self.runners.take_back(order.runner, order.sequences)
            case do.Retire():
                self.runners.retire(order.runner)
            case do.Kill():
                self.runners.kill(order.runner)
            case do.Save():
                self.handle(events.Saved(attempt=order.attempt, value=order.value))
            case do.Report():
                self.running += order.started
            case do.TellBid():
                pass
            case _:
                raise AssertionError(order)
