"""Real processes under a real core, without a worker-manager: assigns attempts and collects how they end."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from nodeflow_shared.errors import NotFound
from nodeflow_worker.adapters import local_processes
from nodeflow_worker.adapters.local_processes import LocalProcesses
from nodeflow_worker.adapters.session_journal import SessionJournal
from nodeflow_worker.adapters.working_trees import WorkingTrees
from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.output import OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt, Failure, Limits, Outcome, ProcessSpec, Stored, TaskSpec


class ProcessLab:
    """A worker without its stream and without runners; `stored` has the bytes of artifacts by their names."""

    def __init__(self, directory: Path, *, slots: int = 2, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.agent = Agent(slots=slots, max_credits=1_000)
        self.agent.bid.credits = 1_000
        self.agent.handle(events.BeatSent(beat=1), 0.0)
        self.output: list[tuple[Stream, str]] = []
        """All lines that were written."""
        self.stored: dict[str, bytes] = {}
        self.running: list[Attempt] = []
        self.processes = LocalProcesses(
            directory / "state",
            os.environ if environment is None else environment,
            WorkingTrees(self._download),
        )
        self.journal = SessionJournal(directory / "journal")
        (directory / "journal").mkdir(exist_ok=True)
        self.outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=64 << 20)
        self.outputs.on_added = self.deliver
        self.delivers = True
        """Whether output is taken as soon as it is there."""
        self._changed = asyncio.Event()
        self._tasks = 0

    async def __aenter__(self) -> Self:
        self.processes.capture(self.outputs)
        self.processes.listen(self.handle)
        self.journal.listen(self.handle)
        self.journal.begin("lab")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.processes.close()
        await self.journal.close()
        assert list((self.directory / "state").glob("*")) == []

    def deliver(self) -> None:
        """Take output, if it is to be taken."""
        while self.delivers and (batch := self.outputs.take()):
            runs = [run for chunk in batch.chunks for run in chunk.runs]
            self.output += [(run.stream, line) for run in runs for line in run.text.split("\n")]
            self.outputs.acknowledge(batch.batch_id)

    async def _download(self, tenant: str, digest: str, path: str) -> None:
        assert tenant == "t"
        if digest not in self.stored:
            raise NotFound(f"there is no artifact {digest}")
        await asyncio.to_thread(Path(path).write_bytes, self.stored[digest])

    # Any: JSON of a document.
    def attempt(
        self,
        command: Sequence[Any] = (),
        *,
        script: str = "",
        artifacts: tuple[str, ...] = (),
        limits: Limits | None = None,
        filled: bool = False,
        timeout_s: float | None = None,
        **arguments: Any,
    ) -> Attempt:
        self._tasks += 1
        process = ProcessSpec(script=script, artifacts=artifacts, limits=limits or Limits(), filled=filled)
        spec = TaskSpec(
            tenant="t",
            workflow="w",
            node="n",
            directory=str(self.directory),
            timeout_s=timeout_s,
            process=process,
        )
        given = {**({"command": list(command)} if command else {}), **arguments}
        return Attempt("e", self._tasks, 1, 1, 1, spec, json.dumps(given).encode())

    async def run(self, *attempts: Attempt) -> list[Outcome | None]:
        """Assign attempts and wait until all have ended."""
        self.assign(*attempts)
        await self.until(lambda: all(each.outcome is not None for each in attempts))
        return [each.outcome for each in attempts]

    async def outcome(self, command: Sequence[Any] = (), **more: Any) -> Outcome | None:
        """How one attempt ends; the arguments are those of `attempt`."""
        [outcome] = await self.run(self.attempt(command, **more))
        return outcome

    async def failure(self, command: Sequence[Any] = (), **more: Any) -> Failure:
        """How one attempt fails."""
        outcome = await self.outcome(command, **more)
        assert isinstance(outcome, Failure), outcome
        return outcome

    def assign(self, *attempts: Attempt) -> None:
        self.handle(events.Assigned(attempts=attempts))

    def cancel(self, attempt: Attempt, grace_s: float) -> None:
        self.handle(events.CancelRequested(keys=[attempt.key], grace_s=grace_s))

    def printed(self, stream: int = 1) -> str:
        """All lines that processes wrote to a stream, without the end of the last."""
        return "\n".join(line for each, line in self.output if each == stream)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at after each event, and twenty times a second."""
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def handle(self, event: events.Event) -> None:
        """Take in an event, as the driver does."""
        for order in self.agent.handle(event, asyncio.get_running_loop().time()):
            self._carry_out(order)
        self._changed.set()

    def _carry_out(self, order: do.Instruction) -> None:
        match order:
            case do.StartProcess():
                self.processes.start(order.attempt)
            case do.StopProcess():
                self.processes.stop(order.attempt, order.grace_s)
            case do.KillProcess():
                self.processes.kill(order.attempt)
            case do.Discard():
                self.processes.discard(order.attempt)
            case do.Publish():
                found = {file.name: Path(file.path).read_bytes() for file in order.files}
                self.stored.update(found)
                artifacts = tuple((name, Stored(digest=f"sha256:{name}")) for name in found)
                saved = events.Saved(attempt=order.attempt, value=order.value, artifacts=artifacts)
                asyncio.get_running_loop().call_soon(self.handle, saved)
            case do.Save():
                saved = events.Saved(attempt=order.attempt, value=Stored(digest="sha256:o"))
                asyncio.get_running_loop().call_soon(self.handle, saved)
            case do.NoteProcess():
                self.journal.note(order.attempt, order.process)
            case do.Record():
                self.journal.record(order.attempt)
            case do.Forget():
                self.journal.forget(order.attempts)
            case do.Report():
                self.running += order.started
            case do.TellBid() | do.Fetch():
                pass
            case _:
                raise AssertionError(order)


def noted_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> list[threading.Thread]:
    """Have it noted in which threads a function is called."""
    threads: list[threading.Thread] = []
    called = getattr(local_processes, name)

    def call(*arguments: object) -> object:
        threads.append(threading.current_thread())
        return called(*arguments)

    monkeypatch.setattr(local_processes, name, call)
    return threads
