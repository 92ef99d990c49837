"""What a CEL expression can cost at most, estimated from its shape and the values it reads before it is evaluated.

The library has no cost bound and cannot be interrupted, and its `map` and `filter` copy the list they build for every
item: their time grows with the square of its length (measured: 1,000 items 20 ms, 4,000 items 0.3 s, 32,000 items
20 s). So the estimate is from above, in steps of about 40 ns, and what exceeds the budget is refused with a clear error.
Knows nothing of scopes and documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nodeflow_scheduler.domain.json_text import JsonValue

BUDGET_STEPS: Final = 5_000_000
"""About 0.2 seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What of an expression's text matters for its cost."""

    def refusal(self, values: Sequence[JsonValue]) -> str:
        """Why it must not be evaluated with these values; empty when it may."""
        return ""
