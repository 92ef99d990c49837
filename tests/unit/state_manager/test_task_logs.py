"""LogService over a real socket: appended, read, followed, refused; and its database's own ways."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import grpc
import grpc.aio
import pytest
from nodeflow.common.v1.log_chunk_pb2 import LogChunk
from nodeflow.state_manager.v1 import log_service_pb2 as pb
from nodeflow.state_manager.v1.log_service_pb2_grpc import LogServiceStub

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import StartupError
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_state_manager.adapters.log_schema import LOG_METADATA
from nodeflow_state_manager.adapters.sqlite_engine import LOGS_FILE, open_readers
from nodeflow_state_manager.adapters.sqlite_logs import open_sqlite_logs
from nodeflow_state_manager.bootstrap import StateManager, build
from nodeflow_state_manager.config import StateManagerSettings
from nodeflow_state_manager.domain.values import LogChunk as StoredChunk
from nodeflow_state_manager.domain.values import StoredLogChunk
from nodeflow_state_manager.ports import StoreFull
from nodeflow_state_manager.task_logs import TaskLogs
from nodeflow_testing.memory_task_logs import MemoryLogStore
from nodeflow_testing.virtual_loop import run


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[StateManager]:
    service = await build(StateManagerSettings(data_dir=tmp_path, shard_count=4))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        await service.ready.wait()
        yield service
        await service.drain()
    await service.close()


@pytest.fixture
async def logs(service: StateManager) -> AsyncIterator[LogServiceStub]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    service.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield LogServiceStub(channel)
    await server.stop(0)


def chunk(
    first: int = 1, *, execution: str = "e", tenant: str = "t", task: int = 0, token: int = 1, runs: bytes = b"r"
) -> LogChunk:
    return LogChunk(
        tenant=tenant,
        execution_id=execution,
        task_number=task,
        attempt_number=1,
        fencing_token=token,
        first_line=first,
        line_count=1,
        runs=runs,
    )


def stored_chunk(first: int, *, task: int) -> StoredChunk:
    return StoredChunk(
        tenant="t",
        execution_id="e",
        task_number=task,
        attempt_number=1,
        fencing_token=1,
        first_line=first,
        line_count=1,
        runs=b"r",
    )


async def append(logs: LogServiceStub, *batches: list[LogChunk]) -> list[int]:
    async def requests() -> AsyncIterator[pb.AppendLogsRequest]:
        for number, chunks in enumerate(batches, 1):
            yield pb.AppendLogsRequest(batch_id=number, chunks=chunks)

    return [response.batch_id async for response in logs.AppendLogs(requests())]


async def read(
    logs: LogServiceStub, *, after_position: int = 0, task_number: int | None = None
) -> list[tuple[int, LogChunk]]:
    request = pb.ReadLogsRequest(tenant="t", execution_id="e", after_position=after_position, task_number=task_number)
    responses = logs.ReadLogs(request)
    return [(each.position, each.chunk) async for response in responses for each in response.chunks]


async def test_what_is_appended_is_read_as_it_came(logs: LogServiceStub) -> None:
    sent = [chunk(1, runs=b"\x00\xff"), chunk(1, task=3), chunk(2)]
    assert await append(logs, sent[:2], sent[2:], sent) == [1, 2, 3]
    assert await read(logs) == list(enumerate(sent, 1))
    assert await read(logs, after_position=2) == [(3, sent[2])]
    assert await read(logs, task_number=3) == [(2, sent[1])]


async def test_a_follower_gets_what_comes_later(logs: LogServiceStub) -> None:
    await append(logs, [chunk(1)])
    responses = aiter(logs.ReadLogs(pb.ReadLogsRequest(tenant="t", execution_id="e", follow=True, from_end=True)))
    assert (await anext(responses)).last_position == 1
    await append(logs, [chunk(2)], [chunk(1, execution="other")])
    assert [each.chunk.first_line for each in (await anext(responses)).chunks] == [2]


class WatchedStore(MemoryLogStore):
    """Remembers behind which positions it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_after: list[int] = []

    async def read(
        self,
        tenant: str,
        execution_id: str,
        after_position: int,
        *,
        task_number: int | None = None,
        attempt_number: int | None = None,
    ) -> list[StoredLogChunk]:
        self.read_after.append(after_position)
        return await super().read(
            tenant, execution_id, after_position, task_number=task_number, attempt_number=attempt_number
        )


def test_a_follower_of_one_task_does_not_look_again_at_what_others_wrote() -> None:
    """With every chunk of an execution that writes much, it would look through all of it."""
    store = WatchedStore()

    async def scenario() -> None:
        logs = TaskLogs(store)
        others = [stored_chunk(first, task=2) for first in range(1, 11)]
        await logs.append([others[:9]])
        following = asyncio.ensure_future(anext(logs.read(("t", "e"), 0, follow=True, task_number=1)))
        await asyncio.sleep(1)
        await logs.append([others[9:]])
        await asyncio.sleep(1)
        await logs.append([[stored_chunk(1, task=1)]])
        assert [each.position for each in await following] == [11]

    run(scenario)
    assert store.read_after == [0, 9, 10]


async def test_a_stop_ends_followers(service: StateManager, logs: LogServiceStub) -> None:
    responses = aiter(logs.ReadLogs(pb.ReadLogsRequest(tenant="t", execution_id="e", follow=True)))
    await anext(responses)
    await service.drain()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(responses)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "bad",
    [
        chunk(0),
        chunk((1 << 63) - 1),
        chunk(token=1 << 63),
        chunk(tenant="../x"),
        chunk(execution=""),
        chunk(runs=bytes((1 << 20) + 1)),
    ],
)
async def test_a_malformed_chunk_is_refused(logs: LogServiceStub, bad: LogChunk) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await append(logs, [bad])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await read(logs) == []


async def test_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    await (await open_sqlite_logs(tmp_path)).close()
    engine = open_readers(tmp_path / LOGS_FILE)
    with engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection)
        assert alembic.autogenerate.compare_metadata(context, LOG_METADATA) == []
    engine.dispose()


async def test_a_database_of_a_later_release_is_refused(tmp_path: Path) -> None:
    await (await open_sqlite_logs(tmp_path)).close()
    with sqlite3.connect(tmp_path / LOGS_FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StartupError, match="9999"):
        await open_sqlite_logs(tmp_path)


async def test_a_full_disk_stores_nothing_of_a_group_and_the_store_goes_on(tmp_path: Path) -> None:
    store = await open_sqlite_logs(tmp_path, max_pages=40)

    def part(first: int, size: int) -> StoredChunk:
        return StoredChunk(
            tenant="t",
            execution_id="e",
            task_number=0,
            attempt_number=1,
            fencing_token=1,
            first_line=first,
            line_count=1,
            runs=bytes(size),
        )

    with pytest.raises(StoreFull):
        await store.append([[part(1, 10)], [part(2, 1_000_000)]])
    assert await store.last_position("t", "e") == 0
    await store.append([[part(1, 10)]])
    assert await store.last_position("t", "e") == 1
    await store.close()
