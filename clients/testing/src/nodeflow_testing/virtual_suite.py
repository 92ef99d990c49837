"""All services in one process, on one virtual-time loop, over the loopback network: whole runs without waiting.

Owns the life of the simulated processes: start, crash, restart, stop. Must not know what they say to each other.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Final, Self

from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

import nodeflow_scheduler.bootstrap
import nodeflow_scheduler.config
import nodeflow_state_manager.bootstrap
import nodeflow_state_manager.config
import nodeflow_worker.bootstrap
import nodeflow_worker.config
import nodeflow_worker_manager.bootstrap
import nodeflow_worker_manager.config
from nodeflow_shared.clock import LoopClock
from nodeflow_shared.server import Service
from nodeflow_testing.loopback import LoopbackNetwork, LoopbackServer
from nodeflow_testing.memory_sessions import MemorySessions
from nodeflow_testing.memory_store import MemoryArtifactFiles, MemoryStore
from nodeflow_testing.memory_task_logs import MemoryLogStore
from nodeflow_testing.virtual_runners import Simulated, Span, VirtualRunners

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
        self.clock = LoopClock(EPOCH_MS)
        self.network = LoopbackNetwork()
        self.store = MemoryStore(shards, self.clock)
        self.files = MemoryArtifactFiles()
        self.log_store = MemoryLogStore()
        self._random = random.Random(seed)
        self._lease_timeout_s = lease_timeout_s
        self._heartbeat_interval_s = heartbeat_interval_s
        self._group = asyncio.TaskGroup()
        self._workers = {
            f"worker-{number}": _WorkerMachine(number, functions, slots) for number in range(1, workers + 1)
        }
        builders: dict[str, Callable[[], Awaitable[Service]]] = {
            STATE_MANAGER: self._build_state_manager,
            WORKER_MANAGER: self._build_worker_manager,
            SCHEDULER: self._build_scheduler,
        }
        for name, machine in self._workers.items():
            builders[name] = machine.builder(name, self.network, self.clock)
        self._processes = {name: _Process(name, self.network, build) for name, build in builders.items()}

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
        if name in self._workers:
            await self._workers[name].crash()
        await self._processes[name].kill()

    async def drain(self, name: str) -> None:
        """Stop a process in order, as a signal does."""
        await self._processes[name].stop()

    async def stop(self) -> None:
        """Stop all processes in order: those that depend on others first."""
        for name in reversed(self.names):
            await self._processes[name].stop()

    @property
    def drained(self) -> bool:
        """Whether all that were stopped in order had nothing left to do in time."""
        return all(process.drained for process in self._processes.values())

    async def _kill_all(self) -> None:
        for name, process in self._processes.items():
            if process.running:
                await self.kill(name)

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

    def __init__(self, number: int, functions: Mapping[str, Simulated], slots: int) -> None:
        self._number = number
        self._functions = functions
        self._slots = slots
        self._sessions: MemorySessions | None = None
        self.lives: list[VirtualRunners] = []

    def builder(self, name: str, network: LoopbackNetwork, clock: LoopClock) -> Callable[[], Awaitable[Service]]:
        """Return what builds the worker for its next life."""

        async def build() -> Service:
            settings = nodeflow_worker.config.Settings(
                worker_manager=address_of(WORKER_MANAGER), worker_id=name, slots=self._slots
            )
            dead = self._sessions.left_behind() if self._sessions is not None else ()
            self._sessions = MemorySessions(self._number * 0x100 + len(self.lives), dead)
            self.lives.append(VirtualRunners(self._functions))
            return await nodeflow_worker.bootstrap.build(
                settings,
                connect=network.connector(address_of(name)),
                clock=clock,
                runners=self.lives[-1],
                sessions=self._sessions,
            )

        return build

    async def crash(self) -> None:
        """The runners die with their agent."""
        await self.lives[-1].close()


class _Process:
    """One simulated process."""

    def __init__(self, name: str, network: LoopbackNetwork, build: Callable[[], Awaitable[Service]]) -> None:
        self._name = name
        self._network = network
        self._build = build
        self._service: Service | None = None
        self._server: LoopbackServer | None = None
        self._run: asyncio.Task[None] | None = None
        self.drained = True
        """Whether every stop in order was over in time."""

    @property
    def running(self) -> bool:
        """Whether it was started, and neither killed nor stopped."""
        return self._run is not None

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Build, listen and run."""
        assert self._run is None, f"{self._name} runs already"
        self._service = await self._build()
        self._server = self._network.listen(address_of(self._name))
        self._service.register(self._server)
        self._run = group.create_task(self._service.run(), name=f"{self._name}.run")

    async def ready(self) -> None:
        """Wait until calls can be answered."""
        assert self._service is not None, f"{self._name} does not run"
        await self._service.ready.wait()

    async def kill(self) -> None:
        """End at once. What its tasks still do while they are cancelled reaches nobody."""
        assert self._run is not None, f"{self._name} does not run"
        self._network.kill(address_of(self._name))
        run, self._run, self._service, self._server = self._run, None, None, None
        run.cancel()
        await asyncio.wait([run])

    async def stop(self) -> None:
        """End in the order of `nodeflow_shared.server`."""
        if self._run is None or self._service is None or self._server is None:
            return
        run, service, server = self._run, self._service, self._server
        self._run, self._service, self._server = None, None, None
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await service.drain()
                await asyncio.wait([run])
        except TimeoutError:
            self.drained = False
        await server.stop(None)
        run.cancel()
        await asyncio.wait([run])
        await service.close()
