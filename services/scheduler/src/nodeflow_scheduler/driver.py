"""The one loop: drain every inbox → decide → append → act.

A turn takes all that has arrived and does not wait for its commit; a bounded number of turns may be on their way to the
log, so batches grow by themselves under load and shrink to one when idle. What a turn decided takes effect, in the
order of the turns, once the log has it. The driver knows the world through its ports only, and time through its clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field

from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.fan_out import MAP_BYTES_LIMIT
from nodeflow_scheduler.domain.ledger import not_ours
from nodeflow_scheduler.domain.messages import (
    ArtifactFetched,
    ArtifactKept,
    Fetch,
    Input,
    Keep,
    Outgoing,
    ShardsLost,
    Tick,
    Turn,
)
from nodeflow_scheduler.handouts import Handouts
from nodeflow_scheduler.outage import Outage
from nodeflow_scheduler.ports import Artifacts, EventLog, Workers
from nodeflow_scheduler.publishing import Publisher
from nodeflow_scheduler.verification import Verification
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.streams import Inbox

_log = get_log()

PENDING_TURNS = 2
"""How many turns may wait for their commit. More would only make batches smaller."""

INBOX_LIMIT = 4_096
INBOX_LIMIT_BYTES = 64 * 1024 * 1024
"""Messages that may wait for a turn, and what they take; readers of the network stop beyond it."""
TURN_BYTES = 8 * 1024 * 1024
"""How much one turn takes in, and a message: so what it decides fits into messages to the log."""
TRANSFERS_AT_ONCE = 16
"""Artifacts that are read or written for decisions at the same time."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A turn on its way to the log."""

    turn: Turn
    committed: Awaitable[frozenset[int]] | None
    """Gives the shards that were refused; None when there is nothing to write."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the turn has taken effect."""


class Driver:
    """Runs the core."""

    def __init__(
        self,
        *,
        core: Core,
        inbox: Inbox[Input],
        log: EventLog,
        workers: Workers,
        artifacts: Artifacts,
        clock: Clock,
        outage: Outage,
    ) -> None:
        self.core = core
        self.inbox = inbox
        self.outage = outage
        outage.on_refused = self._tell_readers
        self._news = asyncio.Event()
        """Set for a moment when a turn is over, and when the log refuses all writes."""
        self._log = log
        self._workers = workers
        self._artifacts = artifacts
        self._verification = Verification(artifacts, self._tenant_of)
        self._clock = clock
        self._pending: deque[_Pending] = deque()
        self._decided = asyncio.Event()
        self._deciding = 0
        """How many inputs a turn has taken that is not decided yet."""
        self._inputs = 0
        """How many inputs were decided about."""
        self._turned = asyncio.Event()
        """Set for a moment after each."""
        self._refusals = 0
        self._given_up: set[int] = set()
        """Shards whose loss is in the inbox."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms: int | None = None
        self.publisher = Publisher()
        self._handouts = Handouts(core.placement, workers, inbox, clock)
        self._group: asyncio.TaskGroup | None = None
        self._transfers = asyncio.Semaphore(TRANSFERS_AT_ONCE)
        self.lost_shards: asyncio.Queue[frozenset[int]] = asyncio.Queue()
        """Shards whose append was refused; `ownership.py` acquires them anew."""

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._decide(), name="decide")
            group.create_task(self._commit(), name="commit")

    # -------------------------------------------------------------------- turns

    async def _decide(self) -> None:
        while True:
            while len(self._pending) >= PENDING_TURNS:
                await self._pending[0].over.wait()
            inputs = await self.inbox.drain(TURN_BYTES)
            self._deciding = len(inputs)
            await self._verification.verify(inputs)
            turn = self.core.step(inputs, self._clock.now_ms())
            if turn.shards_lost:
                self._given_up.difference_update(*(each.shards for each in inputs if isinstance(each, ShardsLost)))
                self.publisher.renew()
            self._request_artifacts(turn)
            committed = self._log.append(turn.writes) if turn.writes else None
            self._pending.append(_Pending(turn, committed))
            self._decided.set()
            self._handouts.hand_out()
            self._set_timer()
            self._deciding = 0
            self._inputs += len(inputs)
            self._turned.set()
            self._turned.clear()

    async def _commit(self) -> None:
        while True:
            await self._decided.wait()
            while self._pending:
                pending = self._pending[0]
                refused = await pending.committed if pending.committed is not None else frozenset[int]()
                self._act(pending.turn, refused)
                self._pending.popleft()
                pending.over.set()
                self._tell_readers()
            self._decided.clear()

    def _tell_readers(self) -> None:
        self._news.set()
        self._news.clear()

    async def settled(self) -> None:
        """Waits until the log has answered all that was decided so far."""
        if self._pending:
            await self._pending[-1].over.wait()

    async def quiet(self) -> None:
        """Waits until all that has arrived by now is decided, and answered by the log."""
        due = self._inputs + self._deciding + len(self.inbox)  # They are taken in order.
        while self._inputs < due:
            await self._turned.wait()
        await self.settled()

    @property
    def waits_for_log(self) -> bool:
        """Whether something was decided that the log has not answered yet."""
        return bool(self._pending)

    def is_pending(self, execution_id: str) -> bool:
        """Whether something was decided about an execution that the log has not answered yet."""
        return any(execution_id in pending.turn.drafts for pending in self._pending)

    async def committed(self, shard: int | None = None) -> None:
        """Waits until an answer may reflect all that was decided so far, for as long as the shard it is about is ours.

        Raises Unavailable if part of that never happened, or if nothing can be made durable at the moment.
        """
        refusals = self._refusals
        last = self._pending[-1].over if self._pending else None
        while last is not None and not last.is_set():
            self.outage.check()
            if shard is not None and not self.serves(shard):
                raise not_ours(shard)
            await self._news.wait()
        if self._refusals != refusals:
            raise Unavailable("this scheduler has lost a shard in between; try again", retry_after_s=0.2)

    def _act(self, turn: Turn, refused: frozenset[int]) -> None:
        """A turn is in the log: tell everyone."""
        if refused:
            _log.warning("append_refused", shards=sorted(refused))
            self._refusals += 1
            self.publisher.renew()
            self.lost_shards.put_nowait(refused)
        outgoing = self.core.commit(turn, refused)
        self._request_artifacts(turn)
        self.publisher.publish(turn, outgoing.refused)
        self._tell_workers(outgoing)
        for reply in outgoing.replies:
            reply.handle.answer(reply.answer)
        self._handouts.hand_out()

    def _tell_workers(self, outgoing: Outgoing) -> None:
        sessions = self.core.placement.sessions
        for session_id, result_ids in outgoing.acks.items():
            session = sessions.get(session_id)
            if session is not None:
                self._workers.acknowledge(session.manager, {session_id: result_ids})
        for session_id, refs in outgoing.stops.items():
            session = sessions.get(session_id)
            if session is not None:
                self._workers.stop(session.manager, {session_id: refs})

    # ---------------------------------------------------------------- artifacts

    def _request_artifacts(self, turn: Turn) -> None:
        """Starts what the turn asked for. Reading, and writing under a digest, may happen before the commit."""
        fetches, turn.fetches = turn.fetches, []
        keeps, turn.keeps = turn.keeps, []
        if (fetches or keeps) and self._group is not None:
            for fetch in fetches:
                self._group.create_task(self._fetch(fetch), name=f"fetch {fetch.value.digest}")
            for keep in keeps:
                self._group.create_task(self._keep(keep), name=f"keep {keep.value.digest}")

    async def _fetch(self, fetch: Fetch) -> None:
        digest = fetch.value.digest
        try:
            async with self._transfers:
                data = await self._artifacts.fetch(fetch.tenant, digest, MAP_BYTES_LIMIT)
        except NodeflowError as error:
            self.inbox.push(ArtifactFetched(tenant=fetch.tenant, digest=digest, data=None, problem=error.message))
        else:
            self.inbox.push(ArtifactFetched(tenant=fetch.tenant, digest=digest, data=data), len(data))

    async def _keep(self, keep: Keep) -> None:
        digest = keep.value.digest
        try:
            async with self._transfers:
                await self._artifacts.keep(keep.tenant, keep.value)
        except NodeflowError as error:
            self.inbox.push(ArtifactKept(tenant=keep.tenant, digest=digest, problem=error.message))
        else:
            self.inbox.push(ArtifactKept(tenant=keep.tenant, digest=digest))

    # --------------------------------------------------------------------- time

    def _set_timer(self) -> None:
        due_ms = self.core.next_due_ms()
        if due_ms == self._timer_due_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due_ms = due_ms
        if due_ms is not None:
            delay_s = max(0, due_ms - self._clock.now_ms()) / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer_due_ms = None
        self.inbox.push(Tick())

    def _tenant_of(self, execution_id: str) -> str | None:
        execution = self.core.executions.get(execution_id)
        return execution.tenant if execution is not None else None

    def serves(self, shard: int) -> bool:
        """Whether a shard is ours, as far as we know."""
        return shard in self.core.ledger.leases and shard not in self._given_up

    def give_up(self, shards: frozenset[int]) -> None:
        """Shards are not ours any more. Readers are sent elsewhere at once; the rest is for the next turn to decide,
        which may have to wait for the log.
        """
        self._given_up |= shards
        self.inbox.push(ShardsLost(shards=shards))
        self.publisher.renew()
        self._tell_readers()

    def execution(self, execution_id: str) -> Execution | None:
        """An execution that is in memory. What it says may not be committed yet: await `committed` before answering."""
        return self.core.executions.get(execution_id)

    @property
    def forgotten_ms(self) -> int:
        """All executions that were accepted later than this are in memory."""
        return self.core.ledger.forgotten_ms
