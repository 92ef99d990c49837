"""What is due when: ends of backoffs and deadlines of executions.

A timer is never taken back; who is told that it is due checks that it still fits the state. What no longer fits is
swept out when it is most of what is here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

DEADLINE = -1
"""In place of a task: the timer is of the whole execution."""

_SWEEP_FROM = 1_024


class Timer(NamedTuple):
    """One moment. Ordered by time, then by the order in which they were set."""

    due_ms: int
    number: int
    execution_id: str
    task: int
    attempt: int


class Timers:
    """All moments to come."""

    def __init__(self, fits: Callable[[Timer], bool]) -> None:
        self._fits = fits
        self._heap: list[Timer] = []
        self._count = 0
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due_ms: int, execution_id: str, task: int, attempt: int) -> None:
        """Sets a timer."""
        self._count += 1
        heapq.heappush(self._heap, Timer(due_ms, self._count, execution_id, task, attempt))
        if len(self._heap) >= self._sweep_at:
            self._heap = [timer for timer in self._heap if self._fits(timer)]
            heapq.heapify(self._heap)
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._heap))

    def due(self, now_ms: int) -> Iterator[Timer]:
        """Those whose time has come and that still fit the state, earliest first; each is given once."""
        while self._heap and self._heap[0].due_ms <= now_ms:
            timer = heapq.heappop(self._heap)
            if self._fits(timer):
                yield timer

    def next_due_ms(self) -> int | None:
        """When the next is due."""
        return self._heap[0].due_ms if self._heap else None
