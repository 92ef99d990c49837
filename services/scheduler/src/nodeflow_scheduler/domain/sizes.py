"""Amounts of bytes as people write them in documents: `512Mi`, `1.5Gi`, `200M`."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = r"^[0-9]+(\.[0-9]+)?([KMGT]i|[kMGT])$"

LIMIT_BYTES: Final = 2**53

_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i|[kMGT])")
_UNITS: Final = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


def parse_size(text: str) -> int:
    """Bytes; raises ValueError with what is wrong."""
    form = _FORM.fullmatch(text) if len(text) <= 40 and text.isascii() else None
    if form is None:
        raise ValueError("is not an amount of bytes")
    size = float(form[1]) * _UNITS[form[2]]
    if size > LIMIT_BYTES:
        raise ValueError("is more than any machine has")
    return round(size)
