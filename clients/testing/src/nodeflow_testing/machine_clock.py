"""The clock of one simulated machine: its wall time can be set, its monotonic time cannot."""

from typing import Final

from nodeflow_shared.clock import LoopClock

EPOCH_MS: Final = 1_800_000_000_000
"""Wall time when a run begins, on every machine."""


class MachineClock(LoopClock):
    """See nodeflow_shared.clock.Clock."""

    def __init__(self) -> None:
        super().__init__(EPOCH_MS)
        self.offset_ms = 0
        """How far its wall time is ahead of what it would be had nobody set it; negative when behind."""
        self.error_ms = 0
        """The furthest that it has ever been off, either way."""

    def jump(self, by_ms: int) -> None:
        """Set the wall time forward, or back."""
        self.offset_ms += by_ms
        self.error_ms = max(self.error_ms, abs(self.offset_ms))

    def now_ms(self) -> int:
        """Return the wall time in milliseconds since the Unix epoch."""
        return super().now_ms() + self.offset_ms
