"""How many calls a server serves at once.

Owns the count and the refusal. Must not know what is called. A stream is a call for as long as it is open.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nodeflow_shared.errors import Overloaded

RETRY_AFTER_S: Final = 1.0


class CallLimit:
    """Counts calls, and refuses those beyond the limit before they begin."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active = 0

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Count a call while the block runs; raises Overloaded."""
        if self._active >= self._limit:
            raise Overloaded(
                f"{self._limit:,} calls are served already, open streams included", retry_after_s=RETRY_AFTER_S
            )
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
