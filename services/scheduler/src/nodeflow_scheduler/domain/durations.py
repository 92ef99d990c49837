"""Spans of time as people write them in documents: `500ms`, `30s`, `1m30s`, `2h`, `1d12h`."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = (
    r"^(?=.)([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?$"
)
"""From large units to small ones, each at most once."""

LIMIT_MS: Final = 10 * 365 * 86_400_000

_FORM: Final = re.compile(PATTERN)
_PART: Final = re.compile(r"([0-9.]+)(ms|[dhms])")
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


def parse_duration(text: str) -> int:
    """Milliseconds; raises ValueError with what is wrong."""
    if len(text) > 40 or not text.isascii() or not _FORM.fullmatch(text):
        raise ValueError("is not a duration")
    milliseconds = sum(float(number) * _UNIT_MS[unit] for number, unit in _PART.findall(text))
    if milliseconds > LIMIT_MS:
        raise ValueError("is longer than ten years")
    return round(milliseconds)
