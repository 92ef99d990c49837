"""The list that a mapped node gives, and values that stand where only JSON can.

Owns the forms of `common/v1/payload.proto`: plain JSON while everything is inline, a manifest when items are stored.
Knows nothing of executions.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256

from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, JSON, MANIFEST, Stored, Value


def join_outputs(outputs: Iterable[Value]) -> Value:
    """The list of a fan-in: JSON, or a manifest if items are stored; an artifact to be stored if it is large."""
    values = list(outputs)
    if any(isinstance(value, Stored) for value in values):
        data = b"[" + b",".join(_manifest_entry(value) for value in values) + b"]"
        return to_store(data, MANIFEST)
    data = b"[" + b",".join(value for value in values if isinstance(value, bytes)) + b"]"
    return data if len(data) <= INLINE_LIMIT_BYTES else to_store(data, JSON)


def _manifest_entry(value: Value) -> bytes:
    return b'{"value":' + value + b"}" if isinstance(value, bytes) else describe(value)


def describe(value: Stored) -> bytes:
    """A stored value where only JSON can stand: a reference to the artifact, or the bytes in base64."""
    if value.digest:
        artifact = {"digest": value.digest, "size_bytes": value.size_bytes}
        return json.dumps({"artifact": artifact, "content_type": value.content_type}).encode()
    return json.dumps({"bytes": b64encode(value.data).decode(), "content_type": value.content_type}).encode()


def to_store(data: bytes, content_type: str) -> Stored:
    """A value that has its bytes still: they must be stored before a reference to it is handed out."""
    digest = f"sha256:{sha256(data).hexdigest()}"
    return Stored(content_type=content_type, digest=digest, size_bytes=len(data), data=data)
