"""What every store of output promises: each line once, in order, at gapless positions, whoever sends it how often."""

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from nodeflow_state_manager.adapters.sqlite_logs import open_sqlite_logs
from nodeflow_state_manager.domain.values import LogChunk, StoredLogChunk
from nodeflow_state_manager.ports import LogStore
from nodeflow_testing.memory_task_logs import MemoryLogStore
from nodeflow_testing.simulated_disk import Disk

Reopen = Callable[[], Coroutine[Any, Any, LogStore]]


@pytest.fixture(params=["sqlite", "memory"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    disk = Disk()
    opened: list[LogStore] = []

    async def open_again() -> LogStore:
        for store in opened:
            await store.close()
        opened[:] = [MemoryLogStore(disk) if request.param == "memory" else await open_sqlite_logs(tmp_path)]
        return opened[0]

    yield open_again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> LogStore:
    return await reopen()


def chunk(
    first: int,
    count: int = 1,
    *,
    task: int = 0,
    attempt: int = 1,
    token: int = 1,
    execution: str = "e",
    data: bytes = b"x",
) -> LogChunk:
    return LogChunk(
        tenant="t",
        execution_id=execution,
        task_number=task,
        attempt_number=attempt,
        fencing_token=token,
        first_line=first,
        line_count=count,
        runs=data,
    )


async def everything(store: LogStore, execution: str = "e", after: int = 0, **terms: int) -> list[StoredLogChunk]:
    found: list[StoredLogChunk] = []
    while chunks := await store.read("t", execution, found[-1].position if found else after, **terms):
        found += chunks
    return found


async def test_chunks_have_gapless_positions_in_the_order_of_their_commits(store: LogStore) -> None:
    sent = [chunk(1, 2), chunk(1, task=5), chunk(3, data=b"\x00\xff")]
    assert await store.append([sent[:1], sent[1:]]) == [[], []]
    assert await everything(store) == [StoredLogChunk(position=n, chunk=each) for n, each in enumerate(sent, 1)]
    assert await store.last_position("t", "e") == 3


async def test_what_is_sent_again_is_stored_once(store: LogStore) -> None:
    await store.append([[chunk(1, 2), chunk(3)]])
    await store.append([[chunk(1, 2), chunk(3), chunk(4)], [chunk(4)]])
    assert [each.chunk.first_line for each in await everything(store)] == [1, 3, 4]
    assert await store.last_position("t", "e") == 3


async def test_attempts_and_tokens_are_counted_apart(store: LogStore) -> None:
    sent = [chunk(1), chunk(1, attempt=2), chunk(1, token=2), chunk(1, task=1)]
    await store.append([sent])
    assert [each.chunk for each in await everything(store)] == sent
    assert [each.chunk for each in await everything(store, task_number=1)] == sent[3:]
    assert [each.position for each in await everything(store, task_number=0, attempt_number=1)] == [1, 3]


async def test_executions_and_tenants_do_not_meet(store: LogStore) -> None:
    await store.append([[chunk(1), chunk(1, execution="other"), chunk(2)]])
    assert [each.position for each in await everything(store)] == [1, 2]
    assert [each.position for each in await everything(store, "other")] == [1]
    assert await store.read("u", "e", 0) == []
    assert await store.last_position("u", "e") == 0


async def test_reading_goes_on_after_any_position(store: LogStore) -> None:
    sent = [chunk(number, data=bytes(200_000)) for number in range(1, 31)]
    await store.append([[each] for each in sent])
    first = await store.read("t", "e", 0)
    assert 1 <= len(first) < len(sent)  # by the MiB, not all at once
    assert [each.chunk.first_line for each in await everything(store, after=first[-1].position)] == list(
        range(len(first) + 1, 31)
    )
    assert await store.read("t", "e", 30) == []


async def test_output_outlives_the_store(store: LogStore, reopen: Reopen) -> None:
    await store.append([[chunk(1), chunk(2)]])
    again = await reopen()
    await again.append([[chunk(2), chunk(3)]])
    assert [(each.position, each.chunk.first_line) for each in await everything(again)] == [(1, 1), (2, 2), (3, 3)]
