"""One direction of a call of the loopback network: what is on its way, and how much of it may be.

Owns order, flow control, and what is lost when a connection breaks. Must not know what a call is, nor who listens.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Final, Protocol

from nodeflow_testing.lives import end_if_dead

WINDOW: Final = 16
"""Messages that one direction of a call may hold before they are taken; then the sender waits."""


class Medium(Protocol):
    """What a wire needs of its network."""

    delay: Callable[[str, str], float]

    def silent(self, source: str, target: str) -> bool:
        """Whether nothing gets through in this direction."""
        ...

    def context_of(self, address: str) -> Context:
        """Return whose callbacks those are that happen at an address."""
        ...

    def survivors(self, messages: int) -> int:
        """Decide how many of the messages on their way, the first ones, arrive although their connection broke."""
        ...

    def spare_s(self) -> float:
        """Decide how much later than its messages the end of a broken connection is noticed."""
        ...

    def message_lost(self) -> None:
        """A message that was on its way will not arrive."""
        ...


class Wire:
    """One direction between the ends of a call: in order, late by the delay, held while nothing gets through."""

    def __init__(self, medium: Medium, source: str, target: str) -> None:
        self._medium = medium
        self._source = source
        self._target = target
        self._frames: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._last_due = 0.0
        self._held = 0
        self._severed = False
        self._loop = asyncio.get_running_loop()

    @property
    def busy(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._frames)

    def carry(self, deliver: Callable[..., None], *arguments: object) -> None:
        """Have something happen at the other end, as a callback of whoever lives there."""
        if not self._severed:
            self._frames.append((deliver, arguments))
            self._schedule()

    def sever(self, deliver: Callable[..., None], *arguments: object) -> None:
        """Lose part of what is on its way, carry this as the last, and take no more."""
        if self._severed:
            return
        mute = self._medium.silent(self._source, self._target)
        self._lose(0 if mute else self._medium.survivors(len(self._frames)))
        self._frames.append((self._end, (self._medium.spare_s(), deliver, arguments)))
        self._schedule()

    def close(self) -> None:
        """Lose all that is on its way, and take no more: nobody is at the other end."""
        if not self._severed:
            self._lose(0)

    def resume(self) -> None:
        """Deliver what was held."""
        held, self._held = self._held, 0
        for _ in range(held):
            self._schedule()

    def _end(self, spare_s: float, deliver: Callable[..., None], arguments: tuple[object, ...]) -> None:
        # Counted from here: whoever was paused meanwhile reads what came before, too.
        if spare_s:
            self._loop.call_later(spare_s, deliver, *arguments)
        else:
            deliver(*arguments)

    def _lose(self, kept: int) -> None:
        self._severed = True
        self._held = 0
        while len(self._frames) > kept:
            _, arguments = self._frames.pop()
            if any(isinstance(each, bytes) for each in arguments):
                self._medium.message_lost()

    def _schedule(self) -> None:
        medium = self._medium
        due = self._loop.time() + medium.delay(self._source, self._target)
        self._last_due = max(due, self._last_due)
        self._loop.call_at(self._last_due, self._arrive, context=medium.context_of(self._target))

    def _arrive(self) -> None:
        if not self._frames:
            return  # lost meanwhile
        if self._medium.silent(self._source, self._target):
            self._held += 1
            return
        deliver, arguments = self._frames.popleft()
        deliver(*arguments)


class Pipe:
    """The messages of one direction of a call."""

    def __init__(self, wire: Wire) -> None:
        self._loop = asyncio.get_running_loop()
        self._wire = wire
        self._arrived: deque[bytes] = deque()
        self._room = WINDOW
        self._useless = False
        self._ended = False
        self._sender: asyncio.Future[None] | None = None
        self._receiver: asyncio.Future[None] | None = None
        self.latest: deque[bytes] = deque(maxlen=WINDOW)
        """The last messages that were sent: what may be sent again when the connection broke."""

    async def send(self, data: bytes) -> None:
        """Send a message when there is room for it; nowhere once nobody wants it."""
        while not self._room and not self._useless:
            self._sender = self._loop.create_future()
            await self._sender
        if not self._useless:
            self.push(data)

    def push(self, data: bytes) -> None:
        """Send a message for which there is room."""
        end_if_dead()
        self._room -= 1
        self.latest.append(data)
        self._wire.carry(self.deliver, data)

    def abandon(self) -> None:
        """The sender need not wait any more."""
        self._useless = True
        _wake(self._sender)

    async def take(self) -> bytes | None:
        """Take the next message; None after the end."""
        while not self._arrived:
            if self._ended:
                return None
            if self._receiver is not None and not self._receiver.done():
                raise RuntimeError("two readers of one stream")
            self._receiver = self._loop.create_future()
            await self._receiver
        self._room += 1
        _wake(self._sender)
        return self._arrived.popleft()

    def deliver(self, data: bytes) -> None:
        """A message has come to the receiver's end."""
        if not self._ended:
            self._arrived.append(data)
            _wake(self._receiver)

    def end(self) -> None:
        """The receiver gets what has arrived, and no more."""
        self._ended = True
        _wake(self._receiver)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
