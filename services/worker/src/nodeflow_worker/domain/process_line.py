"""The attempts whose processes run, and those that wait for a slot.

Owns how slots are shared with runners: whoever waits alone may have all; when both wait, each side has half, and an odd
slot changes hands. Must not know runners.
"""

from collections import deque
from collections.abc import Iterable

from nodeflow_worker.domain.values import Attempt, State


class ProcessLine:
    """First come, first served. A process holds its slot until it and all that it started are gone."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._waiting: deque[Attempt] = deque()
        self._running: dict[Attempt, None] = {}
        self._had_odd_slot = False

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits: then runners need not care."""
        return not self._running and not self._waiting

    @property
    def running(self) -> list[Attempt]:
        """The attempts whose processes run."""
        return list(self._running)

    def runs(self, attempt: Attempt) -> bool:
        """Whether the attempt's process runs."""
        return attempt in self._running

    def enqueue(self, attempt: Attempt) -> None:
        """Put an attempt at the end of the line."""
        self._waiting.append(attempt)

    def start(self, *, busy: int, contested: bool) -> list[Attempt]:
        """Take from the line what may start now; `busy` runners have slots, `contested` says that others wait too."""
        self._drop_ended()
        free = self._slots - busy - len(self._running)
        if contested:
            free = min(free, self._share - len(self._running))
        started: list[Attempt] = []
        while free > 0 and self._waiting:
            attempt = self._waiting.popleft()
            attempt.state = State.FED
            self._running[attempt] = None
            self._had_odd_slot = True
            started.append(attempt)
            free -= 1
            self._drop_ended()
        return started

    def for_runners(self) -> int:
        """How many slots runners may use: what processes hold, or wait for within their share, is not theirs."""
        self._drop_ended()
        held = len(self._running)
        return self._slots - max(held, min(self._share, held + len(self._waiting)))

    def runner_began(self) -> None:
        """Note that a runner got a slot."""
        self._had_odd_slot = False

    def ended(self, attempt: Attempt) -> None:
        """Free the slot of a process that is gone."""
        self._running.pop(attempt, None)

    def abandon(self) -> Iterable[Attempt]:
        """Forget what waits, and return what runs."""
        self._waiting.clear()
        return self.running

    @property
    def _share(self) -> int:
        return (self._slots + (not self._had_odd_slot)) // 2

    def _drop_ended(self) -> None:
        while self._waiting and self._waiting[0].state is not State.WAITING:
            self._waiting.popleft()
