"""Values of users as the core handles them. Knows nothing of the wire: `wire.py` turns payloads into these and back.

Nearly every value is inline JSON, so that is plain `bytes`; what is not is a `Stored` value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

INLINE_LIMIT_BYTES = 64 * 1024
"""Values up to this size travel inline; larger ones are artifacts."""

JSON = "application/json"
MANIFEST = "application/vnd.nodeflow.manifest+json"
"""A JSON list with one object for each item of a fan-in; `common/v1/payload.proto` tells its forms."""

NULL = b"null"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A value that is not inline JSON: an artifact (`digest`), or inline bytes of another content type (`data`)."""

    content_type: str = JSON
    digest: str = ""
    size_bytes: int = 0
    data: bytes = b""


Value = bytes | Stored
"""Inline JSON, or a stored value."""

Artifacts = Mapping[str, Stored]
"""The files that an attempt leaves, by name: references to what is stored."""
