"""What readers are told: executions from memory or from the log, and the events of one as they are committed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.explanation import Explanation
from nodeflow_scheduler.domain.identity import is_execution_id
from nodeflow_scheduler.domain.ledger import not_ours
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.library import Library
from nodeflow_scheduler.ports import Catalogue, Journal, LoggedChunk
from nodeflow_scheduler.publishing import Subscription
from nodeflow_shared.errors import FieldViolation, InvalidInput, NotFound, Unavailable

T = TypeVar("T")

CACHED_EXECUTIONS = 64
"""Executions that are over and were read back from the log."""
SHOWN_CHARACTERS = 64
"""How much of an unknown id is repeated."""


def not_found(name: str) -> NotFound:
    """What callers are told of an execution that is not there, or not theirs."""
    shown = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"
    return NotFound(f"there is no execution {shown!r}", reason="EXECUTION_NOT_FOUND")


class Reading:
    """The way out."""

    def __init__(self, driver: Driver, journal: Journal, catalogue: Catalogue, library: Library) -> None:
        self._driver = driver
        self._journal = journal
        self._catalogue = catalogue
        self._library = library
        self._cache: OrderedDict[str, Execution] = OrderedDict()

    async def resolve(self, tenant: str, name: str) -> str:
        """The id that a whole id, a prefix, or `@latest` stands for.

        Raises NotFound, or InvalidInput when several fit.
        """
        if is_execution_id(name):
            return name
        if not name:
            raise InvalidInput(
                "no execution is named",
                violations=[FieldViolation("execution_id", "is empty", "an id, the beginning of one, or @latest")],
            )
        found = await self._catalogue.find(tenant, name)
        if not found:
            raise not_found(name)
        if len(found) > 1 and name != "@latest":
            ids = ", ".join(record.execution_id for record in found)
            raise InvalidInput(
                f"{len(found)} executions begin with {name!r}: {ids}",
                violations=[FieldViolation("execution_id", "is not unique", "more characters of the id")],
            )
        return found[0].execution_id

    async def execution(self, tenant: str, name: str) -> Execution:
        """An execution as it is committed. Raises NotFound."""
        execution_id = await self.resolve(tenant, name)
        execution = self._driver.execution(execution_id)
        if execution is not None and self._driver.outage.error is not None and self._driver.is_pending(execution_id):
            # Nobody knows when it will be committed: readers get what is.
            execution = await self._journal.execution(execution_id, self._library)
        if execution is None:
            execution = self._cache.get(execution_id) or await self._load(execution_id)
        if execution.started is None or execution.tenant != tenant:
            raise not_found(name)
        return execution

    async def _load(self, execution_id: str) -> Execution:
        execution = await self._journal.execution(execution_id, self._library)
        if execution.finished:  # Others still change.
            self._cache[execution_id] = execution
            if len(self._cache) > CACHED_EXECUTIONS:
                self._cache.popitem(last=False)
        return execution

    def explain(self, execution: Execution, task: int) -> Explanation:
        """Why a task is where it is. Raises Unavailable when the workers that it waits for are another scheduler's."""
        ours = self._driver.execution(execution.execution_id) is execution
        if not ours and not execution.finished:
            raise not_ours(execution.shard)
        return self._driver.core.explain(execution, task)

    async def committed(self, execution: Execution) -> None:
        """Waits until what an answer says of an execution is committed. Raises Unavailable if it never happened.

        The answer must have been made since the last await. What was read from the log is committed; what was dropped
        before the answer was made may have been ahead of it.
        """
        if execution.void:
            raise not_ours(execution.shard)
        execution_id = execution.execution_id
        if self._driver.execution(execution_id) is execution and self._driver.is_pending(execution_id):
            await self._driver.committed(execution.shard)

    async def checked(self, execution: Execution, check: Callable[[], T]) -> T:
        """What a check gives. What it refuses is refused once what it looked at is committed: see `committed`."""
        try:
            return check()
        except (NotFound, InvalidInput):
            await self.committed(execution)
            raise

    async def all_committed(self, execution: Execution) -> None:
        """Waits until all that any answer may reflect is committed. Raises Unavailable if part of it never happened."""
        ours = self._driver.execution(execution.execution_id) is execution
        await self._driver.committed(execution.shard if ours else None)

    # ------------------------------------------------------------------- events

    async def at_least(self, execution: Execution, sequence: int) -> Execution:
        """The execution as it was when a cursor was given, or later: readers behind it must know all before it.

        Raises InvalidInput for a cursor after the last event that is committed: it was never given.
        """
        if sequence > execution.sequence:
            # Where the shard is another's by now, the log is ahead of what is in memory here.
            execution = await self._journal.execution(execution.execution_id, self._library)
        if sequence <= execution.sequence:
            return execution
        last = f"is after the last event, {execution.sequence}"
        violation = FieldViolation("cursor", last, "one that the service gave, unchanged")
        raise InvalidInput("the cursor is after the end", violations=[violation])

    async def events(self, execution: Execution, after_sequence: int) -> AsyncGenerator[LoggedChunk, None]:
        """The committed chunks of an execution after a sequence, as committed, once each, in order, to the end.

        Raises Unavailable behind what the log has if the shard is another scheduler's: that one will know more.

        The subscription begins before the log is read, and what both have is given once: so there is neither gap nor
        repeat. The first chunk may begin before the event that was asked for.
        """
        execution_id = execution.execution_id
        publisher = self._driver.publisher
        subscription = publisher.subscribe(execution_id)
        sequence = after_sequence
        try:
            while True:
                async for chunk in self._past(execution_id, sequence):
                    yield chunk
                    sequence = chunk.last_sequence
                    if chunk.is_final:
                        return
                if not self._driver.serves(execution.shard):
                    raise not_ours(execution.shard)
                async for chunk in follow(subscription):
                    if chunk.last_sequence <= sequence:
                        continue
                    if chunk.first_sequence > sequence + 1:
                        break  # It fell behind, or a commit was never reported to us: the log has what is missing.
                    yield chunk
                    sequence = chunk.last_sequence
                    if chunk.is_final:
                        return
        finally:
            publisher.unsubscribe(subscription)

    async def _past(self, execution_id: str, after_sequence: int) -> AsyncIterator[LoggedChunk]:
        recent = self._driver.publisher.recent(execution_id, after_sequence)
        if recent is None:
            async for chunk in self._journal.chunks(execution_id, after_sequence):
                yield chunk
        else:
            for chunk in recent:
                yield chunk


async def follow(subscription: Subscription) -> AsyncIterator[LoggedChunk]:
    """What a subscription receives, until it falls behind: then the log must be read again."""
    while True:
        await subscription.arrived.wait()
        subscription.arrived.clear()
        if subscription.ended:
            raise Unavailable("this scheduler stops; resume with the last cursor", retry_after_s=0.2)
        if subscription.overflown:
            subscription.overflown = False
            subscription.chunks.clear()
            return
        while subscription.chunks:
            yield subscription.chunks.popleft()
