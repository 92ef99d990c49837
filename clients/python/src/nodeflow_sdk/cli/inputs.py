"""Inputs from the command line: `k=v` and JSON files, read as the workflow's schema wants them.

Owns the reading of values. Must not know how they are sent; whether they fit is the service's judgement.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.documents import read_file

LINES_SUFFIXES: Final = (".jsonl", ".ndjson")
"""Files with a JSON object in each line."""
_EACH_LINE: Final = 'an object in each line: {"name": value, …}'
_EXAMPLES: Final[Mapping[str, str]] = {
    "array": '["a", "b"]',
    "object": '{"key": "value"}',
    "integer": "3",
    "number": "1.5",
    "boolean": "true",
    "null": "null",
}


def split_pairs(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Return `k=v` texts as a mapping; raises CliError for one without `=`, and for a repeated key."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise usage_error(f"{option} {pair!r} has no value", f"{option} {key or 'name'}=value")
        if key in found:
            raise usage_error(f"{option} {key} is given twice", f"{option} {key} once")
        found[key] = value
    return found


def read_input_file(path: Path) -> dict[str, object]:
    """Return the object in a JSON file; raises CliError that says where the file is wrong."""
    data = read_file(path, "a JSON file with an object of inputs")
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        raise usage_error(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise usage_error(f"{path} is not UTF-8 text") from None
    except RecursionError:
        raise usage_error(f"{path} is nested too deeply") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise usage_error(f"{path} holds a number with too many digits", "write it as a string") from None
    if not isinstance(value, dict):
        raise usage_error(
            f"{path} holds JSON of type {_json_type(value)}", 'an object with a field per input: {"name": value, …}'
        )
    return value


def read_input_lines(path: Path) -> list[dict[str, object]]:
    """Return the objects in a file of JSON lines, but empty ones; raises CliError that names the line at fault."""
    found: list[dict[str, object]] = []
    for number, line in enumerate(read_file(path, "a file with a JSON object of inputs in each line").splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise usage_error(
                f"{path}:{number}: not JSON: {error}", 'an object in each line: {"name": value, …}'
            ) from None
        if not isinstance(value, dict):
            raise usage_error(f"{path}:{number}: JSON of type {_json_type(value)}", _EACH_LINE)
        found.append(value)
    if not found:
        raise usage_error(f"{path} has no lines", _EACH_LINE)
    return found


def typed(pairs: Mapping[str, str], schema_text: str) -> dict[str, object]:
    """Return values read as a JSON Schema of the inputs wants them; raises CliError for one that cannot be meant.

    A text is taken as JSON if it is JSON of a type that the input may have; otherwise it is a string.
    """
    schema = json.loads(schema_text) if schema_text else {}
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return {key: _value(key, text, _types(properties.get(key))) for key, text in pairs.items()}


def _value(key: str, text: str, types: frozenset[str]) -> object:
    try:
        value: object = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        if types and "string" not in types:
            wanted = " or ".join(sorted(types))
            example = next((_EXAMPLES[each] for each in sorted(types) if each in _EXAMPLES), "…")
            raise usage_error(
                f"--input {key}={text}: {key} should be of type {wanted}, and this is not JSON",
                f"--input '{key}={example}'",
            ) from None
        return text
    # A string is meant as it was typed: its quotes, if any, are its own.
    if "string" not in types or (not isinstance(value, str) and _json_type(value) in types):
        return value
    if "number" in types and _json_type(value) == "integer":
        return value
    return text


def _types(schema: object) -> frozenset[str]:
    """Return the types that a property's schema allows; empty when it says nothing simple about that."""
    if not isinstance(schema, dict):
        return frozenset()
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(each for each in said if isinstance(each, str))
    if isinstance(schema.get("enum"), list):
        return frozenset(_json_type(each) for each in schema["enum"])
    for combined in ("anyOf", "oneOf"):
        if isinstance(schema.get(combined), list):
            return frozenset().union(*(_types(each) for each in schema[combined]))
    return frozenset()


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _refuse_constant(name: str) -> object:
    raise ValueError(name)
