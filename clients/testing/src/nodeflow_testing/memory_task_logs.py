"""The state-manager's LogStore in memory, for runs on virtual time; it passes tests/contract/store/test_logs.py."""

import asyncio
from collections.abc import Sequence

from nodeflow_state_manager.domain.values import LogChunk, Refusal, StoredLogChunk
from nodeflow_state_manager.ports import StoreFull
from nodeflow_testing.simulated_disk import Disk, DiskFull, Journal

Batches = Sequence[Sequence[LogChunk]]

CHUNKS_PER_READ = 16


class MemoryLogStore:
    """See nodeflow_state_manager.ports.LogStore. Built on a disk that has one already, it finds what recovery finds."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._chunks: dict[tuple[str, str], list[LogChunk]] = {}
        self._journal: Journal[Batches] = self.disk.open("task-logs")
        for batches in self._journal.recover():
            self._keep(batches)

    async def append(self, batches: Sequence[Sequence[LogChunk]]) -> list[list[Refusal]]:
        try:
            return await self._journal.commit(lambda: batches, self._keep)
        except DiskFull:
            raise _full() from None

    def _keep(self, batches: Batches) -> list[list[Refusal]]:
        for batch in batches:
            for chunk in batch:
                stored = self._chunks.setdefault((chunk.tenant, chunk.execution_id), [])
                ends = [each.first_line + each.line_count for each in stored if _attempt(each) == _attempt(chunk)]
                if chunk.first_line >= max(ends, default=1):
                    stored.append(chunk)
        return [[] for _ in batches]

    async def check_writable(self, room_bytes: int) -> None:
        try:
            await self._journal.require_room()
        except DiskFull:
            raise _full() from None

    async def last_position(self, tenant: str, execution_id: str) -> int:
        return len(self._chunks.get((tenant, execution_id), ()))

    async def read(
        self,
        tenant: str,
        execution_id: str,
        after_position: int,
        *,
        task_number: int | None = None,
        attempt_number: int | None = None,
    ) -> list[StoredLogChunk]:
        await asyncio.sleep(0)
        stored = self._chunks.get((tenant, execution_id), [])
        found = [
            StoredLogChunk(position=position, chunk=chunk)
            for position, chunk in enumerate(stored[after_position:], after_position + 1)
            if task_number in (None, chunk.task_number) and attempt_number in (None, chunk.attempt_number)
        ]
        return found[:CHUNKS_PER_READ]

    async def close(self) -> None:
        """Keep everything, as a file does."""


def _full() -> StoreFull:
    return StoreFull("the database refuses: database or disk is full", retry_after_s=1.0)


def _attempt(chunk: LogChunk) -> tuple[int, int, int]:
    return chunk.task_number, chunk.attempt_number, chunk.fencing_token
