"""Whose callback is it: the lives of simulated processes, by the context that all they start inherits.

Owns what can befall a life between two of its callbacks: it is held while its process is paused, and struck down after
a number of steps. Must not know what a process does.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Final, Protocol


class Watcher(Protocol):
    """A loop that asks lives before it runs a callback; only while `watched` is not 0, because that costs time."""

    watched: int

    def release(self, handles: "deque[asyncio.Handle]") -> None:
        """Run callbacks after those that are ready."""
        ...


class Life:
    """A process from its start to its end. What runs in `context`, and all that comes of it, belongs to it."""

    def __init__(self, loop: Watcher) -> None:
        self._loop = loop
        self._held: deque[asyncio.Handle] | None = None
        self._steps_left: int | None = None
        self._strike: Callable[[], None] = _ignore
        self.ended = False
        self.context = Context()
        self.context.run(LIFE.set, self)

    @property
    def paused(self) -> bool:
        """Whether its callbacks are held."""
        return self._held is not None

    def pause(self) -> None:
        """Hold all callbacks and timers from now on; they become due all the same."""
        if self._held is None:
            self._held = deque()
            self._loop.watched += 1

    def resume(self) -> None:
        """Run what was held, in the order in which it became due."""
        if self._held is not None:
            held, self._held = self._held, None
            self._loop.watched -= 1
            self._loop.release(held)

    def strike_after(self, steps: int, strike: Callable[[], None]) -> None:
        """Call `strike` after that many more callbacks, in place of the next one. An earlier order is forgotten."""
        self.spare()
        self._steps_left, self._strike = steps, strike
        self._loop.watched += 1

    def spare(self) -> None:
        """Forget the order to strike, if there is one."""
        if self._steps_left is not None:
            self._steps_left, self._strike = None, _ignore
            self._loop.watched -= 1

    def end(self) -> None:
        """Nothing it does counts any more. What was held is run, so that its tasks can be cancelled."""
        self.ended = True
        self.spare()
        self.resume()

    def keeps_back(self, handle: asyncio.Handle) -> bool:
        """Take a callback that must not run now."""
        if self._held is not None:
            self._held.append(handle)
            return True
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                strike = self._strike
                self.spare()
                strike()
        return False


LIFE: Final[ContextVar[Life | None]] = ContextVar("LIFE", default=None)
"""Whose code is running; None for the test itself, and for the network."""


def end_if_dead() -> None:
    """Raise CancelledError in what a crashed process still does while its tasks are cancelled.

    Called where anything would come out of a process: it must reach neither network nor disk.
    """
    life = LIFE.get()
    if life is not None and life.ended:
        raise asyncio.CancelledError


def _ignore() -> None:
    """Nothing was ordered."""
