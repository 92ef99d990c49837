"""Bounded queues between tasks of one loop: Outbox (one reader, item by item) and Inbox (one reader, all at once).

Owns flow control and wake-ups, on loop futures only (so virtual-time loops work). Must not know what the items are.
Neither class is safe across threads.
"""

import asyncio
import sys
from collections import deque
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class OutboxClosed(Exception):
    """An item was put into an Outbox after it was closed."""


class _Waiters:
    """Tasks that wait for one condition; each checks it again after it was woken."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # Woken and cancelled in the same turn: the wake-up belongs to the next in line, or it would be lost.
                self.wake_one()
            elif future in self._futures:  # or whoever wakes has passed it over already
                self._futures.remove(future)
            raise

    def wake_one(self) -> None:
        while self._futures:
            future = self._futures.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake_all(self) -> None:
        while self._futures:
            self.wake_one()


class Outbox(Generic[T]):
    """A bounded queue that one reader drains: give it to a stream call as its request iterator, or yield from it.

    When full, `put` waits (first come, first served) and `offer` refuses. After `close` the reader gets what is queued
    and then ends; waiting and later `put`s raise OutboxClosed.
    """

    def __init__(self, limit: int = 1024) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.limit = limit
        self._items: deque[T] = deque()
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writers = _Waiters()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether `offer` would refuse for lack of room."""
        return len(self._items) >= self.limit

    @property
    def closed(self) -> bool:
        """Whether `close` was called; queued items may remain."""
        return self._closed

    async def put(self, item: T) -> None:
        """Queue an item, waiting for room; raises OutboxClosed once closed."""
        while len(self._items) >= self.limit and not self._closed:
            await self._writers.wait()
        if self._closed:
            raise OutboxClosed
        self._append(item)

    def offer(self, item: T) -> bool:
        """Queue an item if there is room and the outbox is open; say whether it was queued."""
        if self._closed or len(self._items) >= self.limit:
            return False
        self._append(item)
        return True

    def close(self) -> None:
        """Accept nothing more; the reader ends after what is queued. Idempotent."""
        self._closed = True
        self._writers.wake_all()
        self._wake_reader()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            await self._readable()
        item = self._items.popleft()
        self._writers.wake_one()
        return item

    async def _readable(self) -> None:
        if self._reader is not None:
            raise RuntimeError("an Outbox has one reader")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _append(self, item: T) -> None:
        self._items.append(item)
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Inbox(Generic[T]):
    """Many producers, one consumer that takes everything that has arrived: batches grow by themselves under load.

    `push` always accepts, because what has arrived cannot be refused; a producer that reads from the network awaits
    `room` before it reads on. So the inbox holds at most `limit` items and `limit_bytes` (of those that are pushed with
    a size) plus what each producer pushes between two calls of `room`.
    """

    def __init__(self, limit: int = 65_536, *, limit_bytes: int = sys.maxsize) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.limit = limit
        self.limit_bytes = limit_bytes
        self._items: deque[T] = deque()
        self._sizes: deque[int] = deque()
        self._size = 0
        self._consumer: asyncio.Future[None] | None = None
        self._producers = _Waiters()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether producers should wait for `room`."""
        return len(self._items) >= self.limit or self._size >= self.limit_bytes

    def push(self, item: T, size_bytes: int = 0) -> None:
        """Add an item and wake the consumer if it waits."""
        self._items.append(item)
        self._sizes.append(size_bytes)
        self._size += size_bytes
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)

    async def room(self) -> None:
        """Wait until the inbox is below its limits."""
        while self.full:
            await self._producers.wait()

    async def drain(self, batch_bytes: int = sys.maxsize) -> list[T]:
        """Wait until something has arrived and return all of it, oldest first; a cancelled drain loses nothing.

        Beyond `batch_bytes` the rest stays for the next time. What comes is less than that, or ends with the item that
        is too much.
        """
        while not self._items:
            await self._non_empty()
        return self.take(batch_bytes)

    def take(self, batch_bytes: int = sys.maxsize) -> list[T]:
        """Return all that has arrived, maybe nothing, without waiting; as much of it as `drain` says."""
        if self._size <= batch_bytes:
            items = list(self._items)
            self._items.clear()
            self._sizes.clear()
            self._size = 0
        else:
            items = []
            left = batch_bytes
            while left > 0:
                items.append(self._items.popleft())
                size = self._sizes.popleft()
                self._size -= size
                left -= size
        self._producers.wake_all()
        return items

    async def _non_empty(self) -> None:
        if self._consumer is not None:
            raise RuntimeError("an Inbox has one consumer")
        self._consumer = asyncio.get_running_loop().create_future()
        try:
            await self._consumer
        finally:
            self._consumer = None
