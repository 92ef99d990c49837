"""Shards as they come and go: acquired once, renewed in time, given up before their leases end. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.scheduler.making import Caller, chain, report, submit, updates
from tests.unit.scheduler.replica import SHARDS, TIMEOUT_S, Replica

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.messages import Tick
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.driver import PENDING_TURNS, TURN_BYTES
from nodeflow_scheduler.ownership import LOOK_AGAIN_S
from nodeflow_shared.errors import Unavailable
from nodeflow_testing.virtual_loop import run


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


def test_a_replica_that_stands_by_is_not_ready_until_it_has_a_shard() -> None:
    async def test(replica: Replica) -> None:
        replica.leases.others = set(range(SHARDS))
        await asyncio.sleep(2 * LOOK_AGAIN_S)
        assert replica.leases.acquired
        assert not replica.ownership.ready.is_set()
        replica.leases.others = {0, 1, 2}
        await asyncio.sleep(2 * LOOK_AGAIN_S)
        assert replica.served == [3]
        assert replica.ownership.ready.is_set()

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
        claims = [[0, 1, 2, 3], [0, 2, 3]]
        assert replica.workers.claims == claims, "worker-managers refuse all of a scheduler that claims another's shard"
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


def test_nothing_is_acquired_again_while_a_release_takes_its_time_where_others_hold_shards_too() -> None:
    """What is acquired then is under tokens that the release does not name: nobody has it until its lease ends."""

    async def test(replica: Replica) -> None:
        replica.leases.others = {3}
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        await replica.submit("e1", 1)
        release = asyncio.ensure_future(replica.ownership.release())
        await asyncio.sleep(2 * LOOK_AGAIN_S)
        replica.log.waiting[0].set_result(frozenset())
        await release
        assert replica.leases.acquired == [[0, 1, 2]]
        assert replica.leases.released == [0, 1, 2]

    scenario(test)


def test_a_release_waits_for_all_that_has_come_in_however_many_turns_that_takes() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        callers = [Caller() for _ in range(3)]
        for number, caller in enumerate(callers):
            replica.driver.inbox.push(submit(chain(1), f"e{number}", shard=1, caller=caller), TURN_BYTES)
        await replica.ownership.release()
        assert replica.served == [], "decided before the shards are given back"
        assert [type(caller.only) for caller in callers] == [Execution, Execution, Unavailable]
        assert replica.leases.released == [0, 1, 2, 3]

    scenario(test)


def test_an_outage_that_only_a_renewal_met_ends_with_the_next_one_that_succeeds() -> None:
    """Nothing else is written by a scheduler that is idle: it would refuse everything from then on."""

    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.leases.full = True
        await asyncio.sleep(TIMEOUT_S / 3)
        assert replica.driver.outage.error is not None
        replica.leases.full = False
        await asyncio.sleep(TIMEOUT_S / 3)
        assert replica.driver.outage.error is None
        assert replica.served == [0, 1, 2, 3]

    scenario(test)


def test_a_renewal_that_succeeds_is_no_end_of_an_outage_while_a_turn_waits_for_the_log() -> None:
    """A full disk may have room for a lease, and none for events."""

    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        await replica.submit("e1", 1)
        replica.driver.outage.note(Unavailable("the database is full", reason="DISK_FULL"))
        renewals = replica.leases.renewals
        await asyncio.sleep(TIMEOUT_S)
        assert replica.leases.renewals > renewals
        assert replica.driver.outage.error is not None

    scenario(test)


def test_a_reader_that_waits_for_a_commit_is_sent_elsewhere_when_the_shard_is_given_up() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        await replica.submit("e1", 1)
        reading = asyncio.ensure_future(replica.driver.committed(1))
        await asyncio.sleep(0.001)
        replica.driver.give_up(frozenset({1}))
        with pytest.raises(Unavailable) as refused:
            await asyncio.wait_for(reading, 1)
        assert refused.value.reason == "SHARD_NOT_HERE"
        assert not replica.driver.serves(1)

    scenario(test)


def test_a_reader_that_waits_for_a_commit_is_told_of_an_outage_that_begins_meanwhile() -> None:
    async def test(replica: Replica) -> None:
        await replica.ownership.ready.wait()
        replica.log.prompt = False
        await replica.submit("e1", 1)
        reading = [asyncio.ensure_future(replica.driver.committed()) for _ in range(2)]
        await asyncio.sleep(0.001)
        replica.driver.outage.note(Unavailable("the database is full", reason="DISK_FULL"))
        told = await asyncio.gather(*reading, return_exceptions=True)
        assert [each.reason for each in told if isinstance(each, Unavailable)] == ["DISK_FULL"] * 2
        replica.driver.outage.over()
        later = asyncio.ensure_future(replica.driver.committed())
        await asyncio.sleep(0.001)
        assert not later.done()
        replica.log.waiting[0].set_result(frozenset())
        await later

    scenario(test)
