"""Leases on shards: who gets them, for how long, and that a token is never granted twice."""

import asyncio
from dataclasses import replace

from tests.contract.store.conftest import SHARDS, Home
from tests.support.state_manager_values import HOLDER, LONG_MS, a_start, append

from nodeflow_state_manager.domain.values import HeldShard, ShardLease
from nodeflow_state_manager.ports import Store

OTHER = "scheduler-1"


def tokens(leases: list[ShardLease]) -> dict[int, int]:
    return {lease.shard: lease.fencing_token for lease in leases}


async def test_free_shards_are_granted_all_or_as_named(store: Store) -> None:
    assert store.shard_count == SHARDS
    assert tokens(await store.acquire_shards(HOLDER, [2], LONG_MS)) == {2: 1}
    assert tokens(await store.acquire_shards(OTHER, [], LONG_MS)) == {0: 1, 1: 1, 3: 1}


async def test_a_held_shard_is_not_granted_to_another(leased: Store) -> None:
    assert await leased.acquire_shards(OTHER, [], LONG_MS) == []
    assert await leased.acquire_shards(OTHER, [1], LONG_MS) == []


async def test_the_same_holder_gets_a_higher_token_at_once(leased: Store) -> None:
    assert tokens(await leased.acquire_shards(HOLDER, [0, 1], LONG_MS)) == {0: 2, 1: 2}


async def test_a_lease_that_ended_is_granted_to_another(store: Store) -> None:
    await store.acquire_shards(HOLDER, [0], 50)
    async with asyncio.timeout(10):
        while not (leases := await store.acquire_shards(OTHER, [0], LONG_MS)):
            pass
    assert tokens(leases) == {0: 2}


async def test_expiry_is_the_wanted_span_from_now(store: Store) -> None:
    (first,) = await store.acquire_shards(HOLDER, [0], 1_000)
    (second,) = await store.acquire_shards(HOLDER, [0], 61_000)
    assert 60_000 <= second.expire_time_ms - first.expire_time_ms < 70_000
    assert first.expire_time_ms > 1_700_000_000_000


async def test_renewal_keeps_a_lease_from_others(store: Store) -> None:
    await store.acquire_shards(HOLDER, [0], 0)
    held = HeldShard(shard=0, fencing_token=1)
    assert await store.renew_shards(HOLDER, [held], LONG_MS) == []  # it had just ended, and nobody took it
    assert await store.acquire_shards(OTHER, [0], LONG_MS) == []


async def test_renewal_names_what_is_lost(leased: Store) -> None:
    await leased.acquire_shards(HOLDER, [1], LONG_MS)
    held = [HeldShard(shard=shard, fencing_token=1) for shard in (0, 1)]
    assert await leased.renew_shards(HOLDER, held, LONG_MS) == [1]
    assert await leased.renew_shards(OTHER, held, LONG_MS) == [0, 1]


async def test_a_released_shard_is_free_and_its_tokens_go_on(leased: Store) -> None:
    held = HeldShard(shard=2, fencing_token=1)
    await leased.release_shards(OTHER, [held])
    assert await leased.acquire_shards(OTHER, [2], LONG_MS) == []
    await leased.release_shards(HOLDER, [HeldShard(shard=2, fencing_token=9)])
    assert await leased.acquire_shards(OTHER, [2], LONG_MS) == []
    await leased.release_shards(HOLDER, [held])
    await leased.release_shards(HOLDER, [held])
    assert await leased.renew_shards(HOLDER, [held], LONG_MS) == [2]
    assert tokens(await leased.acquire_shards(OTHER, [2], LONG_MS)) == {2: 2}


async def test_a_lease_tells_the_time_of_the_last_event(leased: Store) -> None:
    late = replace(a_start("a"), last_event_time_ms=2_000)
    early = replace(a_start("b", offset=1), last_event_time_ms=1_000)
    refused = replace(a_start("c", offset=9), last_event_time_ms=3_000)
    for part in (late, early, refused):
        await append(leased, part)
    leases = await leased.acquire_shards(HOLDER, [0, 1], LONG_MS)
    assert [lease.last_event_time_ms for lease in leases] == [2_000, 0]


async def test_leases_tokens_offsets_and_times_outlive_the_process(home: Home, leased: Store) -> None:
    assert await append(leased, replace(a_start("a", events=5), last_event_time_ms=2_000)) == []
    again = await home.reopen()
    assert again.shard_count == SHARDS
    assert await again.acquire_shards(OTHER, [], LONG_MS) == []
    (lease,) = await again.acquire_shards(HOLDER, [0], LONG_MS)
    assert (lease.fencing_token, lease.next_offset, lease.last_event_time_ms) == (2, 5, 2_000)
