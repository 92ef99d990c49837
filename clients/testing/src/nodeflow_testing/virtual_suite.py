"""All services in one process, on one virtual-time loop, over the loopback network: whole runs without waiting.

Owns the life of the simulated processes: start, crash, restart, stop. Must not know what they say to each other.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Final, Self, TypeVar

from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

import nodeflow_scheduler.bootstrap
import nodeflow_scheduler.config
import nodeflow_state_manager.bootstrap
import nodeflow_state_manager.config
import nodeflow_worker.bootstrap
import nodeflow_worker.config
import nodeflow_worker_manager.bootstrap
import nodeflow_worker_manager.config
from nodeflow_shared.clock import Clock, LoopClock
from nodeflow_shared.server import Service
from nodeflow_testing.lives import Life
from nodeflow_testing.loopback import LoopbackNetwork, LoopbackServer
from nodeflow_testing.memory_sessions import MemorySessions
from nodeflow_testing.memory_store import MemoryArtifactFiles, MemoryStore
from nodeflow_testing.memory_task_logs import MemoryLogStore
from nodeflow_testing.virtual_loop import VirtualLoop
from nodeflow_testing.virtual_runners import Simulated, Span, VirtualRunners

T = TypeVar("T")
Builder = Callable[[], Coroutine[None, None, Service]]

EPOCH_MS: Final = 1_800_000_000_000
DRAIN_TIMEOUT_S: Final = 5.0

STATE_MANAGER: Final = "state-manager"
WORKER_MANAGER: Final = "worker-manager"
SCHEDULER: Final = "scheduler"


def address_of(name: str) -> str:
    """Return where a process listens, and how the network names it."""
    return f"{name}:7420"


class VirtualSuite:
    """`async with VirtualSuite(functions) as suite:` inside `virtual_loop.run`.

    Its processes are named state-manager, worker-manager, scheduler, worker-1, worker-2, …; one that fails by itself
    ends the block with its error. `store`, `files` and `log_store` survive every crash.
    """

    def __init__(
        self,
        functions: Mapping[str, Simulated],
        *,
        workers: int = 2,
        slots: int = 4,
        seed: int = 0,
        shards: int = 64,
        lease_timeout_s: float = 10.0,
        heartbeat_interval_s: float = 2.0,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "simulated processes live on a virtual loop"
        self.faults: Counter[str] = Counter()
        """How often each kind of fault struck."""
        self.clock = LoopClock(EPOCH_MS)
        self.network = LoopbackNetwork(chance=random.Random(f"network {seed}"), faults=self.faults)
        self.store = MemoryStore(shards, self.clock)
        self.files = MemoryArtifactFiles()
        self.log_store = MemoryLogStore()
        self._random = random.Random(seed)
        self._lease_timeout_s = lease_timeout_s
        self._heartbeat_interval_s = heartbeat_interval_s
        self._group = asyncio.TaskGroup()
        self._workers = {
            f"worker-{number}": _WorkerMachine(number, functions, slots, loop) for number in range(1, workers + 1)
        }
        builders: dict[str, Builder] = {
            STATE_MANAGER: self._build_state_manager,
            WORKER_MANAGER: self._build_worker_manager,
            SCHEDULER: self._build_scheduler,
        }
        for name, machine in self._workers.items():
            builders[name] = machine.builder(name, self.network, self.clock)
        self._processes = {name: _Process(name, self.network, loop, build) for name, build in builders.items()}

    @property
    def names(self) -> Sequence[str]:
        """The processes, in the order in which they are started."""
        return tuple(self._processes)

    @property
    def executed(self) -> list[tuple[str, str, int, int]]:
        """(function, execution_id, task_number, attempt_number) of each task that any runner began, by worker."""
        return [each for worker in self._workers.values() for runners in worker.lives for each in runners.executed]

    @property
    def spans(self) -> list[Span]:
        """The same, with their times."""
        return [each for worker in self._workers.values() for runners in worker.lives for each in runners.spans]

    def together(self) -> list[tuple[Span, Span]]:
        """Return what no engine may let happen: spans of one task that overlap, on any workers."""
        spans = sorted(self.spans, key=lambda each: (each.execution_id, each.task_number, each.began_s))
        return [
            (one, other)
            for one, other in pairwise(spans)
            if (one.execution_id, one.task_number) == (other.execution_id, other.task_number)
            and other.began_s < one.ended_s
        ]

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        try:
            await self.start()
        except BaseException:
            await self._group.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):  # which is how a group tells its block that a process failed
            await self._group.__aexit__(kind, error, trace)
            return
        try:
            if error is None:
                await self.stop()
            else:
                await self._kill_all()  # and the error goes on as it is
        except BaseException:
            await self._group.__aexit__(*sys.exc_info())
            raise
        await self._group.__aexit__(None, None, None)

    async def start(self) -> None:
        """Start all processes, and wait until they are ready."""
        for name in self.names:
            await self.restart(name)
        await self.ready(*self.names)

    async def restart(self, name: str) -> None:
        """Start a process that does not run; see `ready`."""
        await self._processes[name].start(self._group)

    async def ready(self, *names: str) -> None:
        """Wait until processes are ready."""
        for name in names:
            await self._processes[name].ready()

    async def kill(self, name: str) -> None:
        """Let a process crash: it ends in the middle of whatever it does, and nothing of it but its store remains."""
        self._crash(name)
        self.faults["kill"] += 1
        await self._processes[name].gone()

    def kill_after(self, name: str, steps: int) -> None:
        """Let a process crash when that many more of its callbacks have run: between any two awaits.

        It comes to nothing if the process ends before; an earlier order for it is forgotten.
        """

        def strike() -> None:
            self._crash(name)
            self.faults["kill_after"] += 1

        assert self.running(name), f"{name} does not run"
        self._processes[name].life.strike_after(steps, strike)

    async def ended(self, name: str) -> None:
        """Wait until a process does not run."""
        await self._processes[name].ended()

    def pause(self, name: str, *, runners: bool = False) -> None:
        """Stop a process as SIGSTOP does: until `resume` it does nothing, and keeps all it has. Its runners go on.

        What is sent to it waits. Who calls it, or is called by it, finds out by deadlines and keepalive alone.
        """
        self._processes[name].pause()
        if runners:
            self._workers[name].life.pause()
        self.faults["pause"] += 1

    def resume(self, name: str) -> None:
        """Let a process go on: all that became due meanwhile happens now, in its order."""
        self._processes[name].resume()
        if name in self._workers:
            self._workers[name].life.resume()

    def paused(self, name: str) -> bool:
        """Whether a process is paused."""
        return self._processes[name].life.paused

    def _crash(self, name: str) -> None:
        if name in self._workers:
            self._workers[name].crash()
        self._processes[name].kill()

    async def drain(self, name: str) -> None:
        """Stop a process in order, as a signal does; one that is paused goes on first."""
        self.resume(name)
        await self._processes[name].stop()

    async def stop(self) -> None:
        """Stop all processes in order: those that depend on others first."""
        for name in reversed(self.names):
            self.resume(name)
            await self._processes[name].stop()

    @property
    def drained(self) -> bool:
        """Whether all that were stopped in order had nothing left to do in time."""
        return all(process.drained for process in self._processes.values())

    async def _kill_all(self) -> None:
        for name, process in self._processes.items():
            if process.running:
                self._crash(name)
                await process.gone()

    def running(self, name: str) -> bool:
        """Whether a process was started, and neither killed nor stopped since."""
        return self._processes[name].running

    def client(self) -> SchedulerServiceStub:
        """What people and programs use."""
        return SchedulerServiceStub(self.network.connect(address_of(SCHEDULER)))

    async def _build_state_manager(self) -> Service:
        settings = nodeflow_state_manager.config.StateManagerSettings()
        return await nodeflow_state_manager.bootstrap.build(
            settings, store=self.store, artifact_files=self.files, log_store=self.log_store
        )

    async def _build_worker_manager(self) -> Service:
        settings = nodeflow_worker_manager.config.Settings(
            state_manager=address_of(STATE_MANAGER),
            lease_timeout_s=self._lease_timeout_s,
            heartbeat_interval_s=self._heartbeat_interval_s,
        )
        connect = self.network.connector(address_of(WORKER_MANAGER))
        return await nodeflow_worker_manager.bootstrap.build(settings, connect=connect, clock=self.clock)

    async def _build_scheduler(self) -> Service:
        settings = nodeflow_scheduler.config.Settings(
            state_manager=address_of(STATE_MANAGER),
            worker_managers=(address_of(WORKER_MANAGER),),
            lease_timeout_s=self._lease_timeout_s,
        )
        connect = self.network.connector(address_of(SCHEDULER))
        return await nodeflow_scheduler.bootstrap.build(
            settings, connect=connect, clock=self.clock, random_bytes=self._random.randbytes
        )


class _WorkerMachine:
    """What outlives a worker's process: which of its sessions are dead, and what its runners did."""

    def __init__(self, number: int, functions: Mapping[str, Simulated], slots: int, loop: VirtualLoop) -> None:
        self._number = number
        self._functions = functions
        self._slots = slots
        self._loop = loop
        self._sessions: MemorySessions | None = None
        self._dead: Sequence[str] = ()
        self.life = Life(loop)
        """The runners' life, not the agent's: a paused agent's runners go on."""
        self.lives: list[VirtualRunners] = []

    def builder(self, name: str, network: LoopbackNetwork, clock: Clock) -> Builder:
        """Return what builds the worker for its next life."""

        async def build() -> Service:
            settings = nodeflow_worker.config.Settings(
                worker_manager=address_of(WORKER_MANAGER), worker_id=name, slots=self._slots
            )
            dead = self._sessions.left_behind() if self._sessions is not None else ()
            self._sessions = MemorySessions(self._number * 0x100 + len(self.lives), dead)
            self.life = Life(self._loop)
            self.lives.append(VirtualRunners(self._functions, context=self.life.context))
            return await nodeflow_worker.bootstrap.build(
                settings,
                connect=network.connector(address_of(name)),
                clock=clock,
                runners=self.lives[-1],
                sessions=self._sessions,
            )

        return build

    def crash(self) -> None:
        """The runners die with their agent."""
        self.life.end()
        self.lives[-1].kill_all()


class _Process:
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
