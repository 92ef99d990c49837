"""Why nothing can be made durable now, as far as the state-manager has said so: its disk is full, its database refuses.

Owns that one fact, which the ways to the log note and the ways in ask for. A state-manager that is merely away is none
of it: it comes back within seconds, and callers wait for it.
"""

from __future__ import annotations

from collections.abc import Callable

from nodeflow_shared.errors import NodeflowError

REASONS = frozenset({"DISK_FULL", "STORE_FAILED"})


class Outage:
    """Begins with a refused write, and ends with a write that is answered: of leases, if nothing else is written."""

    def __init__(self) -> None:
        self.error: NodeflowError | None = None
        self.on_refused: Callable[[], None] | None = None
        """Called at each refused write; the driver sets it."""

    def note(self, error: NodeflowError) -> None:
        """A write failed; anything but the store's own word changes nothing."""
        if error.reason in REASONS:
            self.error = error
            if self.on_refused is not None:
                self.on_refused()

    def over(self) -> None:
        """A write was answered."""
        self.error = None

    def check(self) -> None:
        """Raises why nothing can be made durable, if so: nothing of the request has been stored."""
        if self.error is not None:
            raise self.error
