"""Whether a store can be written to: lost with a write that failed, regained when a probe succeeds.

Owns the probes and their pace. Must not know what is written. After a full disk, writing goes on only when there is
room for more than a little, so that a store at the edge does not come and go with every batch.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from nodeflow_shared.logs import get_log
from nodeflow_shared.retry import reconnect_delays
from nodeflow_state_manager.ports import StoreFailed, StoreFull

ROOM_BYTES: Final = 16 << 20
"""What must be free before a store that was full is written to again."""
FIRST_PROBE_S: Final = 0.25
LONGEST_PROBE_S: Final = 2.0

_log = get_log()

T = TypeVar("T")


class Writability:
    """One store's. `probe` gets the bytes that there must be room for; `ready` is set while writes succeed."""

    def __init__(
        self, name: str, probe: Callable[[int], Awaitable[None]], *, first_probe_s: float = FIRST_PROBE_S
    ) -> None:
        self._name = name
        self._probe = probe
        self._first_probe_s = first_probe_s
        self._failed = asyncio.Event()
        self._room_bytes = 0
        self.problem: StoreFailed | None = None
        """Why nothing can be written now."""
        self.ready = asyncio.Event()

    def lose(self, error: StoreFailed, size_bytes: int = 0) -> None:
        """A write of so many bytes failed."""
        if self.problem is None:
            _log.error("store_not_writable", store=self._name, reason=error.reason, error=error.message)
        self.problem = error
        self._room_bytes = max(ROOM_BYTES, size_bytes) if isinstance(error, StoreFull) else 0
        self.ready.clear()
        self._failed.set()

    async def watched(self, write: Awaitable[T]) -> T:
        """Return what a write gives; one that fails loses the store."""
        try:
            return await write
        except StoreFailed as error:
            self.lose(error)
            raise

    async def run(self) -> None:
        """Probe whenever writes fail, until cancelled."""
        if self.problem is None:
            self.ready.set()
        while True:
            await self._failed.wait()
            await self._regain()
            _log.info("store_writable", store=self._name)
            self._failed.clear()
            self.problem = None
            self.ready.set()

    async def _regain(self) -> None:
        for delay_s in reconnect_delays(self._first_probe_s, LONGEST_PROBE_S):
            await asyncio.sleep(delay_s)
            try:
                await self._probe(self._room_bytes)
            except StoreFailed as error:
                self.problem = error
            else:
                return
