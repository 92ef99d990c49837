"""All services in one process, on one virtual-time loop, over the loopback network: whole runs without waiting.

Owns the life of the simulated processes: start, crash, restart, stop. Must not know what they say to each other.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import Context
from functools import partial
from itertools import pairwise
from types import MappingProxyType, TracebackType
from typing import Final, Self

from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub

import nodeflow_scheduler.bootstrap
import nodeflow_scheduler.config
import nodeflow_state_manager.bootstrap
import nodeflow_state_manager.config
import nodeflow_worker_manager.bootstrap
import nodeflow_worker_manager.config
from nodeflow_shared.server import Service
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.machine_clock import MachineClock
from nodeflow_testing.memory_artifacts import MemoryArtifactFiles
from nodeflow_testing.memory_store import MemoryStore
from nodeflow_testing.memory_task_logs import MemoryLogStore
from nodeflow_testing.scripted_processes import ScriptedProcesses
from nodeflow_testing.simulated_disk import Disk
from nodeflow_testing.virtual_loop import VirtualLoop
from nodeflow_testing.virtual_processes import (
    WORKER,
    WORKER_MANAGER,
    Builder,
    Equip,
    Equipment,
    Process,
    WorkerMachine,
    address_of,
)
from nodeflow_testing.virtual_runners import Simulated, Span, VirtualRunners

__all__ = ["DATABASE", "SCHEDULER", "STATE_MANAGER", "WORKER", "WORKER_MANAGER", "VirtualSuite", "address_of"]

STATE_MANAGER: Final = "state-manager"
SCHEDULER: Final = "scheduler"
DATABASE: Final = "database"
"""Not a process of its own, but with a clock of its own: it decides when leases end."""


class VirtualSuite:
    """`async with VirtualSuite(functions) as suite:` inside `virtual_loop.run`.

    `equip` gives workers something else than scripted `functions`, which are programs as well, to execute tasks with.
    Its processes are named state-manager, worker-manager, scheduler, scheduler-2, …, worker-1, worker-2, …; one that
    fails by itself ends the block with its error. `store`, `files` and `log_store` are what is on the disk. Schedulers
    compete for all shards: the first one gets them, and another does when its leases end. `settings` are beside those
    that the others imply, by STATE_MANAGER, WORKER_MANAGER, SCHEDULER and WORKER.
    """

    def __init__(
        self,
        functions: Mapping[str, Simulated] = MappingProxyType({}),
        *,
        equip: Equip | None = None,
        workers: int = 2,
        schedulers: int = 1,
        slots: int = 4,
        seed: int = 0,
        shards: int = 64,
        lease_timeout_s: float = 10.0,
        heartbeat_interval_s: float = 2.0,
        settings: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    ) -> None:
        self.slots = slots
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "simulated processes live on a virtual loop"
        self.faults: Counter[str] = Counter()
        """How often each kind of fault struck."""
        self.network = LoopbackNetwork(chance=random.Random(f"network {seed}"), faults=self.faults)
        self.schedulers = [SCHEDULER, *(f"{SCHEDULER}-{number}" for number in range(2, schedulers + 1))]
        """Their names, also of those that stand by."""
        worker_names = [f"worker-{number}" for number in range(1, workers + 1)]
        owners = [WORKER_MANAGER, *self.schedulers, *worker_names, DATABASE]
        self.clocks = {name: MachineClock() for name in owners}
        """By process; the state-manager has no other use for the time than the database has."""
        self.clocks[STATE_MANAGER] = self.clocks[DATABASE]
        self.disk = Disk(chance=random.Random(f"disk {seed}"), faults=self.faults)
        """The state-manager's."""
        self._shards = shards
        self.files = MemoryArtifactFiles(disk=self.disk)
        self.store, self.log_store = self._recover()
        self._random = random.Random(seed)
        self._lease_timeout_s = lease_timeout_s
        self._heartbeat_interval_s = heartbeat_interval_s
        self._settings = settings
        self._group = asyncio.TaskGroup()
        equip = equip or _scripted(functions)
        self._workers = {name: WorkerMachine(number, equip, slots, loop) for number, name in enumerate(worker_names, 1)}
        builders: dict[str, Builder] = {
            STATE_MANAGER: self._build_state_manager,
            WORKER_MANAGER: self._build_worker_manager,
            **{name: partial(self._build_scheduler, name) for name in self.schedulers},
        }
        for name, machine in self._workers.items():
            builders[name] = machine.builder(name, self.network, self.clocks[name], settings.get(WORKER, {}))
        self._processes = {name: Process(name, self.network, loop, build) for name, build in builders.items()}

    @property
    def names(self) -> Sequence[str]:
        """The processes, in the order in which they are started."""
        return tuple(self._processes)

    @property
    def executed(self) -> list[tuple[str, str, int, int]]:
        """(function, execution_id, task_number, attempt_number) of each task that was begun, by worker.

        For a process its program stands in the function's place.
        """
        return [each for worker in self._workers.values() for life in worker.executors for each in life.executed]

    @property
    def spans(self) -> list[Span]:
        """The same, with their times."""
        return [each for spans in self.spans_by_worker.values() for each in spans]

    @property
    def spans_by_worker(self) -> dict[str, list[Span]]:
        """The same, by worker, over all its lives."""
        return {name: worker.spans for name, worker in self._workers.items()}

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
            for name in self.names:
                self.resume(name)  # or it would never hear that it is to end
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
            if name not in self.schedulers[1:]:  # which stand by: the first one has all shards
                await self.ready(name)

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

        It comes to nothing if the process ends before, or is spared; an earlier order for it is forgotten.
        """

        def strike() -> None:
            self._crash(name)
            self.faults["kill_after"] += 1

        assert self.running(name), f"{name} does not run"
        self._processes[name].life.strike_after(steps, strike)

    def spare(self, name: str) -> None:
        """Take back an order to `kill_after`, if it was not carried out."""
        self._processes[name].life.spare()

    async def ended(self, name: str) -> None:
        """Wait until a process does not run."""
        await self._processes[name].ended()

    def pause(self, name: str, *, runners: bool = False) -> None:
        """Stop a process as SIGSTOP does: until `resume` it does nothing, and keeps all it has. Its runners go on.

        What is sent to it waits. Who calls it, or is called by it, finds out by deadlines and keepalive alone.
        """
        self._processes[name].pause()
        if runners:
            self._workers[name].pause()
        self.faults["pause"] += 1

    def resume(self, name: str) -> None:
        """Let a process go on: all that became due meanwhile happens now, in its order."""
        self._processes[name].resume()
        if name in self._workers:
            self._workers[name].resume()

    def paused(self, name: str) -> bool:
        """Whether a process is paused."""
        return self._processes[name].life.paused

    async def seize(self, what: int | str) -> None:
        """End the lease of a shard, or of all of a scheduler's, as the database has it: its holder is not told.

        Whoever asks next gets them with a higher token. Nothing happens while the database is busy or full.
        """
        shards = self.store.shards_of(what) if isinstance(what, str) else [what]
        if shards and self.store.seize_shards(shards):
            self.faults["lost_lease"] += 1

    def shift_clock(self, name: str | None, seconds: float) -> None:
        """Set the wall clock of a process, or of the database, forwards or backwards; of all if no name is given.

        Monotonic time goes on as it does.
        """
        for clock in set(self.clocks.values()) if name is None else [self.clocks[name]]:
            clock.jump(round(seconds * 1_000))
        self.faults["clock"] += 1

    def _recover(self) -> tuple[MemoryStore, MemoryLogStore]:
        """Read what the disk has: all that the next life of the state-manager will know."""
        return MemoryStore(self._shards, self.clocks[DATABASE], disk=self.disk), MemoryLogStore(self.disk)

    def _crash(self, name: str) -> None:
        if name in self._workers:
            self._workers[name].crash()
        self._processes[name].kill()
        if name == STATE_MANAGER:
            self.disk.crash()
            self.store, self.log_store = self._recover()

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

    def client(self, name: str = SCHEDULER) -> SchedulerServiceStub:
        """What people and programs use."""
        return SchedulerServiceStub(self.network.connect(address_of(name)))

    async def _build_state_manager(self) -> Service:
        settings = nodeflow_state_manager.config.StateManagerSettings(
            max_lease_timeout_s=max(60.0, self._lease_timeout_s)
        )
        return await nodeflow_state_manager.bootstrap.build(
            settings.model_copy(update=self._settings.get(STATE_MANAGER)),
            store=self.store,
            artifact_files=self.files,
            log_store=self.log_store,
        )

    async def _build_worker_manager(self) -> Service:
        settings = nodeflow_worker_manager.config.Settings(
            state_manager=address_of(STATE_MANAGER),
            lease_timeout_s=self._lease_timeout_s,
            heartbeat_interval_s=self._heartbeat_interval_s,
        )
        connect = self.network.connector(address_of(WORKER_MANAGER))
        return await nodeflow_worker_manager.bootstrap.build(
            settings.model_copy(update=self._settings.get(WORKER_MANAGER)),
            connect=connect,
            clock=self.clocks[WORKER_MANAGER],
        )

    async def _build_scheduler(self, name: str) -> Service:
        settings = nodeflow_scheduler.config.Settings(
            instance=name,
            state_manager=address_of(STATE_MANAGER),
            worker_managers=(address_of(WORKER_MANAGER),),
            lease_timeout_s=self._lease_timeout_s,
        )
        connect = self.network.connector(address_of(name))
        return await nodeflow_scheduler.bootstrap.build(
            settings.model_copy(update=self._settings.get(SCHEDULER)),
            connect=connect,
            clock=self.clocks[name],
            random_bytes=self._random.randbytes,
        )


def _scripted(functions: Mapping[str, Simulated]) -> Equip:
    def equip(context: Context, clock: MachineClock) -> Equipment:
        runners = VirtualRunners(functions, context=context, clock=clock)
        processes = ScriptedProcesses(functions, context, runners=runners, clock=clock)
        return Equipment(runners=runners, processes=processes)

    return equip
