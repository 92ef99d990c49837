"""Arguments in, results out: JSON by default, bytes as they are.

Owns both conversions. Knows nothing of pipes or of the agent.
"""

import json
from typing import Any, Final

import msgspec

from nodeflow_worker.runner import describe
from nodeflow_worker.runner.frames import MAX_RESULT_BYTES, Extra, Failed, Octets, Result

JSON: Final = "application/json"
MANIFEST: Final = "application/vnd.nodeflow.manifest+json"

# Exact types that msgspec writes just as json does, only quicker. Not float: it writes NaN as null.
_QUICK: Final = frozenset({str, bool, type(None)})

_write_quick: Final = msgspec.json.Encoder().encode
_write: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_read_quick: Final = msgspec.json.Decoder(dict[str, Any]).decode


def read_arguments(data: bytes, extras: list[Extra]) -> dict[str, Any]:
    """Return the arguments of a task: a JSON object, and what came by reference."""
    try:
        arguments = _read_quick(data)
    except msgspec.DecodeError:  # numbers beyond 64 bits in a float, for one
        arguments = json.loads(data)
    for extra in extras:
        arguments[extra.parameter] = _read_extra(extra)
    return arguments


def _read_extra(extra: Extra) -> object:
    if extra.content_type in ("", JSON):
        return json.loads(extra.data)
    if extra.content_type != MANIFEST:
        return extra.data
    parts = {part.digest: part.data for part in extra.parts}
    return [
        json.loads(parts[item["artifact"]["digest"]]) if "artifact" in item else item["value"]
        for item in json.loads(extra.data)
    ]


def write_result(name: str, value: object) -> Result:
    """Return a function's value as it travels, or the failure that it cannot."""
    kind = type(value)
    if kind is bytes or kind is bytearray or kind is memoryview:
        data = bytes(value)  # type: ignore[call-overload]  # one of the three, as was just seen
        return _too_large(name, data) or Octets(data)
    try:
        data = _write_quick(value) if kind in _QUICK else _write(value).encode()
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError) as error:
        return describe.not_serializable(name, value, error)
    return _too_large(name, data) or data


def _too_large(name: str, data: bytes) -> Failed | None:
    return describe.too_large(name, len(data)) if len(data) > MAX_RESULT_BYTES else None
