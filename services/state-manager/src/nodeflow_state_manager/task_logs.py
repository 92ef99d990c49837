"""Output of attempts as it comes in: who stores it, and who waits for more of it.

Owns the order of the two: readers are woken after the commit. Must not know messages.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from nodeflow_shared.errors import Unavailable
from nodeflow_state_manager.domain.values import LogChunk, Refusal, StoredLogChunk
from nodeflow_state_manager.ports import LogStore

Name = tuple[str, str]
"""Tenant and execution."""


class TaskLogs:
    """A LogStore with readers that follow it. A group commit writes here."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._followers: dict[Name, set[asyncio.Event]] = {}
        self._stopping = False

    async def append(self, batches: Sequence[Sequence[LogChunk]]) -> list[list[Refusal]]:
        """Commit chunks, and wake whoever follows their executions."""
        answers = await self._store.append(batches)
        for name in {(chunk.tenant, chunk.execution_id) for batch in batches for chunk in batch}:
            for follower in self._followers.get(name, ()):
                follower.set()
        return answers

    async def check_writable(self, room_bytes: int) -> None:
        """Commit something small, and see that there is room for so many bytes more; raises StoreFailed if not."""
        await self._store.check_writable(room_bytes)

    async def last_position(self, name: Name) -> int:
        """Return the position of an execution's last chunk."""
        return await self._store.last_position(*name)

    async def read(
        self,
        name: Name,
        after_position: int,
        *,
        follow: bool,
        task_number: int | None = None,
        attempt_number: int | None = None,
    ) -> AsyncIterator[Sequence[StoredLogChunk]]:
        """Yield an execution's chunks to their end; with `follow`, go on with each that is stored, without end."""
        more = asyncio.Event()
        followers = self._followers.setdefault(name, set())
        followers.add(more)
        try:
            while True:
                more.clear()
                last = await self._store.last_position(*name)
                while chunks := await self._store.read(
                    *name, after_position, task_number=task_number, attempt_number=attempt_number
                ):
                    after_position = chunks[-1].position
                    yield chunks
                if not follow:
                    return
                after_position = max(after_position, last)  # What is of others is not gone through again.
                await self._wait(more)
        finally:
            followers.remove(more)
            if not followers and self._followers.get(name) is followers:
                del self._followers[name]

    def end(self) -> None:
        """End all that follow: the service stops."""
        self._stopping = True
        for followers in self._followers.values():
            for follower in followers:
                follower.set()

    async def _wait(self, more: asyncio.Event) -> None:
        if not self._stopping:
            await more.wait()
        if self._stopping:
            raise Unavailable("the state-manager is stopping", reason="STOPPING", retry_after_s=0.5)
