"""Output that passes through: acknowledged when it is stored, flushed when all before it is."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from nodeflow_shared.clock import LoopClock
from nodeflow_shared.errors import Unavailable
from nodeflow_shared.streams import Outbox
from nodeflow_testing.virtual_loop import run
from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.workers import KnownWorker
from nodeflow_worker_manager.driver import Driver
from nodeflow_worker_manager.log_relay import ANSWERS, Flush, Flushed, FromWorker, LogRelay, Stored, ToWorker
from nodeflow_worker_manager.ports import LogBatch, WorkerPage

LEASE_S = 10.0


class NoRegistry:
    """No worker was ever here."""

    async def register_session(self, hello: Hello, timeout_s: float) -> bool:
        raise AssertionError(hello)

    async def end_sessions(self, session_ids: object) -> None:
        raise AssertionError(session_ids)

    async def live_workers(self) -> list[KnownWorker]:
        return []

    async def list_workers(self, page_size: int, page_token: str, *, live_only: bool, timeout_s: float) -> WorkerPage:
        return WorkerPage(workers=[], next_page_token="")


class SlowStore:
    """Takes each batch in a second; fails when it is told to."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.failing = False

    async def append(self, batches: AsyncGenerator[LogBatch, None]) -> AsyncGenerator[int, None]:
        async for batch in batches:
            await asyncio.sleep(1.0)
            if self.failing:
                raise Unavailable("away")
            self.stored.append(batch.batch_id)
            yield batch.batch_id


class Worker:
    """A worker's side of a stream."""

    def __init__(self, relay: LogRelay, session_id: str = "s") -> None:
        self.requests: Outbox[FromWorker] = Outbox()
        self.told: list[ToWorker] = []
        self._answers: AsyncIterator[ToWorker] = relay.serve(session_id, self.requests)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            assert self.requests.offer(LogBatch(batch_id=number, chunks=[]))

    async def take(self) -> ToWorker:
        """Take one answer, and do nothing."""
        return await anext(self._answers)

    async def live(self) -> None:
        """Take answers, and do as asked, until the stream ends."""
        async for answer in self._answers:
            self.told.append(answer)
            if isinstance(answer, Flush):
                await self.requests.put(Flushed(flush_id=answer.flush_id))


def relayed(test: Callable[[LogRelay, SlowStore], Awaitable[None]]) -> None:
    async def main() -> None:
        clock, store = LoopClock(0), SlowStore()
        driver = Driver(NoRegistry(), clock, lease_timeout_s=LEASE_S, register_timeout_s=5.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.run())
            await driver.ready.wait()
            await test(LogRelay(store, driver, clock, lease_timeout_s=LEASE_S), store)
            driver.drain()

    run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_batches_are_acknowledged_in_order_once_they_are_stored() -> None:
    async def test(relay: LogRelay, store: SlowStore) -> None:
        worker = Worker(relay)
        worker.send(1, 2, 3)
        worker.requests.close()
        await worker.live()
        assert worker.told == [Stored(batch_id=1), Stored(batch_id=2), Stored(batch_id=3)]

    relayed(test)


def test_a_flush_waits_for_what_was_sent_before_it() -> None:
    async def test(relay: LogRelay, store: SlowStore) -> None:
        worker = Worker(relay)
        living = asyncio.ensure_future(worker.live())
        worker.send(1, 2)
        await asyncio.sleep(0.5)
        await relay.flush()
        assert store.stored == [1, 2]
        assert now() == pytest.approx(2.0, abs=0.2)
        worker.requests.close()
        await living

    relayed(test)


def test_without_workers_there_is_nothing_to_wait_for() -> None:
    async def test(relay: LogRelay, store: SlowStore) -> None:
        await relay.flush()
        assert now() < 0.1

    relayed(test)


def test_a_worker_whose_stream_broke_is_waited_for_and_asked_again() -> None:
    async def test(relay: LogRelay, store: SlowStore) -> None:
        store.failing = True
        first = Worker(relay)
        first.send(1)
        with pytest.raises(Unavailable):
            await first.live()
        flushing = asyncio.ensure_future(relay.flush())
        await asyncio.sleep(3.0)
        assert not flushing.done()
        store.failing = False
        again = Worker(relay)
        again.send(1)
        living = asyncio.ensure_future(again.live())
        await flushing
        assert store.stored == [1]
        again.requests.close()
        await living

    relayed(test)


def test_a_worker_that_stays_away_is_not_waited_for_longer_than_a_lease() -> None:
    async def test(relay: LogRelay, store: SlowStore) -> None:
        store.failing = True
        worker = Worker(relay)
        worker.send(1)
        with pytest.raises(Unavailable):
            await worker.live()
        await relay.flush()
        assert now() == pytest.approx(1.0 + LEASE_S, abs=0.1)

    relayed(test)


def test_sessions_that_are_long_gone_are_forgotten_although_nobody_flushes() -> None:
    async def scenario(relay: LogRelay, store: SlowStore) -> None:
        for number in range(3):
            worker = Worker(relay, f"s{number}")
            worker.requests.close()
            await worker.live()
            await asyncio.sleep(LEASE_S + 1)
        assert list(relay._absent_until) == ["s2"]

    relayed(scenario)


def test_the_output_of_a_worker_that_takes_no_answers_is_not_read_on() -> None:
    async def scenario(relay: LogRelay, store: SlowStore) -> None:
        worker = Worker(relay)
        batches = 2 * ANSWERS

        async def send() -> None:
            for number in range(1, batches + 1):
                await worker.requests.put(LogBatch(batch_id=number, chunks=[]))
            worker.requests.close()

        sending = asyncio.ensure_future(send())
        assert await worker.take() == Stored(batch_id=1)
        await asyncio.sleep(10 * batches)
        assert len(store.stored) == ANSWERS + 2, "one was taken, and one waits for room"
        await worker.live()
        assert len(store.stored) == batches
        await sending

    relayed(scenario)
