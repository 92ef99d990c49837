"""Which shards are ours: acquires leases, loads what is open in them, renews them, and lets go before they end.

A lease is counted from before the request for it, on the monotonic clock, so it ends here before it ends in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nodeflow_scheduler.domain.messages import Lease, ShardsAcquired, ShardsLost
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.ports import Compiled, EventLog, Granted, Journal, ShardLeases, Workers
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.logs import get_log

_log = get_log()

RETRY_S = 0.2
"""How long to wait before shards that could not be had, or could not be loaded, are asked for again."""
MARGIN = 0.1
"""The share of a lease's time that is given up for safety."""


class Ownership:
    """Keeps the shards of this replica."""

    def __init__(
        self,
        driver: Driver,
        leases: ShardLeases,
        journal: Journal,
        compiled: Compiled,
        log: EventLog,
        workers: Workers,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._leases = leases
        self._journal = journal
        self._compiled = compiled
        self._log_of_events = log
        self._workers = workers
        self._clock = clock
        self._held: dict[int, Lease] = {}
        self._expires_at = 0.0
        self._timeout_s = 0.0
        self.shard_count = 0
        self.ready = asyncio.Event()
        """Set while all shards that could be had are loaded."""

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._acquire(())
        self.ready.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_renewed(), name="renew shards")
            group.create_task(self._regain(), name="regain shards")

    async def release(self) -> None:
        """Gives everything back, so that another replica need not wait. Called when nothing is written any more."""
        if self._held:
            await self._leases.release(list(self._held.values()))
            self._held.clear()

    # ------------------------------------------------------------------ acquire

    async def _acquire(self, shards: Sequence[int]) -> None:
        """Asks for shards until they are ours and loaded."""
        while True:
            asked_at = self._clock.monotonic()
            try:
                granted = await self._leases.acquire(shards)
                await self._load(granted)
            except NodeflowError as error:
                _log.warning("shards_not_acquired", shards=len(shards), reason=error.reason, error=error.message)
            else:
                self._expires_at = asked_at + granted.timeout_s * (1 - MARGIN)
                missing = self.shard_count - len(self._held)
                if not missing:
                    return
                _log.info("shards_held_by_another", missing=missing)
                shards = [shard for shard in range(self.shard_count) if shard not in self._held]
            await asyncio.sleep(RETRY_S)

    async def _load(self, granted: Granted) -> None:
        executions = [each async for each in self._journal.open_executions(granted.leases, self._compiled)]
        self.shard_count = granted.shard_count
        self._timeout_s = granted.timeout_s
        self._held.update({lease.shard: lease for lease in granted.leases})
        # No await between these: reports on the new claims must come after the shards, and none on earlier claims may.
        self._workers.claim(list(self._held.values()))
        self._driver.inbox.push(ShardsAcquired(leases=granted.leases, executions=executions))
        _log.info("shards_acquired", shards=len(granted.leases), open_executions=len(executions))

    # -------------------------------------------------------------------- renew

    async def _keep_renewed(self) -> None:
        while True:
            await asyncio.sleep(self._timeout_s / 4)
            asked_at = self._clock.monotonic()
            try:
                lost, timeout_s = await self._leases.renew(list(self._held.values()))
            except NodeflowError as error:
                _log.warning("renewal_failed", reason=error.reason, error=error.message)
                if self._clock.monotonic() >= self._expires_at:
                    self._lose(frozenset(self._held))
                continue
            self._expires_at = asked_at + timeout_s * (1 - MARGIN)
            if lost:
                self._lose(lost)

    def _lose(self, shards: frozenset[int]) -> None:
        """Shards are not ours any more."""
        self._driver.inbox.push(ShardsLost(shards=shards))
        self._driver.lost_shards.put_nowait(shards)

    async def _regain(self) -> None:
        """Asks anew for shards that were lost, after what is on its way to the log has been answered."""
        while True:
            lost = await self._driver.lost_shards.get()
            self.ready.clear()
            for shard in lost:
                self._held.pop(shard, None)
            self._log_of_events.forget(lost)
            await self._driver.settled()
            await self._acquire(sorted(lost))
            self.ready.set()
