"""Time as an argument: what a driver asks for the time.

Owns the two clocks (real, and derived from an event loop that may be virtual). Must not know who asks, nor why.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Both times of a process; only to be asked inside a running loop."""

    def monotonic(self) -> float:
        """Seconds that never go back and have no meaning beyond this process: the loop's own time."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump when the machine's clock is set."""
        ...


class SystemClock:
    """The production clock: monotonic time from the loop, wall time from the machine."""

    def monotonic(self) -> float:
        """Return the running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """Return the machine's wall time, read anew at each call so that corrections show."""
        return time.time_ns() // 1_000_000


class LoopClock:
    """A clock whose wall time is the loop's time too: on a virtual-time loop everything is virtual.

    `epoch_ms` is the wall time at loop time zero, so all clocks with one epoch on one loop agree.
    """

    def __init__(self, epoch_ms: int) -> None:
        self._epoch_ms = epoch_ms

    def monotonic(self) -> float:
        """Return the running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """Return the epoch plus the loop's time, in whole milliseconds."""
        return self.at_ms(self.monotonic())

    def at_ms(self, monotonic_s: float) -> int:
        """Return the wall time at a time of the loop."""
        # Rounded to the microsecond first: 1.001 s as a float is 1000.99… ms.
        return self._epoch_ms + round(monotonic_s * 1_000_000) // 1000
