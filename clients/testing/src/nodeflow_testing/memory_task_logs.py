"""The state-manager's LogStore in memory, for runs on virtual time; it passes tests/contract/store/test_logs.py."""

import asyncio
from collections.abc import Sequence

from nodeflow_state_manager.domain.values import LogChunk, Refusal, StoredLogChunk
from nodeflow_state_manager.ports import StoreFull

CHUNKS_PER_READ = 16


class MemoryLogStore:
    """See nodeflow_state_manager.ports.LogStore. `failing` makes every write fail, as a full disk does."""

    def __init__(self) -> None:
        self.failing = False
        self._chunks: dict[tuple[str, str], list[LogChunk]] = {}

    async def append(self, batches: Sequence[Sequence[LogChunk]]) -> list[list[Refusal]]:
        await self.check_writable(0)
        for batch in batches:
            for chunk in batch:
                stored = self._chunks.setdefault((chunk.tenant, chunk.execution_id), [])
                ends = [each.first_line + each.line_count for each in stored if _attempt(each) == _attempt(chunk)]
                if chunk.first_line >= max(ends, default=1):
                    stored.append(chunk)
        return [[] for _ in batches]

    async def check_writable(self, room_bytes: int) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise StoreFull("the memory refuses", retry_after_s=1.0)

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


def _attempt(chunk: LogChunk) -> tuple[int, int, int]:
    return chunk.task_number, chunk.attempt_number, chunk.fencing_token
