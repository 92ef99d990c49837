"""Which shards are ours: acquires leases, loads what is open in them, renews them, and lets go before they end.

A lease is counted from before the request for it, on the monotonic clock, so it ends here before it ends in the
database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from nodeflow_scheduler.domain.messages import Lease, ShardsAcquired
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.ports import Compiled, EventLog, Granted, Journal, ShardLeases, Workers
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.retry import STARTING_S

_log = get_log()

RETRY_S = 0.2
"""How long to wait before what failed is tried again."""
LOOK_AGAIN_S = 0.5
"""How often shards that another replica holds are asked for."""
MARGIN = 0.1
"""The share of a lease's time that is given up for safety."""


class Ownership:
    """Keeps the shards of this replica."""

    def __init__(
        self,
        *,
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
        self._missing = 0
        self._acquiring: asyncio.Task[None] | None = None
        self._has_stale_claims = False
        """Whether worker-managers were told of shards that are not ours any more."""
        self.shard_count = 0
        """How many shards there are in all; 0 before this is known."""
        self.ready = asyncio.Event()
        """Set while there are shards of ours, and all that could be had are loaded.

        A replica that stands by has none, and is not ready: whoever picks a scheduler by its health finds an owner.
        """

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_renewed(), name="renew shards")
            self._acquiring = group.create_task(self._keep_acquired(), name="acquire shards")

    async def release(self) -> None:
        """Gives everything back, so that another replica need not wait. From then on nothing is decided here."""
        if self._acquiring is not None:
            self._acquiring.cancel()  # What it acquired from now on would be ours until its lease ends.
        held, self._held = self._held, {}
        self._driver.give_up(frozenset(held))
        await self._driver.quiet()
        if held:
            try:
                await self._leases.release(list(held.values()))
            except NodeflowError as error:
                _log.warning("shards_not_released", reason=error.reason, error=error.message)

    # ------------------------------------------------------------------ acquire

    async def _keep_acquired(self) -> None:
        """Acquires all shards that can be had, and those that were lost or that others give up."""
        await self._acquire(())
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_S if self._missing else None):
                    lost = await self._driver.lost_shards.get()
            except TimeoutError:
                pass
            else:
                self.ready.clear()
                await self._let_go(lost)
            missing = [shard for shard in range(self.shard_count) if shard not in self._held]
            granted = await self._acquire(missing) if missing else False
            if self._has_stale_claims and not granted:
                # Worker-managers refuse all claims of a scheduler that makes a stale one.
                self._claim()

    async def _let_go(self, lost: frozenset[int]) -> None:
        """Ends all that goes on in lost shards, until nothing of it is on its way to the log any more."""
        queue = self._driver.lost_shards
        while True:
            while not queue.empty():
                lost |= queue.get_nowait()
            self._has_stale_claims = True
            for shard in lost:
                self._held.pop(shard, None)
            self._driver.give_up(lost)
            self._log_of_events.forget(lost)
            await self._driver.quiet()
            if queue.empty():
                return

    async def _acquire(self, shards: Sequence[int]) -> bool:
        """Asks for shards, for all if none are named, until there is an answer, and loads what was granted.

        Returns whether anything was.
        """
        began_at, said = self._clock.monotonic(), False
        gained = False
        while True:
            asked_at = self._clock.monotonic()
            try:
                granted = await self._leases.acquire(shards)
                self._driver.outage.over()
                self._take(granted, asked_at)
                await self._load(granted)
            except NodeflowError as error:
                self._driver.outage.note(error)
                starting = isinstance(error, Unavailable) and asked_at - began_at < STARTING_S
                if not said and not starting:
                    _log.warning("shards_not_acquired", shards=len(shards), reason=error.reason, error=error.message)
                    said = True
                await asyncio.sleep(RETRY_S)
            else:
                gained = bool(granted.leases)
                break
        missing = self.shard_count - len(self._held)
        if missing and missing != self._missing:
            _log.info("shards_held_by_another", missing=missing)
        self._missing = missing
        if self._held:
            self.ready.set()
        return gained

    def _claim(self) -> None:
        self._has_stale_claims = False
        self._workers.claim(list(self._held.values()))

    def _take(self, granted: Granted, asked_at: float) -> None:
        """Counts leases as ours: from now on they are renewed, for loading may take longer than they last."""
        expires_at = asked_at + granted.timeout_s * (1 - MARGIN)
        self._expires_at = min(self._expires_at, expires_at) if self._held else expires_at
        self._timeout_s = granted.timeout_s
        self.shard_count = granted.shard_count
        self._held.update({lease.shard: lease for lease in granted.leases})

    async def _load(self, granted: Granted) -> None:
        if not granted.leases:
            return
        executions = [each async for each in self._journal.open_executions(granted.leases, self._compiled)]
        # No await between these: reports on the new claims must come after the shards, and none on earlier claims may.
        self._claim()
        self._driver.inbox.push(ShardsAcquired(leases=granted.leases, executions=executions))
        self._driver.publisher.renew()
        _log.info("shards_acquired", shards=len(granted.leases), open_executions=len(executions))

    # -------------------------------------------------------------------- renew

    async def _keep_renewed(self) -> None:
        wait_s = RETRY_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = await self._renew() if self._held else RETRY_S

    async def _renew(self) -> float:
        """Renews what is held, or gives it up when its time is over; returns how long to wait before the next time."""
        held = dict(self._held)
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._expires_at - asked_at):
                lost, timeout_s = await self._leases.renew(list(held.values()))
        except (NodeflowError, TimeoutError) as error:
            if isinstance(error, NodeflowError):
                self._driver.outage.note(error)
            _log.warning("renewal_failed", error=str(error) or "no answer before the leases end")
            if self._clock.monotonic() >= self._expires_at:
                self._lose(held, frozenset(held))
            return RETRY_S
        if not self._driver.waits_for_log:  # which knows better: a full disk may have room for leases, none for events
            self._driver.outage.over()
        expires_at = asked_at + timeout_s * (1 - MARGIN)
        taken_meanwhile = any(held.get(shard) is not lease for shard, lease in self._held.items())
        self._expires_at = min(self._expires_at, expires_at) if taken_meanwhile else expires_at
        self._lose(held, lost)
        return self._timeout_s / 4

    def _lose(self, asked: Mapping[int, Lease], lost: frozenset[int]) -> None:
        """Shards are not ours any more, unless they were acquired anew since they were asked about."""
        gone = frozenset(shard for shard in lost if self._held.get(shard) is asked[shard])
        if gone:
            for shard in gone:
                del self._held[shard]
            self._driver.give_up(gone)
            self._driver.lost_shards.put_nowait(gone)
