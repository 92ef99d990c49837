"""What any store accepts and refuses, and that it keeps all of the one and nothing of the other."""

from dataclasses import replace

from tests.contract.store.conftest import Home
from tests.support.state_manager_values import (
    HOLDER,
    LONG_MS,
    a_batch,
    a_chunk,
    a_part,
    a_record,
    a_start,
    append,
    chunks_of,
    reasons,
)

from nodeflow_state_manager.domain.values import (
    ArtifactRecord,
    ArtifactUse,
    ExecutionState,
    HeldShard,
    RefusalReason,
    Snapshot,
)
from nodeflow_state_manager.ports import Store

STALE = RefusalReason.STALE_TOKEN
OFFSET = RefusalReason.WRONG_OFFSET
SEQUENCE = RefusalReason.WRONG_SEQUENCE
DIGEST = "sha256:" + "a" * 64


async def next_offset(store: Store, shard: int = 0) -> int:
    (lease,) = await store.acquire_shards(HOLDER, [shard], LONG_MS)
    return lease.next_offset


async def test_what_was_appended_is_read_in_order_with_offsets(leased: Store) -> None:
    assert await append(leased, a_start("a", events=3)) == []
    assert await append(leased, a_part(3, a_chunk("a", 4, 2), a_chunk("a", 6))) == []
    assert await chunks_of(leased, "a") == [
        a_chunk("a", 1, 3)._replace(first_offset=0),
        a_chunk("a", 4, 2)._replace(first_offset=3),
        a_chunk("a", 6)._replace(first_offset=5),
    ]
    assert await next_offset(leased) == 6


async def test_offsets_are_counted_per_shard_over_executions(leased: Store) -> None:
    assert await append(leased, a_start("a", events=2), a_start("z", shard=3)) == []
    assert await append(leased, a_start("b", offset=2)) == []
    assert [chunk.first_offset for chunk in await chunks_of(leased, "b")] == [2]
    assert [chunk.first_offset for chunk in await chunks_of(leased, "z")] == [0]


async def test_an_old_token_is_refused_and_nothing_of_the_part_is_kept(leased: Store) -> None:
    await leased.acquire_shards(HOLDER, [0], LONG_MS)
    assert await append(leased, a_start("a", token=1)) == [(0, STALE)]
    assert await leased.get_executions(["a"]) == []
    assert await append(leased, a_start("a", token=2)) == []


async def test_a_token_that_was_never_granted_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a", token=2)) == [(0, STALE)]


async def test_a_shard_that_nobody_holds_takes_nothing(store: Store) -> None:
    assert await append(store, a_start("a", token=0)) == [(0, STALE)]


async def test_a_released_lease_is_stale(leased: Store) -> None:
    leases = await leased.acquire_shards(HOLDER, [1], LONG_MS)
    held = [HeldShard(shard=lease.shard, fencing_token=lease.fencing_token) for lease in leases]
    await leased.release_shards(HOLDER, held)
    assert await append(leased, a_start("a", shard=1, token=2)) == [(1, STALE)]


async def test_a_lease_that_ended_but_was_not_taken_still_writes(store: Store) -> None:
    await store.acquire_shards(HOLDER, [0], 0)
    assert await append(store, a_start("a")) == []


async def test_a_stale_member_of_a_group_fails_alone(leased: Store) -> None:
    await leased.acquire_shards("scheduler-1", [], LONG_MS)  # takes nothing: the leases have not ended
    await leased.acquire_shards(HOLDER, [1], LONG_MS)
    refusals = await leased.append(
        [a_batch(a_start("a"), a_start("b", shard=1, token=1)), a_batch(a_start("c", shard=2))]
    )
    assert [reasons(each) for each in refusals] == [[(1, STALE)], []]
    assert {each.execution_id for each in await leased.get_executions(["a", "b", "c"])} == {"a", "c"}


async def test_an_offset_ahead_of_the_log_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a", offset=5)) == [(0, OFFSET)]


async def test_a_resend_succeeds_and_is_not_written_twice(leased: Store) -> None:
    part = replace(a_start("a"), chunks=[a_chunk("a", 1, 2), a_chunk("a", 3)])
    assert await append(leased, part) == []
    assert await append(leased, a_part(3, a_chunk("a", 4))) == []
    assert await append(leased, part) == []
    assert [chunk.first_sequence for chunk in await chunks_of(leased, "a")] == [1, 3, 4]
    assert await next_offset(leased) == 4


async def test_a_resend_after_a_restart_succeeds(home: Home, leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    again = await home.reopen()
    assert await append(again, a_start("a")) == []
    assert len(await chunks_of(again, "a")) == 1


async def test_a_resend_does_not_bring_back_an_old_record(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    done = replace(a_part(1, a_chunk("a", 2)), records=[a_record("a", state=ExecutionState.COMPLETED)])
    assert await append(leased, done) == []
    assert await append(leased, a_start("a")) == []
    (record,) = await leased.get_executions(["a"])
    assert record.state is ExecutionState.COMPLETED


async def test_a_resend_with_other_content_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    other = replace(a_start("a"), chunks=[a_chunk("a", 1, data=b"other")])
    assert await append(leased, other) == [(0, OFFSET)]
    assert [chunk.data for chunk in await chunks_of(leased, "a")] == [b"a@1"]


async def test_a_resend_that_goes_on_beyond_the_log_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    longer = replace(a_start("a"), chunks=[a_chunk("a", 1), a_chunk("a", 2)])
    assert await append(leased, longer) == [(0, OFFSET)]


async def test_a_resend_under_an_old_token_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    await leased.acquire_shards(HOLDER, [0], LONG_MS)
    assert await append(leased, a_start("a")) == [(0, STALE)]


async def test_the_same_part_twice_in_one_group_is_written_once(leased: Store) -> None:
    refusals = await leased.append([a_batch(a_start("a")), a_batch(a_start("a")), a_batch(a_part(1, a_chunk("a", 2)))])
    assert refusals == [[], [], []]
    assert [chunk.first_sequence for chunk in await chunks_of(leased, "a")] == [1, 2]


async def test_pipelined_batches_of_one_shard_are_taken_in_order(leased: Store) -> None:
    refusals = await leased.append(
        [a_batch(a_start("a")), a_batch(a_part(1, a_chunk("a", 2, 3))), a_batch(a_part(4, a_chunk("a", 5)))]
    )
    assert refusals == [[], [], []]
    assert [chunk.first_offset for chunk in await chunks_of(leased, "a")] == [0, 1, 4]


async def test_what_follows_a_refused_part_is_refused_too(leased: Store) -> None:
    refusals = await leased.append([a_batch(a_start("a", offset=1)), a_batch(a_part(2, a_chunk("a", 2)))])
    assert [reasons(each) for each in refusals] == [[(0, OFFSET)], [(0, OFFSET)]]


async def test_a_gap_in_sequences_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a", events=2)) == []
    assert await append(leased, a_part(2, a_chunk("a", 4))) == [(0, SEQUENCE)]
    assert await append(leased, a_part(2, a_chunk("a", 2))) == [(0, SEQUENCE)]
    assert await append(leased, a_part(2, a_chunk("a", 3))) == []


async def test_a_gap_within_a_part_refuses_all_of_it(leased: Store) -> None:
    part = replace(a_start("a"), chunks=[a_chunk("a", 1), a_chunk("a", 3)])
    assert await append(leased, part) == [(0, SEQUENCE)]
    assert await leased.get_executions(["a"]) == []
    assert await append(leased, a_start("a")) == []


async def test_sequences_go_on_after_a_restart(home: Home, leased: Store) -> None:
    assert await append(leased, a_start("a", events=2)) == []
    again = await home.reopen()
    assert await append(again, a_part(2, a_chunk("a", 4))) == [(0, SEQUENCE)]
    assert await append(again, a_part(2, a_chunk("a", 3))) == []


async def test_an_execution_without_a_record_is_refused(leased: Store) -> None:
    assert await append(leased, a_part(0, a_chunk("a", 1))) == [(0, SEQUENCE)]


async def test_an_execution_of_another_shard_is_refused(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    assert await append(leased, a_part(0, a_chunk("a", 2), shard=1)) == [(1, SEQUENCE)]
    stolen = replace(a_part(0, shard=1), records=[a_record("a", shard=1)])
    assert await append(leased, stolen) == [(1, SEQUENCE)]
    (record,) = await leased.get_executions(["a"])
    assert record.shard == 0


async def test_an_execution_that_was_finished_can_be_named_again(leased: Store) -> None:
    done = replace(a_start("a"), records=[a_record("a", state=ExecutionState.COMPLETED)])
    assert await append(leased, done) == []
    assert await append(leased, a_part(1, a_chunk("a", 1))) == [(0, SEQUENCE)]
    assert await append(leased, a_part(1, a_chunk("a", 2))) == []


async def test_a_missing_artifact_refuses_the_part(leased: Store) -> None:
    part = replace(a_start("a"), artifacts=[ArtifactUse(tenant="default", digest=DIGEST)])
    assert await append(leased, part) == [(0, RefusalReason.MISSING_ARTIFACT)]
    other_tenant = ArtifactRecord(tenant="other", digest=DIGEST, size_bytes=1, content_type="text/plain")
    await leased.put_artifact(other_tenant)
    assert await append(leased, part) == [(0, RefusalReason.MISSING_ARTIFACT)]
    await leased.put_artifact(replace(other_tenant, tenant="default"))
    assert await append(leased, part) == []


async def test_records_are_replaced_whole(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    after = replace(
        a_record("a", state=ExecutionState.FAILED, labels={"team": "b"}, finish_time_ms=2_000), finished_task_count=7
    )
    assert await append(leased, replace(a_part(1), records=[after])) == []
    assert await leased.get_executions(["a"]) == [after]


async def test_a_snapshot_is_kept_and_only_a_later_one_replaces_it(leased: Store) -> None:
    def snapshot(sequence: int) -> Snapshot:
        return Snapshot(execution_id="a", sequence=sequence, data=f"at {sequence}".encode())

    async def kept() -> Snapshot | None:
        pieces = [piece async for piece in leased.read_execution("a", 0, allow_snapshot=True)]
        return pieces[0].snapshot

    assert await append(leased, replace(a_start("a", events=4), snapshots=[snapshot(2)])) == []
    assert await kept() == snapshot(2)
    assert await append(leased, replace(a_part(4), snapshots=[snapshot(4)])) == []
    assert await append(leased, replace(a_part(4), snapshots=[snapshot(3)])) == []
    assert await kept() == snapshot(4)


async def test_a_snapshot_of_what_is_not_in_the_log_is_refused(leased: Store) -> None:
    ahead = Snapshot(execution_id="a", sequence=2, data=b"ahead")
    assert await append(leased, replace(a_start("a"), snapshots=[ahead])) == [(0, SEQUENCE)]
    assert await append(leased, replace(a_part(0), snapshots=[ahead])) == [(0, SEQUENCE)]


async def test_a_group_of_many_batches_commits_together(leased: Store) -> None:
    batches = [a_batch(a_start(f"e{n}", offset=n // 4, shard=n % 4)) for n in range(400)]
    assert await leased.append(batches) == [[]] * 400
    assert len(await leased.get_executions([f"e{n}" for n in range(400)])) == 400
    assert await next_offset(leased, 3) == 100
