"""The session's lease as the worker counts it: from when it sent the heartbeat that was answered.

Owns the two instants: when everything must be stopped, and when the session is over.
"""

from typing import Final

MARGIN: Final = 0.1
"""The share of the lease that is kept for stopping, so that the worker always stops before its lease ends elsewhere."""

NEVER: Final = float("inf")


class Lease:
    """Begins with a welcome; each answered heartbeat extends it."""

    def __init__(self) -> None:
        self._timeout_s = 0.0
        self._sent: dict[int, float] = {}
        self.ends_at = NEVER

    @property
    def stops_at(self) -> float:
        """When all unfinished attempts have to be stopped."""
        return self.ends_at - MARGIN * self._timeout_s

    def begin(self, timeout_s: float, hello_sent_at: float) -> None:
        """Start counting: a welcome came to the hello that was sent then. Beats of an earlier stream are void."""
        self._timeout_s = timeout_s
        self._sent.clear()
        self.ends_at = hello_sent_at + timeout_s

    def sent(self, beat: int, now: float) -> None:
        """Note that a heartbeat leaves now."""
        self._sent[beat] = now

    def answered(self, beat: int) -> None:
        """Extend the lease by an answered heartbeat; unknown ones are ignored."""
        sent_at = self._sent.get(beat)
        if sent_at is None:
            return
        self.ends_at = max(self.ends_at, sent_at + self._timeout_s)
        for older in [each for each in self._sent if each <= beat]:
            del self._sent[older]

    def void(self) -> None:
        """Forget the lease: the session is over."""
        self._sent.clear()
        self.ends_at = NEVER
