"""What readers are told of commits as they happen, and the last commits, for those who come a moment later.

Owns subscriptions and what they are behind by. Nothing here is the truth: who falls behind, or asks for more than is
kept, reads the log.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from nodeflow_scheduler.domain.events import sequence_count
from nodeflow_scheduler.domain.messages import Turn
from nodeflow_scheduler.domain.progress import Draft
from nodeflow_scheduler.ports import LoggedChunk

RECENT_EXECUTIONS = 256
RECENT_CHUNKS = 32
"""Of how many executions how many commits are kept: whoever submits and then watches mostly needs no log."""


@dataclass(slots=True)
class Subscription:
    """A reader of one execution's commits.

    It is told that there is more, and keeps no more than the next few chunks.
    """

    execution_id: str
    chunks: deque[LoggedChunk] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    overflown: bool = False
    """It fell behind: it must read the log again."""
    ended: bool = False
    """There will be no more here."""


SUBSCRIPTION_LIMIT = 256
"""Chunks that a reader may be behind before it reads the log again."""


class Publisher:
    """Tells readers what was committed."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._recent: OrderedDict[str, deque[Draft]] = OrderedDict()

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

    def recent(self, execution_id: str, after_sequence: int) -> list[LoggedChunk] | None:
        """All commits of an execution after a sequence; None if some are not kept, or there are none."""
        chunks = [logged_chunk(draft) for draft in self._recent.get(execution_id, ())]
        chunks = [chunk for chunk in chunks if chunk.last_sequence > after_sequence]
        return chunks if chunks and chunks[0].first_sequence <= after_sequence + 1 else None

    def renew(self) -> None:
        """Tells all readers to read the log again: something may be committed that we are not told about."""
        self._recent.clear()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.overflown = True
                subscription.arrived.set()

    def end(self) -> None:
        """Tells all readers to go on elsewhere, or later."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.ended = True
                subscription.arrived.set()

    def publish(self, turn: Turn, refused: frozenset[int]) -> None:
        """Tells what a turn committed."""
        for execution_id, draft in turn.drafts.items():
            if not draft.events or draft.execution.shard in refused:
                continue
            self._keep(execution_id, draft)
            subscriptions = self._subscriptions.get(execution_id)
            if subscriptions is not None:
                self._tell(subscriptions, logged_chunk(draft))

    def _keep(self, execution_id: str, draft: Draft) -> None:
        recent = self._recent.get(execution_id)
        if recent is None:
            if draft.first_sequence > 1:
                return  # Its beginning was crowded out: whoever comes for it reads the log.
            recent = self._recent[execution_id] = deque(maxlen=RECENT_CHUNKS)
            if len(self._recent) > RECENT_EXECUTIONS:
                self._recent.popitem(last=False)
        recent.append(draft)

    @staticmethod
    def _tell(subscriptions: list[Subscription], chunk: LoggedChunk) -> None:
        for subscription in subscriptions:
            if len(subscription.chunks) >= SUBSCRIPTION_LIMIT:
                subscription.chunks.clear()
                subscription.overflown = True
            subscription.chunks.append(chunk)
            subscription.arrived.set()


def logged_chunk(draft: Draft) -> LoggedChunk:
    """A committed draft, as readers of the log see it."""
    last = draft.first_sequence + sum(map(sequence_count, draft.events)) - 1
    return LoggedChunk(
        first_sequence=draft.first_sequence, last_sequence=last, time_ms=draft.now_ms, events=draft.events
    )
