"""How long functions take, and how much work to hold ready because of it.

Owns the two estimates: per function (how many to feed at once) and of the worker as a whole (how many credits to bid).
"""

from typing import Final

UNKNOWN: Final = float("inf")

SMOOTHING: Final = 0.3
HALF_LIFE_S: Final = 0.2

HELD_WORK_S: Final = 0.1
"""How much work a worker wants to hold beyond its slots: enough to bridge a round trip and a commit."""


class Pace:
    """The smoothed duration of one function in seconds; UNKNOWN before the first measurement."""

    __slots__ = ("duration_s",)

    def __init__(self) -> None:
        self.duration_s = UNKNOWN

    def measured(self, count: int, seconds: float) -> None:
        """Take in that `count` calls in a row took `seconds`; many calls at once count more than one."""
        sample = seconds / count
        if self.duration_s == UNKNOWN:
            self.duration_s = sample
            return
        weight = 1 - (1 - SMOOTHING) ** min(count, 16)
        self.duration_s += weight * (sample - self.duration_s)


class Bid:
    """How many attempts beyond its slots a worker asks for, from the mean duration of what it finished of late."""

    __slots__ = ("_at", "_count", "_max", "_seconds", "credits", "slots")

    def __init__(self, *, slots: int, max_credits: int) -> None:
        self.slots = slots
        self._max = max(max_credits, slots)
        self.credits = slots
        self._count = 0.0
        self._seconds = 0.0
        self._at = 0.0

    def measured(self, count: int, seconds: float, now: float) -> None:
        """Take in that `count` tasks took `seconds` in total. Older ones weigh half after HALF_LIFE_S."""
        keep = 0.5 ** ((now - self._at) / HALF_LIFE_S)
        self._at = now
        self._count = self._count * keep + count
        self._seconds = self._seconds * keep + seconds
        wanted = HELD_WORK_S * self.slots * self._count / max(self._seconds, 1e-9)
        self.credits = int(min(self._max, max(self.slots, wanted)))
