"""The processes of the virtual suite: their start, their stop in order, and their end in the middle of what they do.

Owns what one process is to the loop and to the network, and what of a worker outlives it. Must not know which service
it is.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from math import inf
from typing import Final, TypeVar

import nodeflow_worker.bootstrap
import nodeflow_worker.config
from nodeflow_shared.server import Service
from nodeflow_testing.lives import Life
from nodeflow_testing.loopback import LoopbackNetwork, LoopbackServer
from nodeflow_testing.machine_clock import MachineClock
from nodeflow_testing.memory_journal import Kept, MemoryJournal
from nodeflow_testing.memory_sessions import MemorySessions
from nodeflow_testing.scripted_processes import ScriptedProcesses
from nodeflow_testing.virtual_loop import VirtualLoop
from nodeflow_testing.virtual_runners import Span, VirtualRunners
from nodeflow_worker.ports import Processes

T = TypeVar("T")
Builder = Callable[[], Coroutine[None, None, Service]]

DRAIN_TIMEOUT_S: Final = 5.0

WORKER_MANAGER: Final = "worker-manager"
WORKER: Final = "worker"
"""Any of them."""


def address_of(name: str) -> str:
    """Return where a process listens, and how the network names it."""
    return f"{name}:7420"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What one life of a worker executes tasks with; without `processes`, those of this machine."""

    runners: VirtualRunners
    processes: Processes | None = None


Equip = Callable[[Context, MachineClock], Equipment]
"""(the context of the runners' callbacks, the worker's clock) → its equipment, for each life anew."""


class WorkerMachine:
    """What outlives a worker's process: which of its sessions are dead, their journals, and what was executed."""

    def __init__(self, number: int, equip: Equip, slots: int, loop: VirtualLoop) -> None:
        self._number = number
        self._equip = equip
        self._slots = slots
        self._loop = loop
        self._sessions: MemorySessions | None = None
        self._kept = Kept()
        self._journal = MemoryJournal(self._kept)
        self.life = Life(loop)
        """The runners' life, not the agent's: a paused agent's runners go on."""
        self.lives: list[VirtualRunners] = []
        self.processes: list[ScriptedProcesses] = []
        self._standstills: list[tuple[float, float]] = []

    @property
    def spans(self) -> list[Span]:
        """What was at work when, in all lives; not while the machine stood still."""
        return [each for life in self.executors for span in life.spans for each in self._at_work(span)]

    def builder(
        self, name: str, network: LoopbackNetwork, clock: MachineClock, settings: Mapping[str, object]
    ) -> Builder:
        """Return what builds the worker for its next life, with these settings beside its own."""

        async def build() -> Service:
            usual = nodeflow_worker.config.Settings(
                worker_manager=address_of(WORKER_MANAGER), worker_id=name, slots=self._slots
            )
            dead = self._sessions.left_behind() if self._sessions is not None else ()
            self._sessions = MemorySessions(self._number * 0x100 + len(self.lives), dead)
            self.life = Life(self._loop)
            equipment = self._equip(self.life.context, clock)
            self.lives.append(equipment.runners)
            if isinstance(equipment.processes, ScriptedProcesses):
                self.processes.append(equipment.processes)
            self._journal = MemoryJournal(self._kept)
            return await nodeflow_worker.bootstrap.build(
                usual.model_copy(update=settings),
                connect=network.connector(address_of(name)),
                clock=clock,
                runners=equipment.runners,
                processes=equipment.processes,
                sessions=self._sessions,
                journal=self._journal,
            )

        return build

    def crash(self) -> None:
        """Runners and processes die with their agent."""
        self.resume()
        self.life.end()
        self.lives[-1].kill_all()
        for each in self.processes[-1:]:
            each.kill_all()
        self._journal.crash()

    @property
    def executors(self) -> Sequence[VirtualRunners | ScriptedProcesses]:
        """What has executed tasks, in all lives."""
        return [*self.lives, *self.processes]

    def pause(self) -> None:
        """Runners and processes stand still."""
        self.life.pause()
        self._standstills.append((self._loop.time(), inf))

    def resume(self) -> None:
        """They go on."""
        if self.life.paused:
            self._standstills[-1] = (self._standstills[-1][0], self._loop.time())
            self.life.resume()

    def _at_work(self, span: Span) -> Iterator[Span]:
        """Cut out of a span when its machine stood still; what ends as soon as that is over was not at work again."""
        for began_s, ended_s in self._standstills:
            if span.began_s == span.ended_s == ended_s:
                return
            if span.began_s < ended_s and began_s < span.ended_s:
                yield replace(span, ended_s=began_s)
                if span.ended_s <= ended_s:
                    return
                span = replace(span, began_s=ended_s)
        yield span


class Process:
    """One simulated process."""

    def __init__(self, name: str, network: LoopbackNetwork, loop: VirtualLoop, build: Builder) -> None:
        self._name = name
        self._address = address_of(name)
        self._network = network
        self._loop = loop
        self._build = build
        self._service: Service | None = None
        self._server: LoopbackServer | None = None
        self._run: asyncio.Task[None] | None = None
        self._remains: asyncio.Task[None] | None = None
        self.life = Life(loop)
        self.drained = True
        """Whether every stop in order was over in time."""

    @property
    def running(self) -> bool:
        """Whether it was started, and neither killed nor stopped."""
        return self._run is not None

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Build, listen and run."""
        assert self._run is None, f"{self._name} runs already"
        await self.gone()
        self.life = Life(self._loop)
        self._service = service = await self._within(self._build())
        self._server = self._network.listen(self._address, self.life.context)
        service.register(self._server)
        run = _run(service, self.life)
        self._run = group.create_task(run, name=f"{self._name}.run", context=self.life.context.copy())

    async def ready(self) -> None:
        """Wait until calls can be answered."""
        assert self._service is not None, f"{self._name} does not run"
        await self._service.ready.wait()

    def pause(self) -> None:
        """Hold all that it does, as SIGSTOP."""
        assert self._run is not None, f"{self._name} does not run"
        self._network.pause(self._address)
        self.life.pause()

    def resume(self) -> None:
        """Go on, as SIGCONT."""
        self._network.resume(self._address)
        self.life.resume()

    def kill(self) -> None:
        """End at once. What its tasks still do while they are cancelled reaches nobody; see `gone`."""
        assert self._run is not None, f"{self._name} does not run"
        self.life.end()
        self._network.kill(self._address)
        self._remains, self._run, self._service, self._server = self._run, None, None, None
        self._remains.cancel()

    async def ended(self) -> None:
        """Wait until it was killed or has ended."""
        if self._run is not None:
            await asyncio.wait([self._run])

    async def gone(self) -> None:
        """Wait until nothing of a killed life runs any more."""
        if self._remains is not None:
            await asyncio.wait([self._remains])
            self._remains = None

    async def stop(self) -> None:
        """End in the order of `nodeflow_shared.server`."""
        if self._run is None or self._service is None or self._server is None:
            return
        run, service, server = self._run, self._service, self._server
        self._run, self._service, self._server = None, None, None
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._within(service.drain())
                await asyncio.wait([run])
        except TimeoutError:
            self.drained = False
        await server.stop(None)
        run.cancel()
        await asyncio.wait([run])
        await self._within(service.close())

    def _within(self, work: Coroutine[None, None, T]) -> "asyncio.Task[T]":
        """Have something done as this process does it."""
        return self._loop.create_task(work, context=self.life.context.copy())


async def _run(service: Service, life: Life) -> None:
    try:
        await service.run()
    except Exception:
        if not life.ended:  # what a dying process says of its end is nobody's concern
            raise
