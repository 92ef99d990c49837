"""What is special to SQLite: one process per directory, a full disk, durability, revisions of the schema."""

import sqlite3
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
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
)

from nodeflow_shared.errors import StartupError
from nodeflow_state_manager.adapters.schema import METADATA
from nodeflow_state_manager.adapters.sqlite import open_sqlite
from nodeflow_state_manager.adapters.sqlite_engine import DATABASE_FILE, PAGE_BYTES, open_readers
from nodeflow_state_manager.adapters.sqlite_reads import SLICE_BYTES, ExecutionReader, OpenReader
from nodeflow_state_manager.domain.values import ExecutionState, HeldShard, Refusal, Snapshot
from nodeflow_state_manager.ports import StoreFull


async def test_a_directory_belongs_to_one_process(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path, 4)
    with pytest.raises(StartupError, match="another state-manager has the data directory"):
        await open_sqlite(tmp_path, 4)
    await store.close()
    await (await open_sqlite(tmp_path, 4)).close()


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="cannot use the data directory"):
        await open_sqlite(tmp_path / "file" / "data", 4)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_text("not a database" * 1_000)
    with pytest.raises(StartupError, match="file is not a database"):
        await open_sqlite(tmp_path, 4)


async def test_a_database_of_a_later_release_is_refused(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path, 4)).close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StartupError, match="9999"):
        await open_sqlite(tmp_path, 4)


async def test_a_database_of_the_first_release_knows_the_times_of_its_shards(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path, 2)
    await store.acquire_shards(HOLDER, [], LONG_MS)
    over = a_record("over", create_time_ms=1_000, finish_time_ms=2_000, state=ExecutionState.COMPLETED)
    assert await append(store, replace(a_start("over"), records=[over])) == []
    await store.close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as connection:
        connection.execute("ALTER TABLE shards DROP COLUMN last_event_time_ms")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    store = await open_sqlite(tmp_path, 2)
    leases = await store.acquire_shards(HOLDER, [], LONG_MS)
    assert [lease.last_event_time_ms for lease in leases] == [2_000, 0]
    await store.close()


async def test_the_number_of_shards_is_that_of_the_database(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path, 4)).close()
    store = await open_sqlite(tmp_path, 64)
    assert store.shard_count == 4
    await store.close()


async def test_commits_are_synced_to_a_write_ahead_log(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path, 4)

    def settings() -> dict[str, object]:
        connection = store._writer._connection
        assert connection is not None
        names = ("journal_mode", "synchronous", "page_size", "busy_timeout")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names}

    found = await store._writer.in_thread(settings)
    full = 2
    assert found == {"journal_mode": "wal", "synchronous": full, "page_size": PAGE_BYTES, "busy_timeout": 5_000}
    await store.close()


async def test_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path, 4)).close()
    engine = open_readers(tmp_path / DATABASE_FILE)
    with engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection)
        assert alembic.autogenerate.compare_metadata(context, METADATA) == []
    engine.dispose()


async def test_a_full_disk_fails_the_group_whole_and_the_store_goes_on(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path, 4, max_pages=60)
    await store.acquire_shards(HOLDER, [], LONG_MS)
    assert await append(store, a_start("a")) == []
    large = [a_chunk("a", 2 + number, data=b"x" * PAGE_BYTES) for number in range(60)]
    with pytest.raises(StoreFull, match="full"):
        await store.append([a_batch(a_start("b", shard=1)), a_batch(a_part(1, *large))])
    assert await store.get_executions(["b"]) == []
    assert len(await chunks_of(store, "a")) == 1
    await store.check_writable(1)
    assert await append(store, a_start("b", shard=1), a_part(1, a_chunk("a", 2))) == []
    await store.close()
    again = await open_sqlite(tmp_path, 4)
    assert [chunk.first_sequence for chunk in await chunks_of(again, "a")] == [1, 2]
    await again.close()


async def test_a_fault_within_a_transaction_leaves_the_heads_right(tmp_path: Path) -> None:
    """The database's own constraints have the last word, and then nothing of the group is remembered."""
    store = await open_sqlite(tmp_path, 4)
    await store.acquire_shards(HOLDER, [], LONG_MS)
    assert await append(store, a_start("a")) == []
    broken = replace(a_part(1, a_chunk("a", 2)), records=[replace(a_record("a"), workflow=None)])  # type: ignore[arg-type]  # what wire never lets through
    with pytest.raises(Exception, match="NOT NULL"):
        await store.append([a_batch(broken)])
    refusals: list[list[Refusal]] = await store.append([a_batch(a_part(1, a_chunk("a", 2)))])
    assert refusals == [[]]
    await store.close()


async def test_reads_go_on_while_a_write_holds_the_database(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path, 4)
    await store.acquire_shards(HOLDER, [], LONG_MS)
    assert await append(store, a_start("a")) == []
    other = sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE shards SET next_offset = 99")
    (record,) = await store.get_executions(["a"])
    assert record == a_record("a")
    other.execute("ROLLBACK")
    other.close()
    await store.close()


async def test_what_is_read_is_in_memory_a_slice_at_a_time(tmp_path: Path) -> None:
    data, count = b"x" * (256 << 10), 64
    store = await open_sqlite(tmp_path, 2)
    await store.acquire_shards(HOLDER, [], LONG_MS)
    long = replace(a_part(0, *(a_chunk("long", 1 + n, 1, data) for n in range(count))), records=[a_record("long")])
    names = [f"e{n}" for n in range(count)]
    many = replace(
        a_part(0, *map(a_chunk, names, repeat(1)), shard=1),
        records=[a_record(name, shard=1) for name in names],
        snapshots=[Snapshot(execution_id=name, sequence=1, data=data) for name in names],
    )
    assert await append(store, long, many) == []
    await store.close()
    del long, many

    engine = open_readers(tmp_path / DATABASE_FILE)
    held = [HeldShard(shard=1, fencing_token=1)]
    with engine.begin() as connection:
        assert _peak(lambda: ExecutionReader("long", 0, allow_snapshot=True).next_slice(connection)) < 2 * SLICE_BYTES
        assert _peak(lambda: OpenReader(held).next_group(connection)) < 2 * SLICE_BYTES
    engine.dispose()


def _peak(read: Callable[[], object]) -> int:
    """Return how many bytes a call takes at most."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
