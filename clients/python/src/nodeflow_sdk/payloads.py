"""User values as payloads and back.

Owns the JSON form of inline values. Must not know what a value means.
"""

import json
from typing import Final

from nodeflow.common.v1.payload_pb2 import Payload

JSON: Final = "application/json"


def to_payload(value: object) -> Payload:
    """Return a JSON value as an inline payload; raises TypeError or ValueError for what JSON cannot say."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Payload(data=text.encode(), content_type=JSON)


def from_json(data: bytes) -> object:
    """Return the value that JSON bytes say; raises ValueError when they are not JSON."""
    value: object = json.loads(data)
    return value


def is_json(payload: Payload) -> bool:
    """Whether the payload's bytes are JSON; a manifest is a form of its own."""
    return payload.content_type in ("", JSON)
