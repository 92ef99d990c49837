"""What is read from the log: by execution, and whole shards for who takes them over."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.contract.store.conftest import Home
from tests.support.state_manager_values import a_chunk, a_part, a_record, a_start, append, chunks_of

from nodeflow_shared.errors import NotFound, StaleLease
from nodeflow_state_manager.domain.values import ExecutionSlice, ExecutionState, HeldShard, ShardAppend, Snapshot
from nodeflow_state_manager.ports import Store


def held(*shards: int, token: int = 1) -> list[HeldShard]:
    return [HeldShard(shard=shard, fencing_token=token) for shard in shards]


async def read_open(store: Store, shards: Sequence[HeldShard]) -> dict[str, list[ExecutionSlice]]:
    pieces: dict[str, list[ExecutionSlice]] = {}
    async for group in store.read_open(shards):
        for piece in group:
            pieces.setdefault(piece.execution_id, []).append(piece)
    return pieces


def long_execution(count: int, data: bytes) -> ShardAppend:
    chunks = [a_chunk("long", 1 + n, 1, data) for n in range(count)]
    return ShardAppend(shard=0, fencing_token=1, expected_offset=0, chunks=chunks, records=[a_record("long")])


async def test_reading_begins_with_the_chunk_that_holds_the_next_event(leased: Store) -> None:
    assert await append(leased, a_start("a", events=3)) == []
    assert await append(leased, a_part(3, a_chunk("a", 4, 3), a_chunk("a", 7))) == []
    firsts = {after: [chunk.first_sequence for chunk in await chunks_of(leased, "a", after)] for after in range(9)}
    assert firsts == {
        0: [1, 4, 7],
        1: [1, 4, 7],
        2: [1, 4, 7],
        3: [4, 7],
        4: [4, 7],
        5: [4, 7],
        6: [7],
        7: [],
        8: [],
    }


async def test_the_record_comes_first_even_when_there_is_nothing_new(leased: Store) -> None:
    assert await append(leased, a_start("a")) == []
    pieces = [piece async for piece in leased.read_execution("a", 1, allow_snapshot=True)]
    assert pieces == [ExecutionSlice(execution_id="a", chunks=[], record=a_record("a"), last=True)]


async def test_an_unknown_execution_is_not_found(leased: Store) -> None:
    with pytest.raises(NotFound):
        await chunks_of(leased, "nobody")


async def test_a_snapshot_stands_for_the_chunks_it_covers(leased: Store) -> None:
    snapshot = Snapshot(execution_id="a", sequence=4, data=b"at 4")
    assert await append(leased, a_start("a", events=2)) == []
    part = replace(a_part(2, a_chunk("a", 3, 2), a_chunk("a", 5, 2)), snapshots=[snapshot])
    assert await append(leased, part) == []

    async def read(after: int) -> tuple[Snapshot | None, list[int]]:
        pieces = [piece async for piece in leased.read_execution("a", after, allow_snapshot=True)]
        return pieces[0].snapshot, [chunk.first_sequence for piece in pieces for chunk in piece.chunks]

    assert await read(0) == (snapshot, [5])
    assert await read(3) == (snapshot, [5])
    assert await read(4) == (None, [5])
    assert [chunk.first_sequence for chunk in await chunks_of(leased, "a")] == [1, 3, 5]


async def test_a_snapshot_within_a_chunk_leaves_that_chunk_in(leased: Store) -> None:
    snapshot = Snapshot(execution_id="a", sequence=2, data=b"at 2")
    assert await append(leased, replace(a_start("a", events=3), snapshots=[snapshot])) == []
    (pieces,) = (await read_open(leased, held(0))).values()
    assert [(chunk.first_sequence, chunk.event_count) for chunk in pieces[0].chunks] == [(1, 3)]


async def test_a_long_execution_spans_slices_that_fit_together(leased: Store) -> None:
    assert await append(leased, long_execution(600, b"x" * 8_192)) == []
    pieces = [piece async for piece in leased.read_execution("long", 0, allow_snapshot=False)]
    assert len(pieces) > 2
    assert all(len(piece.chunks) * 8_192 < 4 << 20 for piece in pieces)
    assert [piece.record is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [chunk.first_sequence for piece in pieces for chunk in piece.chunks] == list(range(1, 601))


async def test_open_executions_of_the_shards_are_read_whole(home: Home, leased: Store) -> None:
    assert await append(leased, long_execution(600, b"x" * 8_192), a_start("b", shard=1), a_start("c", shard=2)) == []
    assert await append(leased, a_part(1, a_chunk("b", 2), shard=1)) == []
    again = await home.reopen()
    found = await read_open(again, held(0, 1))
    assert set(found) == {"long", "b"}
    assert [chunk.first_sequence for piece in found["long"] for chunk in piece.chunks] == list(range(1, 601))
    assert [piece.last for piece in found["long"]][-1:] == [True]
    assert found["b"] == [
        ExecutionSlice(
            execution_id="b",
            record=a_record("b", shard=1),
            chunks=[a_chunk("b", 1)._replace(first_offset=0), a_chunk("b", 2)._replace(first_offset=1)],
            last=True,
        )
    ]


async def test_final_executions_are_not_read(leased: Store) -> None:
    for offset, state in enumerate(ExecutionState):
        part = replace(a_start(state.name, offset=offset), records=[a_record(state.name, state=state)])
        assert await append(leased, part) == []
    assert set(await read_open(leased, held(0))) == {"PENDING", "QUEUED", "RUNNING", "PAUSED"}


async def test_many_open_executions_come_in_groups(leased: Store) -> None:
    chunks = [a_chunk(f"e{n}", 1) for n in range(700)]
    part = replace(a_part(0, *chunks), records=[a_record(f"e{n}") for n in range(700)])
    assert await append(leased, part) == []
    assert set(await read_open(leased, held(0, 1, 2, 3))) == {f"e{n}" for n in range(700)}


async def test_reading_needs_the_current_token(leased: Store) -> None:
    with pytest.raises(StaleLease):
        await read_open(leased, held(0, token=2))
    await leased.release_shards("scheduler-0", held(0))
    with pytest.raises(StaleLease):
        await read_open(leased, held(0))
