"""The stores that the suite runs for: SQLite on a real file, and memory. Each starts with four shards."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.support.state_manager_values import HOLDER, LONG_MS

from nodeflow_shared.clock import SystemClock
from nodeflow_state_manager.adapters.sqlite import SqliteStore, open_sqlite
from nodeflow_state_manager.ports import Store
from nodeflow_testing.memory_store import MemoryStore
from nodeflow_testing.simulated_disk import Disk

SHARDS = 4


class Home(Protocol):
    """Where a store lives: it can be closed and opened again."""

    async def open(self) -> Store: ...

    async def reopen(self) -> Store: ...

    async def close(self) -> None: ...


class SqliteHome:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._store: SqliteStore | None = None

    async def open(self) -> Store:
        self._store = await open_sqlite(self._directory, SHARDS)
        return self._store

    async def reopen(self) -> Store:
        await self.close()
        return await self.open()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()


class MemoryHome:
    def __init__(self) -> None:
        self._disk = Disk()

    async def open(self) -> Store:
        return MemoryStore(SHARDS, SystemClock(), disk=self._disk)

    async def reopen(self) -> Store:
        return await self.open()

    async def close(self) -> None:
        """There is nothing to release."""


@pytest.fixture(params=["sqlite", "memory"])
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    home: Home = SqliteHome(tmp_path) if request.param == "sqlite" else MemoryHome()
    yield home
    await home.close()


@pytest.fixture
async def store(home: Home) -> Store:
    """A new store."""
    return await home.open()


@pytest.fixture
async def leased(store: Store) -> Store:
    """A new store of which HOLDER has all shards, with token 1."""
    leases = await store.acquire_shards(HOLDER, [], LONG_MS)
    assert [(lease.shard, lease.fencing_token) for lease in leases] == [(shard, 1) for shard in range(SHARDS)]
    return store
