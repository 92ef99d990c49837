"""Group commit: what gathers, who is answered what, and what a store that cannot write means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from tests.support.state_manager_values import HOLDER, LONG_MS, a_batch, a_chunk, a_part, a_start, reasons

from nodeflow_shared.clock import SystemClock
from nodeflow_shared.errors import Internal, InvalidInput, Unavailable
from nodeflow_state_manager.domain.values import AppendBatch, Refusal, RefusalReason
from nodeflow_state_manager.driver import STREAM_LIMIT, AppendStream, LogDriver
from nodeflow_state_manager.ports import StoreFull
from nodeflow_state_manager.writability import ROOM_BYTES, Writability
from nodeflow_testing.memory_store import MemoryStore

Driver = LogDriver[AppendBatch]
LIMIT_BYTES = 1_000


class GatedStore(MemoryStore):
    """A store whose commits wait for the test, which sees how large each group is."""

    def __init__(self) -> None:
        super().__init__(4, SystemClock())
        self.groups: list[int] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.bug: Exception | None = None

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        self.groups.append(len(batches))
        self.began.set()
        await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        return await super().append(batches)


@pytest.fixture
async def store() -> GatedStore:
    store = GatedStore()
    await store.acquire_shards(HOLDER, [], LONG_MS)
    return store


@pytest.fixture
async def writability(store: GatedStore) -> Writability:
    return Writability("events", store.check_writable, first_probe_s=0.001)


def a_driver(store: GatedStore, writability: Writability) -> Driver:
    return LogDriver(store, waiting_limit_bytes=LIMIT_BYTES, writability=writability)


@pytest.fixture
async def driver(store: GatedStore, writability: Writability) -> AsyncIterator[Driver]:
    driver = a_driver(store, writability)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(driver.run())
        await writability.ready.wait()
        yield driver
        store.gate.set()
        running.cancel()


class Client:
    """One Append stream, whose batches the test submits one by one."""

    def __init__(self, driver: Driver) -> None:
        self._batches: asyncio.Queue[tuple[int, AppendBatch, int] | Exception | None] = asyncio.Queue()
        self.answers = driver.exchange(self._feed)

    async def _feed(self, stream: AppendStream[AppendBatch]) -> None:
        while (item := await self._batches.get()) is not None:
            if isinstance(item, Exception):
                raise item
            await stream.submit(*item)

    def submit(self, batch_id: int, batch: AppendBatch, size_bytes: int = 10) -> None:
        self._batches.put_nowait((batch_id, batch, size_bytes))

    def end(self, error: Exception | None = None) -> None:
        self._batches.put_nowait(error)

    async def rest(self) -> list[tuple[int, list[tuple[int, RefusalReason]]]]:
        return [(answer.batch_id, reasons(answer.refusals)) async for answer in self.answers]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  -- what is waited for has no event, and a turn of the loop is enough
            await asyncio.sleep(0)


async def in_background(work: Awaitable[object]) -> asyncio.Task[object]:
    async def run() -> object:
        return await work

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    return task


async def test_answers_come_in_the_order_of_the_stream(driver: Driver) -> None:
    client = Client(driver)
    client.submit(7, a_batch(a_start("a")))
    client.submit(3, a_batch(a_start("b", offset=9)))
    client.submit(5, a_batch(a_part(1, a_chunk("a", 2))))
    client.end()
    assert await client.rest() == [(7, []), (3, [(0, RefusalReason.WRONG_OFFSET)]), (5, [])]


async def test_an_idle_store_commits_at_once_and_a_busy_one_gathers(driver: Driver, store: GatedStore) -> None:
    one, two = Client(driver), Client(driver)
    store.gate.clear()
    one.submit(1, a_batch(a_start("a")))
    ones = await in_background(one.rest())
    await store.began.wait()
    twos = await in_background(two.rest())
    for number in range(5):
        two.submit(number, a_batch(a_start(f"b{number}", shard=1, offset=number)))
    one.submit(2, a_batch(a_part(1, a_chunk("a", 2))))
    one.end()
    two.end()
    await until(lambda: len(driver._inbox) == 6)
    store.gate.set()
    assert await ones == [(1, []), (2, [])]
    assert await twos == [(number, []) for number in range(5)]
    assert store.groups == [1, 6]


async def test_a_stream_is_not_read_on_when_too_many_bytes_wait(driver: Driver, store: GatedStore) -> None:
    client = Client(driver)
    store.gate.clear()
    for number in range(4):
        client.submit(number, a_batch(a_start(f"a{number}", offset=number)), LIMIT_BYTES // 2)
    client.end()
    answers = await in_background(client.rest())
    await store.began.wait()
    await until(lambda: driver._budget._used == LIMIT_BYTES)
    assert client._batches.qsize() == 2  # the third is in hand, and the fourth and the end are not read
    store.gate.set()
    assert await answers == [(number, []) for number in range(4)]


async def test_a_stream_whose_answers_are_not_taken_is_not_read_on(driver: Driver) -> None:
    client = Client(driver)
    count = 2 * STREAM_LIMIT
    for number in range(count):
        client.submit(number, a_batch(a_start(f"a{number}", offset=number)), 0)
    client.end()
    first = await anext(client.answers)
    await until(lambda: client._batches.qsize() <= count - STREAM_LIMIT)
    for _ in range(100):
        await asyncio.sleep(0)
    # One answer was taken; one batch is in hand; the end is in the queue too.
    assert client._batches.qsize() == count - STREAM_LIMIT - 2 + 1
    assert [first.batch_id, *[number for number, _ in await client.rest()]] == list(range(count))


async def test_a_batch_larger_than_the_limit_goes_through_alone(driver: Driver) -> None:
    client = Client(driver)
    client.submit(1, a_batch(a_start("a")), LIMIT_BYTES * 10)
    client.submit(2, a_batch(a_part(1, a_chunk("a", 2))), LIMIT_BYTES * 10)
    client.end()
    assert await client.rest() == [(1, []), (2, [])]


async def test_a_malformed_batch_ends_the_stream_after_the_answers_that_are_there(
    driver: Driver,
) -> None:
    client = Client(driver)
    client.submit(1, a_batch(a_start("a")))
    assert (await anext(client.answers)).batch_id == 1
    client.end(InvalidInput("malformed"))
    with pytest.raises(InvalidInput, match="malformed"):
        await client.rest()


async def test_a_store_that_cannot_write_ends_all_streams_until_it_can(
    driver: Driver, store: GatedStore, writability: Writability
) -> None:
    one, two = Client(driver), Client(driver)
    store.gate.clear()
    one.submit(1, a_batch(a_start("a")))
    ones = await in_background(one.rest())
    await store.began.wait()
    twos = await in_background(two.rest())
    two.submit(1, a_batch(a_start("b", shard=1)))
    await until(lambda: len(driver._inbox) == 1)
    store.disk.full = True
    store.gate.set()
    for answers in (ones, twos):
        with pytest.raises(StoreFull, match="disk is full"):
            await answers
    assert not writability.ready.is_set()
    groups = len(store.groups)
    late = Client(driver)
    late.submit(1, a_batch(a_start("a")))
    with pytest.raises(StoreFull, match="disk is full"):  # told at once, and nothing is tried
        await late.rest()
    assert len(store.groups) == groups
    store.disk.full = False
    async with asyncio.timeout(10):
        await writability.ready.wait()
    again = Client(driver)
    again.submit(1, a_batch(a_start("a"), a_start("b", shard=1)))
    again.end()
    assert await again.rest() == [(1, [])]


async def test_a_fault_of_ours_ends_the_streams_it_hit_and_not_the_service(
    driver: Driver, store: GatedStore, writability: Writability
) -> None:
    client = Client(driver)
    store.bug = ZeroDivisionError()
    client.submit(1, a_batch(a_start("a")))
    with pytest.raises(Internal):
        await client.rest()
    assert writability.ready.is_set()
    store.bug = None
    again = Client(driver)
    again.submit(1, a_batch(a_start("a")))
    again.end()
    assert await again.rest() == [(1, [])]


async def test_a_drain_commits_what_waits_and_ends_streams(store: GatedStore, writability: Writability) -> None:
    driver = a_driver(store, writability)
    running = await in_background(driver.run())
    await writability.ready.wait()
    store.gate.clear()
    client = Client(driver)
    got: list[int] = []

    async def collect() -> None:
        while True:
            got.append((await anext(client.answers)).batch_id)

    collecting = await in_background(collect())
    client.submit(1, a_batch(a_start("a")))
    await store.began.wait()
    client.submit(2, a_batch(a_part(1, a_chunk("a", 2))))
    await until(lambda: len(driver._inbox) == 1)
    draining = await in_background(driver.drain())
    with pytest.raises(Unavailable, match="stopping"):
        await Client(driver).rest()
    assert not draining.done()
    store.gate.set()
    async with asyncio.timeout(10):
        await draining
        with pytest.raises(Unavailable, match="stopping"):
            await collecting
        await running
    assert got == [1, 2]


async def test_a_client_that_leaves_takes_its_task_along(driver: Driver) -> None:
    client = Client(driver)
    client.submit(1, a_batch(a_start("a")))
    await anext(client.answers)
    (feed,) = driver._feeds.values()
    await client.answers.aclose()  # type: ignore[attr-defined]  # an async generator, typed as an iterator
    await asyncio.wait([feed])
    assert feed.cancelled()
    assert driver._feeds == {}


async def test_a_full_store_is_written_to_again_when_there_is_more_than_a_little_room() -> None:
    asked: list[int] = []
    free = 0

    async def probe(room_bytes: int) -> None:
        asked.append(room_bytes)
        if free < room_bytes:
            raise StoreFull("no room")

    writability = Writability("events", probe, first_probe_s=0.001)
    running = await in_background(writability.run())
    await writability.ready.wait()
    writability.lose(StoreFull("no room"), 10)
    await until(lambda: len(asked) >= 2)
    assert not writability.ready.is_set()
    writability.lose(StoreFull("no room"), 3 * ROOM_BYTES)
    free = 3 * ROOM_BYTES
    async with asyncio.timeout(10):
        await writability.ready.wait()
    assert (asked[0], asked[-1]) == (ROOM_BYTES, 3 * ROOM_BYTES)
    running.cancel()
