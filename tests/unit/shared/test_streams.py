"""Outbox and Inbox: order, bounds, wake-ups, cancellation; on a virtual loop a lost wake-up is an error, not a hang."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nodeflow_shared.streams import Inbox, Outbox, OutboxClosed
from nodeflow_testing.virtual_loop import run

Scenario = Callable[[], Coroutine[Any, Any, None]]


def virtually(scenario: Scenario) -> Callable[[], None]:
    def test() -> None:
        run(scenario)

    return test


async def read_all(outbox: Outbox[int]) -> list[int]:
    return [item async for item in outbox]


@virtually
async def test_outbox_yields_in_order_what_was_put_and_ends_after_close() -> None:
    outbox: Outbox[int] = Outbox(limit=10)
    for item in range(3):
        await outbox.put(item)
    outbox.close()
    assert await read_all(outbox) == [0, 1, 2]
    assert await read_all(outbox) == []


@virtually
async def test_outbox_reader_waits_and_is_woken() -> None:
    outbox: Outbox[int] = Outbox(limit=10)
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read_all(outbox))
        for item in range(3):
            await asyncio.sleep(1)
            assert outbox.offer(item)
        await asyncio.sleep(1)
        outbox.close()
    assert reader.result() == [0, 1, 2]


@virtually
async def test_full_outbox_refuses_offers_and_holds_putters_in_order() -> None:
    outbox: Outbox[int] = Outbox(limit=2)
    assert outbox.offer(0)
    assert not outbox.full
    assert outbox.offer(1)
    assert outbox.full
    assert not outbox.offer(99)
    async with asyncio.TaskGroup() as group:
        putters = [group.create_task(outbox.put(item)) for item in (2, 3, 4)]
        await asyncio.sleep(1)
        assert not any(putter.done() for putter in putters)
        assert len(outbox) == 2
        assert await anext(outbox) == 0
        await asyncio.sleep(1)
        assert [putter.done() for putter in putters] == [True, False, False]
        assert len(outbox) == 2
        assert [await anext(outbox) for _ in range(4)] == [1, 2, 3, 4]


@virtually
async def test_closing_an_outbox_frees_waiting_putters_and_keeps_what_is_queued() -> None:
    outbox: Outbox[int] = Outbox(limit=1)
    await outbox.put(0)
    putter = asyncio.ensure_future(outbox.put(1))
    await asyncio.sleep(1)
    outbox.close()
    with pytest.raises(OutboxClosed):
        await putter
    with pytest.raises(OutboxClosed):
        await outbox.put(2)
    assert not outbox.offer(3)
    assert await read_all(outbox) == [0]


@virtually
async def test_a_putter_cancelled_as_it_is_woken_passes_the_room_on() -> None:
    outbox: Outbox[int] = Outbox(limit=1)
    await outbox.put(0)
    first, second = (asyncio.ensure_future(outbox.put(item)) for item in (1, 2))
    await asyncio.sleep(1)
    assert await anext(outbox) == 0
    first.cancel()
    await second
    assert await anext(outbox) == 2


@virtually
async def test_a_putter_cancelled_before_the_others_are_woken_is_only_cancelled() -> None:
    outbox: Outbox[int] = Outbox(limit=1)
    await outbox.put(0)
    first, second = (asyncio.ensure_future(outbox.put(item)) for item in (1, 2))
    await asyncio.sleep(1)
    first.cancel()
    outbox.close()
    assert [type(each) for each in await asyncio.gather(first, second, return_exceptions=True)] == [
        asyncio.CancelledError,
        OutboxClosed,
    ]


@virtually
async def test_a_cancelled_reader_loses_nothing_and_another_may_follow() -> None:
    outbox: Outbox[int] = Outbox(limit=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(outbox)
    outbox.offer(7)
    assert await anext(outbox) == 7


@virtually
async def test_two_readers_of_one_outbox_are_an_error() -> None:
    outbox: Outbox[int] = Outbox()
    first = asyncio.ensure_future(anext(outbox))
    await asyncio.sleep(1)
    with pytest.raises(RuntimeError, match="one reader"):
        await anext(outbox)
    outbox.offer(1)
    assert await first == 1


@virtually
async def test_inbox_drains_everything_that_arrived() -> None:
    inbox: Inbox[int] = Inbox(limit=10)
    consumer = asyncio.ensure_future(inbox.drain())
    await asyncio.sleep(1)
    assert not consumer.done()
    for item in range(3):
        inbox.push(item)
    assert await consumer == [0, 1, 2]
    assert inbox.take() == []
    inbox.push(3)
    assert await inbox.drain() == [3]


@virtually
async def test_a_full_inbox_holds_producers_until_it_is_drained() -> None:
    inbox: Inbox[int] = Inbox(limit=2)
    most = 0

    async def produce(items: range) -> None:
        nonlocal most
        for item in items:
            await inbox.room()
            inbox.push(item)
            most = max(most, len(inbox))

    async with asyncio.TaskGroup() as group:
        for start in (0, 10, 20):
            group.create_task(produce(range(start, start + 5)))
        await asyncio.sleep(1)
        assert inbox.full
        received: list[int] = []
        while len(received) < 15:
            received += await inbox.drain()
            await asyncio.sleep(1)
    assert most == 2
    assert sorted(received) == [*range(5), *range(10, 15), *range(20, 25)]
    assert [item for item in received if item < 10] == list(range(5))


@virtually
async def test_a_drain_takes_no_more_bytes_than_it_is_told_and_loses_no_order() -> None:
    inbox: Inbox[int] = Inbox()
    for item, size in enumerate((4, 0, 4, 4, 100, 1)):
        inbox.push(item, size)
    assert [await inbox.drain(10) for _ in range(3)] == [[0, 1, 2, 3], [4], [5]]
    assert not inbox.full


@virtually
async def test_an_inbox_is_full_of_bytes_too() -> None:
    inbox: Inbox[int] = Inbox(limit_bytes=10)
    inbox.push(1, 9)
    await inbox.room()
    inbox.push(2, 1)
    assert inbox.full
    waiting = asyncio.ensure_future(inbox.room())
    await asyncio.sleep(1)
    assert not waiting.done()
    inbox.take(9)
    await waiting


@virtually
async def test_a_drain_that_times_out_as_an_item_arrives_leaves_it() -> None:
    inbox: Inbox[int] = Inbox()
    consumer = asyncio.ensure_future(inbox.drain())
    await asyncio.sleep(1)
    inbox.push(1)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert await inbox.drain() == [1]


@pytest.mark.parametrize("kind", [Outbox, Inbox])
def test_a_limit_below_one_is_refused(kind: type[Outbox[int]] | type[Inbox[int]]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        kind(limit=0)
