"""JSON text of users' values: strict decoding and compact encoding, with errors fit for a user's eyes.

Owns the one spelling of JSON that the core writes. Knows nothing of expressions, documents or inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


def decode(text: bytes) -> JsonValue:
    """The value of a JSON text in UTF-8; raises ValueError with what is wrong with it."""
    try:
        value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: byte {error.start} is wrong") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except _NotFinite:
        raise
    except ValueError:  # Python reads no integers of thousands of digits: that takes quadratic time.
        raise ValueError("it holds a number with too many digits") from None
    return value


def encode(value: object, *, default: Callable[[object], object] | None = None) -> bytes:
    """Compact JSON in UTF-8, keys in their order; raises ValueError for what JSON or UTF-8 cannot say.

    `default` gives the JSON form of values that JSON has no form for, as in `json.dumps`.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)
        return text.encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair, which is not a character") from None
    except ValueError:
        raise ValueError("a number is not finite or does not fit into 64 bits") from None


def kind(value: object) -> str:
    """What a JSON value is, in words for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


class _NotFinite(ValueError):
    """A constant that JSON does not have, such as NaN."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFinite(f"it is not JSON: {name} is not a number")
