"""The one loop: drain every inbox → decide → append → act.

A turn takes all that has arrived and does not wait for its commit; a bounded number of turns may be on their way to the log, so batches grow by themselves under load
and shrink to one when idle. What a turn decided takes effect, in the order of the turns, once the log has it. The driver knows the world through its ports only, and time through its clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from nodeflow_scheduler.domain.core import Core, not_ours
from nodeflow_scheduler.domain.events import sequence_count
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.failures import expression_failed
from nodeflow_scheduler.domain.messages import (
    ArgumentsFailed,
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
from nodeflow_scheduler.domain.placement import Grant, Session
from nodeflow_scheduler.domain.progress import MAP_BYTES_LIMIT, Draft
from nodeflow_scheduler.ports import Artifacts, EventLog, LoggedChunk, Prepared, Workers
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.logs import get_log
from nodeflow_shared.streams import Inbox

_log = get_log()

PENDING_TURNS = 4
"""How many turns may wait for their commit. More would only make batches smaller."""

INBOX_LIMIT = 4_096
"""Messages that may wait for a turn; readers of the network stop beyond it."""


@dataclass(slots=True)
class Subscription:
    """A reader of one execution's commits. It is told that there is more, and keeps no more than the next few chunks."""

    execution_id: str
    chunks: deque[LoggedChunk] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    overflown: bool = False
    """It fell behind: it must read the log again."""
    ended: bool = False
    """There will be no more here."""


SUBSCRIPTION_LIMIT = 256
"""Chunks that a reader may be behind before it reads the log again."""


class Driver:
    """Runs the core."""

    def __init__(
        self,
        core: Core,
        inbox: Inbox[Input],
        log: EventLog,
        workers: Workers,
        artifacts: Artifacts,
        clock: Clock,
    ) -> None:
        self.core = core
        self.inbox = inbox
        self._log = log
        self._workers = workers
        self._artifacts = artifacts
        self._clock = clock
        self._turns: deque[tuple[Turn, Awaitable[frozenset[int]] | None]] = deque()
        self._turns_changed = asyncio.Condition()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms: int | None = None
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._group: asyncio.TaskGroup | None = None
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
            while len(self._turns) >= PENDING_TURNS:
                await self._turns_change()
            inputs = await self.inbox.drain()
            turn = self.core.step(inputs, self._clock.now_ms())
            self._request_artifacts(turn)
            committed = self._log.append(turn.writes) if turn.writes else None
            self._turns.append((turn, committed))
            await self._notify_turns()
            self._hand_out()
            self._set_timer()

    async def _commit(self) -> None:
        while True:
            while not self._turns:
                await self._turns_change()
            turn, committed = self._turns[0]
            refused = await committed if committed is not None else frozenset[int]()
            self._act(turn, refused)
            self._turns.popleft()
            await self._notify_turns()

    async def _turns_change(self) -> None:
        async with self._turns_changed:
            await self._turns_changed.wait()

    async def _notify_turns(self) -> None:
        async with self._turns_changed:
            self._turns_changed.notify_all()

    async def settled(self) -> None:
        """Waits until all that was decided so far is committed, so that an answer may reflect it."""
        if not self._turns:
            return
        last = self._turns[-1][0]
        while any(turn is last for turn, _ in self._turns):
            await self._turns_change()

    def _act(self, turn: Turn, refused: frozenset[int]) -> None:
        """A turn is in the log: tell everyone."""
        if refused:
            _log.warning("append_refused", shards=sorted(refused))
            self.inbox.push(ShardsLost(shards=refused))
            self.lost_shards.put_nowait(refused)
        outgoing = self.core.commit(turn, refused)
        self._request_artifacts(turn)
        self._publish(turn, refused)
        self._tell_workers(outgoing)
        for reply in turn.replies:
            reply.handle.answer(not_ours(reply.shard) if reply.shard in refused else reply.answer)
        self._hand_out()

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

    # ----------------------------------------------------------------- handouts

    def _hand_out(self) -> None:
        """Gives what waits to workers with room."""
        placement = self.core.placement
        for session_id, grants in placement.assign().items():
            session = placement.sessions[session_id]
            prepared = self._prepare(session, grants)
            if prepared:
                self._workers.assign(session.manager, session_id, session.generation, prepared)

    def _prepare(self, session: Session, grants: Sequence[Grant]) -> list[Prepared]:
        prepared = []
        for grant in grants:
            execution, task, _ = grant
            scope = execution.scope_of(task) if execution.expansions else execution
            node = execution.workflow.nodes[execution.node_of(task) if execution.expansions else task]
            try:
                prepared.append(Prepared(grant, node.arguments.render(scope)))
            except NodeflowError as error:
                session.live.discard(grant.key)
                failure = expression_failed(f"with of node {node.name!r}", error.message)
                self.inbox.push(
                    ArgumentsFailed(
                        execution_id=execution.execution_id, task=task, attempt=grant.attempt, failure=failure
                    )
                )
        return prepared

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
            data = await self._artifacts.fetch(fetch.tenant, digest, MAP_BYTES_LIMIT)
        except NodeflowError as error:
            self.inbox.push(ArtifactFetched(digest=digest, data=None, problem=error.message))
        else:
            self.inbox.push(ArtifactFetched(digest=digest, data=data))

    async def _keep(self, keep: Keep) -> None:
        await self._artifacts.keep(keep.tenant, keep.value)
        self.inbox.push(ArtifactKept(tenant=keep.tenant, digest=keep.value.digest))

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

    # ------------------------------------------------------------------ readers

    def subscribe(self, execution_id: str) -> Subscription:
        """Begins to follow the commits of an execution. End it with `unsubscribe`."""
        subscription = Subscription(execution_id)
        self._subscriptions.setdefault(execution_id, []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Ends it."""
        others = self._subscriptions[subscription.execution_id]
        others.remove(subscription)
        if not others:
            del self._subscriptions[subscription.execution_id]

    def end_subscriptions(self) -> None:
        """Tells all readers to go on elsewhere, or later."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.ended = True
                subscription.arrived.set()

    def _publish(self, turn: Turn, refused: frozenset[int]) -> None:
        if not self._subscriptions:
            return
        for execution_id, draft in turn.drafts.items():
            if not draft.events or draft.execution.shard in refused:
                continue
            subscriptions = self._subscriptions.get(execution_id)
            if subscriptions is None:
                continue
            chunk = logged_chunk(draft)
            for subscription in subscriptions:
                if len(subscription.chunks) >= SUBSCRIPTION_LIMIT:
                    subscription.chunks.clear()
                    subscription.overflown = True
                subscription.chunks.append(chunk)
                subscription.arrived.set()

    def execution(self, execution_id: str) -> Execution | None:
        """An execution that is in memory. What it says may not be committed yet: await `settled` before answering."""
        return self.core.executions.get(execution_id)


def logged_chunk(draft: Draft) -> LoggedChunk:
    """A committed draft, as readers of the log see it."""
    last = draft.first_sequence + sum(map(sequence_count, draft.events)) - 1
    return LoggedChunk(
        first_sequence=draft.first_sequence, last_sequence=last, time_ms=draft.now_ms, events=draft.events
    )
