"""Page tokens: where a list goes on, and which list it was.

Owns the form of the token. Must not know what is listed.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from nodeflow_state_manager.domain.names import invalid


class Entry(Protocol):
    """What is listed."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        ...


T = TypeVar("T")
E = TypeVar("E", bound=Entry)

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000
PAGE_BYTES: Final = 1 << 20
"""A page ends behind the entry with which it has this many bytes: so it fits into a message, whoever reads it."""

Position = tuple[int | str, ...]
"""The sort key of the last entry of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some entries of a list; `next_position` is None when there are no more."""

    entries: Sequence[T]
    next_position: Position | None


def page_limit(page_size: int) -> int:
    """Return how many entries a page has; raises InvalidInput for a negative size."""
    if page_size < 0:
        raise invalid("page_size", f"{page_size} is negative", "0 for the default, or 1 to 1000")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def cut(entries: Sequence[E], positions: Sequence[Position], limit: int) -> Page[E]:
    """Return a page of the first `limit` entries, or fewer if they are large.

    A store reads one more to know whether there are more.
    """
    count = size = 0
    while count < min(limit, len(entries)) and size < PAGE_BYTES:
        size += entries[count].size_bytes
        count += 1
    if count == len(entries):
        return Page(entries=entries, next_position=None)
    return Page(entries=entries[:count], next_position=positions[count - 1])


def encode_token(position: Position | None, *listing: str) -> str:
    """Return the token for the page after `position` of the list that `listing` describes; empty if there is none."""
    if position is None:
        return ""
    text = json.dumps([_digest(listing), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str, kinds: Sequence[type], *listing: str) -> Position | None:
    """Return the position in a token, with values of `kinds`, or None for the first page.

    Raises InvalidInput for a token that is malformed or belongs to another list.
    """
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        parts = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise _bad("is malformed") from None
    if not isinstance(parts, list) or [type(part) for part in parts] != [str, *kinds]:
        raise _bad("is malformed")
    if parts[0] != _digest(listing):
        raise _bad("belongs to a list with another filter")
    return tuple(parts[1:])


def _bad(what: str) -> Exception:
    hint = "the next_page_token of the answer before, with the same tenant and filter"
    return invalid("page_token", f"the page token {what}", hint)


def _digest(listing: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(listing).encode()).hexdigest()[:12]
