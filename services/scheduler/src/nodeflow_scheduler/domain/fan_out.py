"""The items that a node is mapped over: any list of the user's, or the list that another mapped node gave."""

from __future__ import annotations

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.values import JSON, MANIFEST
from nodeflow_shared.errors import InvalidInput

MAP_ITEMS_LIMIT = 100_000
MAP_BYTES_LIMIT = 16 * 1024 * 1024
"""What one mapped node may be expanded to."""


def split_items(data: bytes, content_type: str = JSON) -> list[bytes]:
    """The items of a list, each as JSON. Raises InvalidInput when it is no list, or too long."""
    if content_type not in (JSON, MANIFEST):
        raise InvalidInput(f"map needs a list as JSON, not {content_type}")
    if len(data) > MAP_BYTES_LIMIT:
        raise _too_long(f"{len(data)} bytes")
    try:
        value = json_text.decode(data)
    except ValueError as error:
        raise InvalidInput(f"map needs a list, and this cannot be read: {error}") from None
    if not isinstance(value, list):
        raise InvalidInput(f"map needs a list, not {json_text.kind(value)}: {data[:80].decode(errors='replace')}")
    if len(value) > MAP_ITEMS_LIMIT:
        raise _too_long(f"{len(value)} items")
    if content_type == MANIFEST:
        value = [_inline(entry, position) for position, entry in enumerate(value)]
    try:
        return [json_text.encode(item) for item in value]
    except ValueError as error:
        raise InvalidInput(f"an item of the list cannot be passed on: {error}") from None


def _inline(entry: JsonValue, position: int) -> JsonValue:
    """The item of an entry of a manifest."""
    if isinstance(entry, dict) and "value" in entry:
        return entry["value"]
    raise InvalidInput(
        f"item {position} of the list is stored as an artifact; a node can be mapped over inline JSON only: "
        "let the tasks before give keys or references, and let these read the data"
    )


def _too_long(what: str) -> InvalidInput:
    return InvalidInput(
        f"map got {what}; at most {MAP_ITEMS_LIMIT} items in {MAP_BYTES_LIMIT} bytes are allowed: "
        "map over keys or references, and let the tasks read the data"
    )
