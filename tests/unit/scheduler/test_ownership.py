"""Shards as they come and go: acquired once, renewed in time, given up before their leases end. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2
from tests.unit.scheduler.making import Caller, chain, report, submit, updates

from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.messages import AttemptRef, Input, Lease, ShardWrite, Tick
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.driver import PENDING_TURNS, Driver
from nodeflow_scheduler.outage import Outage
from nodeflow_scheduler.ownership import LOOK_AGAIN_S, Ownership
from nodeflow_scheduler.ports import Compiled, Granted, LoggedChunk, Prepared
from nodeflow_shared.clock import LoopClock
from nodeflow_shared.errors import Unavailable
from nodeflow_shared.streams import Inbox
from nodeflow_testing.virtual_loop import run

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
    """Worker-managers that only hear of claims."""

    def __init__(self) -> None:
        self.claims: list[list[int]] = []

    def claim(self, leases: Sequence[Lease]) -> None:
        self.claims.append(sorted(lease.shard for lease in leases))

    def assign(self, manager: str, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        raise AssertionError

    def acknowledge(self, manager: str, acks: Mapping[str, list[int]]) -> None:
        raise AssertionError

    def stop(self, manager: str, stops: Mapping[str, list[AttemptRef]]) -> None:
        raise AssertionError

    def answer(self, manager: str, answer: manager_pb2.DependencyAnswer) -> None:
        raise AssertionError


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


def scenario(test: Callable[[Replica], Awaitable[None]]) -> None:
    async def main() -> None:
        replica = Replica()
        async with replica.running():
            await test(replica)

    run(main)


def test_refusals_of_turns_in_a_row_cost_one_acquisition() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        callers = [await replica.submit(f"e{number}", 2) for number in range(PENDING_TURNS)]
        assert replica.log.tokens == [1] * PENDING_TURNS
        for answer in replica.log.waiting:
            answer.set_result(frozenset({2}))
        replica.log.prompt = True
        await asyncio.sleep(0.1)
        assert replica.leases.acquired == [[0, 1, 2, 3], [2]]
        assert replica.served == [0, 1, 2, 3]
        assert all(isinstance(caller.only, Unavailable) for caller in callers)
        assert isinstance((await replica.submit("e9", 2)).only, Execution)
        assert replica.log.tokens[-1] == 2
        assert replica.ownership.ready.is_set()

    scenario(test)


def test_shards_of_another_replica_are_not_waited_for_and_taken_when_they_are_free() -> None:
    async def test(replica: Replica) -> None:
        replica.leases.others = {1, 3}
        await replica.ownership.ready.wait()
        await asyncio.sleep(3 * TIMEOUT_S)
        assert replica.served == [0, 2]
        assert replica.leases.renewals > 10
        assert replica.workers.claims == [[0, 2]], "workers are not asked anew for nothing"
        replica.leases.others = set()
        await asyncio.sleep(2 * LOOK_AGAIN_S)
        assert replica.served == [0, 1, 2, 3]
        assert replica.workers.claims == [[0, 2], [0, 1, 2, 3]]

    scenario(test)


def test_without_renewals_shards_are_given_up_before_their_leases_end() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.leases.reachable = False
        replica.leases.others = set(range(SHARDS))
        await asyncio.sleep(TIMEOUT_S / 2)
        assert replica.served == [0, 1, 2, 3]
        await asyncio.sleep(TIMEOUT_S / 2 - 0.1)
        assert replica.served == []
        assert not replica.ownership.ready.is_set()
        replica.leases.reachable, replica.leases.others = True, set()
        await replica.ownership.ready.wait()
        await asyncio.sleep(0.001)
        assert replica.served == [0, 1, 2, 3]

    scenario(test)


def test_a_shard_that_a_renewal_reports_lost_is_dropped_and_asked_for() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        assert isinstance((await replica.submit("e1", 1)).only, Execution)
        replica.leases.lost, replica.leases.others = frozenset({1}), {1}
        await asyncio.sleep(TIMEOUT_S / 2)
        assert replica.served == [0, 2, 3]
        assert replica.driver.execution("e1") is None
        assert isinstance((await replica.submit("e2", 1)).only, Unavailable)

    scenario(test)


def test_a_turn_that_waits_for_the_artifact_store_is_waited_for_in_peace() -> None:
    """Busy waiting would keep the loop from all others: on virtual time it would never end."""

    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        assert isinstance((await replica.submit("e1", 1)).only, Execution)
        replica.artifacts.answers.clear()
        result = report(0, Stored(digest=f"sha256:{'0' * 64}", size_bytes=1), shard=1)
        replica.driver.inbox.push(updates(results=[result]))
        await replica.artifacts.asked.wait()
        before = list(replica.leases.acquired)
        replica.driver.inbox.push(Tick())  # which waits for the next turn
        replica.leases.reachable = False
        await asyncio.sleep(2 * TIMEOUT_S)
        replica.leases.reachable = True
        assert replica.leases.acquired == before, "not while something may be on its way to the log"
        replica.artifacts.answers.set()
        await asyncio.sleep(0.1)
        assert replica.served == [0, 1, 2, 3]

    scenario(test)


def test_what_is_released_is_neither_written_to_nor_acquired_again() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        first = await replica.submit("e1", 1)
        release = asyncio.ensure_future(replica.ownership.release())
        await asyncio.sleep(0.001)
        assert replica.leases.released == [], "not before what was decided is answered"
        late = await replica.submit("e2", 1)
        replica.log.waiting[0].set_result(frozenset())
        await release
        assert replica.leases.released == [0, 1, 2, 3]
        assert isinstance(first.only, Execution)
        assert isinstance(late.only, Unavailable)
        assert len(replica.leases.acquired) == 1
        assert replica.log.tokens == [1]

    scenario(test)
