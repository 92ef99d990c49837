"""A scheduler's driver and ownership on doubles that a test tells what to say. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2
from tests.unit.scheduler.making import Caller, chain, submit

from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.messages import AttemptRef, Input, Lease, ShardWrite
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.outage import Outage
from nodeflow_scheduler.ownership import Ownership
from nodeflow_scheduler.ports import Compiled, Granted, LoggedChunk, Prepared, Question
from nodeflow_shared.clock import LoopClock
from nodeflow_shared.errors import Unavailable
from nodeflow_shared.streams import Inbox

SHARDS = 4
TIMEOUT_S = 10.0
NO_EXECUTIONS: tuple[Execution, ...] = ()
NO_CHUNKS: tuple[LoggedChunk, ...] = ()
NO_PIECES: tuple[bytes, ...] = ()


class Leases:
    """Leases of a store: who asks gets what no other holds."""

    def __init__(self) -> None:
        self.others: set[int] = set()
        self.lost: frozenset[int] = frozenset()
        self.reachable = True
        self.full = False
        self.token = 0
        self.acquired: list[list[int]] = []
        self.renewals = 0
        self.released: list[int] = []

    async def acquire(self, shards: Sequence[int]) -> Granted:
        free = [shard for shard in shards or range(SHARDS) if shard not in self.others]
        self.token += 1
        self.acquired.append(free)
        return Granted(leases=[Lease(shard, self.token, 0) for shard in free], shard_count=SHARDS, timeout_s=TIMEOUT_S)

    async def renew(self, leases: Sequence[Lease]) -> tuple[frozenset[int], float]:
        if not self.reachable:
            raise Unavailable("the store is away")
        if self.full:
            raise Unavailable("the database is full", reason="DISK_FULL")
        self.renewals += 1
        lost, self.lost = self.lost, frozenset()
        return lost, TIMEOUT_S

    async def release(self, leases: Sequence[Lease]) -> None:
        self.released = [lease.shard for lease in leases]


class Log:
    """A log that answers when it is told to, with the refusals that it is told."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[frozenset[int]]] = []
        self.tokens: list[int] = []
        self.prompt = True

    def append(self, writes: Sequence[ShardWrite]) -> Awaitable[frozenset[int]]:
        self.tokens += [write.token for write in writes]
        answer: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()
        if self.prompt:
            answer.set_result(frozenset())
        else:
            self.waiting.append(answer)
        return answer

    def forget(self, shards: frozenset[int]) -> None:
        pass


class Nothing:
    """A journal, artifacts and compiled workflows of which there are none; `answers` tells when that is said."""

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def open_executions(self, leases: Sequence[Lease], compiled: Compiled) -> AsyncIterator[Execution]:
        for each in NO_EXECUTIONS:
            yield each

    async def execution(self, execution_id: str, compiled: Compiled) -> Execution:
        raise AssertionError

    async def chunks(self, execution_id: str, after_sequence: int) -> AsyncIterator[LoggedChunk]:
        for each in NO_CHUNKS:
            yield each

    async def workflow(self, tenant: str, revision: str) -> Workflow:
        raise AssertionError

    async def keep(self, tenant: str, value: Stored) -> None:
        raise AssertionError

    async def fetch(self, tenant: str, digest: str, limit_bytes: int) -> bytes:
        raise AssertionError

    async def missing(self, tenant: str, digests: Collection[str]) -> set[str]:
        self.asked.set()
        await self.answers.wait()
        return set(digests)

    async def stream(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        for each in NO_PIECES:
            yield each


class Workers:
    """Worker-managers that only hear of claims, and of answers."""

    def __init__(self) -> None:
        self.claims: list[list[int]] = []
        self.answers: list[manager_pb2.DependencyAnswer] = []

    def claim(self, leases: Sequence[Lease]) -> None:
        self.claims.append(sorted(lease.shard for lease in leases))

    def assign(self, manager: str, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        raise AssertionError

    def acknowledge(self, manager: str, acks: Mapping[str, list[int]]) -> None:
        raise AssertionError

    def stop(self, manager: str, stops: Mapping[str, list[AttemptRef]]) -> None:
        raise AssertionError

    def answer(self, question: Question, answer: manager_pb2.DependencyAnswer) -> None:
        self.answers.append(answer)


class Replica:
    """A scheduler's driver and ownership on these doubles."""

    def __init__(self) -> None:
        clock, nothing = LoopClock(1_000_000), Nothing()
        self.artifacts = nothing
        inbox: Inbox[Input] = Inbox(100)
        self.leases, self.log, self.workers = Leases(), Log(), Workers()
        self.core = Core(["wm"])
        self.driver = Driver(
            core=self.core,
            inbox=inbox,
            log=self.log,
            workers=self.workers,
            artifacts=nothing,
            clock=clock,
            outage=Outage(),
        )
        self.ownership = Ownership(
            driver=self.driver,
            leases=self.leases,
            journal=nothing,
            compiled=nothing,
            log=self.log,
            workers=self.workers,
            clock=clock,
        )

    @property
    def served(self) -> list[int]:
        return sorted(self.core.ledger.leases)

    async def submit(self, name: str, shard: int) -> Caller:
        """Submits, and lets the turn be decided."""
        caller = Caller()
        self.driver.inbox.push(submit(chain(1), name, shard=shard, caller=caller))
        await asyncio.sleep(0.001)
        return caller

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self.driver.run()), group.create_task(self.ownership.run())]
            yield
            for task in work:
                task.cancel()
