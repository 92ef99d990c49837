"""Type hints as JSON Schemas, and what two schemas say about each other.

Owns what is certain about a value before it exists. A hint that JSON Schema cannot say gives the empty schema, which
anything fits. msgspec writes the schemas, so their forms are few: type, anyOf, enum, $ref, items, properties.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

Schema = Mapping[str, object]
ANY: Final[Schema] = {}

_UNKNOWN: Final = "$comment"
_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def schema_of(hint: object) -> dict[str, object]:
    """Return the JSON Schema of a type hint; classes are defined beside it under `$defs`."""
    if hint is bytes or hint is bytearray or hint is memoryview:
        # Bytes travel as they are, beside JSON.
        return {}
    try:
        schema = msgspec.json.schema(hint, schema_hook=_custom)
    except (TypeError, ValueError, RecursionError, NotImplementedError):
        return {}
    cleaned = _without_unknown(schema)
    return cleaned if isinstance(cleaned, dict) else {}


def list_of(schema: Schema) -> dict[str, object]:
    """Return the schema of a list of such values."""
    outer = {key: schema[key] for key in ("$defs",) if key in schema}
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    return {"type": "array", **({"items": inner} if inner else {}), **outer}


def item_of(schema: Schema) -> Schema:
    """Return the schema of a list's items, as far as it is known."""
    if "anyOf" in _resolved(schema, schema):
        return ANY
    return _inside(_resolved(schema, schema).get("items"), schema)


def field_of(schema: Schema, name: str) -> Schema:
    """Return the schema of a field of an object, as far as it is known."""
    known = _resolved(schema, schema)
    properties = known.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return _inside(properties[name], schema)
    return _inside(known.get("additionalProperties"), schema)


def fields_of(schema: Schema) -> list[str] | None:
    """Return the names of an object's fields; None when they are not certain."""
    known = _resolved(schema, schema)
    properties = known.get("properties")
    if not isinstance(properties, Mapping) or "additionalProperties" in known:
        return None
    return [str(name) for name in properties]


def types_of(schema: Schema) -> frozenset[str]:
    """Return the JSON types that a value may have."""
    return _types(schema, schema, 0)


def misfit(given: Schema, wanted: Schema) -> bool:
    """Whether no value of `given` can be one of `wanted`; False when that is not certain."""
    return _misfit(given, given, wanted, wanted, 0)


def _misfit(given: Schema, given_root: Schema, wanted: Schema, wanted_root: Schema, depth: int) -> bool:
    if depth > 20:
        return False
    pairs = [
        (one, other)
        for one in _alternatives(given, given_root)
        for other in _alternatives(wanted, wanted_root)
        if _may_share(one, given_root, other, wanted_root, depth)
    ]
    return not pairs


def _may_share(one: Schema, one_root: Schema, other: Schema, other_root: Schema, depth: int) -> bool:
    kinds = _types(one, one_root, depth) & _widened(_types(other, other_root, depth))
    if not kinds:
        return False
    if kinds == {"array"}:
        return not _misfit(_part(one, "items"), one_root, _part(other, "items"), other_root, depth + 1)
    if kinds == {"object"}:
        return _objects_may_share(one, one_root, other, other_root, depth)
    values, wanted = one.get("enum"), other.get("enum")
    return not (isinstance(values, list) and isinstance(wanted, list) and not any(each in wanted for each in values))


def _objects_may_share(one: Schema, one_root: Schema, other: Schema, other_root: Schema, depth: int) -> bool:
    given, wanted = _part(one, "properties"), _part(other, "properties")
    if given and wanted:
        required = other.get("required")
        missing = isinstance(required, list) and any(name not in given for name in required)
        common = [(given[name], wanted[name]) for name in given if name in wanted]
        return not missing and not any(
            _misfit(_schema(mine), one_root, _schema(yours), other_root, depth + 1) for mine, yours in common
        )
    if given or wanted:
        return True
    values, others = _part(one, "additionalProperties"), _part(other, "additionalProperties")
    return not _misfit(values, one_root, others, other_root, depth + 1)


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    known = _resolved(schema, root)
    options = known.get("anyOf")
    if not isinstance(options, list):
        return [known]
    return [found for option in options for found in _alternatives(_schema(option), root)]


def _types(schema: Schema, root: Schema, depth: int) -> frozenset[str]:
    known = _resolved(schema, root)
    said = known.get("type")
    if isinstance(said, str):
        return frozenset({said})
    options, values = known.get("anyOf"), known.get("enum")
    if isinstance(options, list) and depth < 20:
        return frozenset().union(*(_types(_schema(option), root, depth + 1) for option in options))
    if isinstance(values, list):
        return frozenset(json_type(value) for value in values)
    return _TYPES


def _widened(types: frozenset[str]) -> frozenset[str]:
    return types | {"integer"} if "number" in types else types


def json_type(value: object) -> str:
    """Return the JSON type of a JSON value."""
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
        case list() | tuple():
            return "array"
        case _:
            return "object"


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference, definitions = schema.get("$ref"), root.get("$defs")
    if not isinstance(reference, str) or not isinstance(definitions, Mapping):
        return schema
    return _schema(definitions.get(reference.removeprefix("#/$defs/")))


def _inside(part: object, root: Schema) -> Schema:
    if not isinstance(part, Mapping) or not part:
        return ANY
    return {**part, "$defs": root["$defs"]} if "$defs" in root else part


def _part(schema: Schema, name: str) -> Schema:
    return _schema(schema.get(name))


def _schema(value: object) -> Schema:
    return value if isinstance(value, Mapping) else ANY


def _custom(kind: type) -> dict[str, object]:
    # An empty schema would count as none: the mark is taken out again.
    return {_UNKNOWN: kind.__name__}


def _without_unknown(value: object) -> object:
    match value:
        case dict():
            return {key: _without_unknown(inner) for key, inner in value.items() if key != _UNKNOWN}
        case list():
            return [_without_unknown(inner) for inner in value]
        case _:
            return value
