"""The simulated disk: what was synced stays, what was not is lost in part, and recovery finds whole records only."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from nodeflow_testing.simulated_disk import Disk, DiskFull, Journal
from nodeflow_testing.virtual_loop import run

SEEDS = range(60)


def on_disk(scenario: Callable[[Disk], Awaitable[None]], seed: int = 0) -> Counter[str]:
    """Run a scenario; returns which faults struck."""
    faults: Counter[str] = Counter()

    async def main() -> None:
        await scenario(Disk(chance=random.Random(seed), faults=faults))

    run(main, seed=seed)
    return +faults


def write(journal: Journal[str], record: str, done: list[str]) -> Coroutine[Any, Any, None]:
    return journal.commit(lambda: record, done.append)


def recovered(disk: Disk) -> list[str]:
    journal: Journal[str] = disk.open("file")
    return journal.recover()


def test_what_was_synced_is_there_after_a_crash() -> None:
    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        journal: Journal[str] = disk.open("file")
        for record in ("a", "b", "c"):
            await write(journal, record, done)
        disk.crash()
        assert recovered(disk) == done == ["a", "b", "c"]
        assert recovered(disk) == done  # once more, when nothing happened

    assert on_disk(scenario) == {}


def test_a_crash_before_the_sync_keeps_a_record_whole_or_not_at_all() -> None:
    found = Counter[int]()
    faults = Counter[str]()

    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        disk.sync_s = 1.0
        journal: Journal[str] = disk.open("file")
        await write(journal, "first", done)
        second = asyncio.create_task(write(journal, "second " * 50, done))
        await asyncio.sleep(0.5)
        disk.crash()
        records = recovered(disk)
        assert records[0] == "first"
        assert records[1:] in ([], ["second " * 50])
        found[len(records)] += 1
        with pytest.raises(asyncio.CancelledError):  # whoever wrote it is dead, and is never told
            await second
        assert done == ["first"]
        # The next life writes behind what was found.
        journal = disk.open("file")
        assert journal.recover() == records
        await write(journal, "third", done)
        assert recovered(disk) == [*records, "third"]

    for seed in SEEDS:
        faults += on_disk(scenario, seed)
    assert min(found[1], found[2]) > 5
    assert min(faults["torn_write"], faults["lost_write"]) > 5


def test_a_record_that_was_damaged_ends_what_is_found() -> None:
    async def scenario(disk: Disk) -> None:
        journal: Journal[str] = disk.open("file")
        for record in ("a", "b", "c"):
            await write(journal, record, [])
        size = len(disk._files["file"].data) // 3
        disk._files["file"].data[size + 12] ^= 1
        assert recovered(disk) == ["a"]

    on_disk(scenario)


def test_a_full_disk_takes_nothing_until_it_has_room() -> None:
    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        journal: Journal[str] = disk.open("file")
        await write(journal, "a", done)
        disk.full = True
        with pytest.raises(DiskFull):
            await write(journal, "b", done)
        with pytest.raises(DiskFull):
            await journal.require_room()
        disk.full = False
        await journal.require_room()
        await write(journal, "c", done)
        assert recovered(disk) == done == ["a", "c"]

    assert on_disk(scenario) == {"disk_full": 2}


def test_transactions_wait_for_each_other_and_for_the_disk() -> None:
    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        disk.sync_s = iter([3.0, 2.0, 0.01]).__next__
        journal: Journal[str] = disk.open("file")
        loop = asyncio.get_running_loop()

        async def timed(record: str) -> float:
            await write(journal, record, done)
            return loop.time()

        assert await asyncio.gather(timed("a"), timed("b"), timed("c")) == pytest.approx([3.0, 5.0, 5.01])
        assert done == ["a", "b", "c"]

    assert on_disk(scenario) == {"slow_disk": 2}


def test_a_transaction_ends_though_nobody_waits_for_it_any_more() -> None:
    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        disk.sync_s = 1.0
        journal: Journal[str] = disk.open("file")
        waiting = asyncio.create_task(write(journal, "a", done))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await write(journal, "b", done)
        waiting = asyncio.create_task(write(journal, "c", done))
        refused = asyncio.create_task(write(journal, "d", done))
        await asyncio.sleep(0.5)
        refused.cancel()
        disk.full = True  # which nobody is told
        await waiting
        assert recovered(disk) == done == ["a", "b", "c"]

    on_disk(scenario)


def test_somebody_who_takes_no_time_writes_between_transactions() -> None:
    async def scenario(disk: Disk) -> None:
        done: list[str] = []
        disk.sync_s = 1.0
        journal: Journal[str] = disk.open("file")
        waiting = asyncio.create_task(write(journal, "a", done))
        await asyncio.sleep(0.5)
        assert not journal.commit_at_once(lambda: "never", done.append)
        await waiting
        assert journal.commit_at_once(lambda: "b", done.append)
        disk.full = True
        assert not journal.commit_at_once(lambda: "never", done.append)
        assert recovered(disk) == done == ["a", "b"]

    on_disk(scenario)
