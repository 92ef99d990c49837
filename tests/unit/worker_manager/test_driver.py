"""The shell: peers that do not read, leases by timer, ends that are recorded together, and the end of the service."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from nodeflow_shared.clock import SystemClock
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.sessions import Capacity, SessionState
from nodeflow_worker_manager.domain.workers import KnownWorker
from nodeflow_worker_manager.driver import PACE_S, SCHEDULER_FRAMES, UNPACED_MESSAGES, WORKER_FRAMES, Driver, Peer
from nodeflow_worker_manager.ports import WorkerPage


class MemoryRegistry:
    """A registry that knows one live session, and records ends when it is let."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, ...]] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.answered = asyncio.Condition()

    async def register_session(self, hello: ev.Hello, timeout_s: float) -> bool:
        return True

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        await self.may_end.wait()
        async with self.answered:
            self.ends.append(tuple(session_ids))
            self.answered.notify_all()

    async def live_workers(self) -> list[KnownWorker]:
        return []

    async def list_workers(self, page_size: int, page_token: str, *, live_only: bool, timeout_s: float) -> WorkerPage:
        return WorkerPage(workers=[], next_page_token="")

    async def until_ended(self, count: int) -> None:
        async with asyncio.timeout(5), self.answered:
            await self.answered.wait_for(lambda: sum(map(len, self.ends)) >= count)


@pytest.fixture
async def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
async def driver(registry: MemoryRegistry) -> AsyncIterator[Driver]:
    driver = Driver(registry, SystemClock(), lease_timeout_s=0.1, register_timeout_s=1.0)
    async with asyncio.TaskGroup() as group:
        run = group.create_task(driver.run())
        await driver.ready.wait()
        yield driver
        driver.drain()
        await run


def hello(session_id: str) -> ev.Hello:
    return ev.Hello(worker_id="w", session_id=session_id, capacity=Capacity(slots=1))


async def welcomed(driver: Driver, session_id: str = "A") -> Peer[do.ToWorker]:
    peer = driver.worker(hello(session_id))
    assert await anext(peer) == do.Welcome(connection=peer.number, newly_registered=True)
    return peer


def state_of_a(driver: Driver) -> SessionState:
    return driver.core.sessions["A"].state


async def end_of(peer: Peer[do.ToWorker] | Peer[do.ToScheduler]) -> Exception | None:
    try:
        async for _ in peer:
            pass
    except NodeflowError as error:
        return error
    return None


async def test_a_worker_that_does_not_read_loses_its_stream_and_keeps_its_session(driver: Driver) -> None:
    peer = await welcomed(driver)
    stop = ev.CancellationReceived(session_id="A", cancellation=object())
    driver.feed([stop] * WORKER_FRAMES)
    assert state_of_a(driver) is SessionState.CONNECTED
    driver.feed([stop])
    assert state_of_a(driver) is SessionState.DISCONNECTED
    # None of what waited is sent any more.
    with pytest.raises(Unavailable, match="does not read"):
        await anext(peer)


async def test_a_scheduler_that_does_not_read_loses_its_stream(driver: Driver) -> None:
    worker = await welcomed(driver)
    scheduler = driver.scheduler("s")
    bids = [
        ev.HeartbeatReceived(connection=worker.number, beat=number, capacity=Capacity(slots=number), draining=False)
        for number in range(1, SCHEDULER_FRAMES + 2)
    ]
    driver.feed([ev.HeldReceived(connection=worker.number, held=Nothing())])
    for bid in bids:
        driver.feed([bid])
        assert isinstance(await anext(worker), do.ReplyToHeartbeat)
    with pytest.raises(Unavailable, match="does not read"):
        await anext(scheduler)
    again = driver.scheduler("s")
    assert isinstance(await anext(again), do.SendOpened)


class Nothing:
    """A worker that holds nothing."""

    live_count = 0
    size_bytes = 0

    def only(self, shards: object) -> "Nothing":
        return self

    def plus(self, batches: object) -> "Nothing":
        return self


async def test_large_frames_count_by_their_size_and_one_alone_is_always_taken() -> None:
    peer: Peer[str] = Peer(1, 100, 1_000)
    assert peer.send("large", 5_000)
    assert not peer.send("more", 1)
    assert await anext(peer) == "large"
    assert [peer.send(str(number), 300) for number in range(4)] == [True, True, True, False]


def crowd(scheduler: Peer[do.ToScheduler]) -> None:
    while not scheduler.crowded:
        scheduler.send(do.SendAttached(stream=0), 0)


async def test_who_sends_on_and_on_is_slowed_down_to_what_a_scheduler_takes(driver: Driver) -> None:
    scheduler, worker = driver.scheduler("s"), await welcomed(driver)
    word = ev.QuestionDropped(question=0)
    crowd(scheduler)
    async with asyncio.timeout(PACE_S):
        for _ in range(UNPACED_MESSAGES):
            await driver.hear(worker, word)
    waiting = asyncio.create_task(driver.hear(worker, word))
    await asyncio.sleep(0)
    assert not waiting.done()
    while scheduler.crowded:
        await anext(scheduler)
    async with asyncio.timeout(PACE_S):
        await waiting
    # A scheduler that does not read at all holds nobody up for longer than this.
    crowd(scheduler)
    async with asyncio.timeout(10 * PACE_S):
        await driver.hear(worker, word)
    assert scheduler.crowded


async def test_heartbeats_do_not_come_late_because_a_scheduler_does_not_read(driver: Driver) -> None:
    scheduler, worker = driver.scheduler("s"), await welcomed(driver)
    crowd(scheduler)
    async with asyncio.timeout(5 * PACE_S):
        for beat in range(10):
            for _ in range(64):
                await driver.hear(worker, ev.QuestionDropped(question=0))
            heartbeat = ev.HeartbeatReceived(
                connection=worker.number, beat=beat, capacity=Capacity(slots=1), draining=False
            )
            await driver.hear(worker, heartbeat)
    assert scheduler.crowded


async def test_leases_end_by_the_clock(driver: Driver, registry: MemoryRegistry) -> None:
    peer = await welcomed(driver)
    assert isinstance(await end_of(peer), NodeflowError)
    await registry.until_ended(1)
    assert registry.ends == [("A",)]
    assert not driver.core.sessions
    # The timer was not the last one.
    await end_of(await welcomed(driver, "B"))
    await registry.until_ended(2)


async def test_ends_that_wait_are_recorded_together(driver: Driver, registry: MemoryRegistry) -> None:
    registry.may_end.clear()
    for session_id in ("A", "B", "C"):
        peer = await welcomed(driver, session_id)
        driver.feed([ev.GoodbyeReceived(connection=peer.number)])
        assert await end_of(peer) is None
    registry.may_end.set()
    await registry.until_ended(3)
    assert registry.ends == [("A",), ("B", "C")]


async def test_a_drain_ends_streams_as_unavailable_and_takes_no_more(registry: MemoryRegistry) -> None:
    driver = Driver(registry, SystemClock(), lease_timeout_s=10, register_timeout_s=1.0)
    with pytest.raises(Unavailable, match="starting"):
        driver.worker(hello("A"))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(driver.run())
        await driver.ready.wait()
        worker, scheduler = await welcomed(driver), driver.scheduler("s")
        driver.drain()
        assert isinstance(await end_of(worker), Unavailable)
        assert isinstance(await end_of(scheduler), Unavailable)
        driver.worker_left(worker)
        driver.scheduler_left(scheduler)
        await run
    assert registry.ends == []
    with pytest.raises(Unavailable, match="stopping"):
        driver.worker(hello("B"))
