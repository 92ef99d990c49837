"""The inputs of a workflow: their JSON Schemas, their defaults, and the check of what a submission gives.

Knows nothing of documents, executions and expressions.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jsonschema_rs

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_shared.errors import FieldViolation, InvalidInput

INPUTS_LIMIT_BYTES: Final = 1024 * 1024
"""All inputs of one execution together: 16 values of the largest inline size."""

INVALID_INPUTS: Final = "INVALID_INPUTS"
INPUTS_TOO_LARGE: Final = "INPUTS_TOO_LARGE"

Schema = Mapping[str, JsonValue]

_VIOLATIONS_PER_INPUT: Final = 10
_SHOWN_CHARS: Final = 60

# Python-like engines can take exponential time on a hostile pattern; this one cannot, but has no look-around.
_PATTERNS: Final = jsonschema_rs.RegexOptions()
_META_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
_SCHEMA_CHECK: Final = jsonschema_rs.Draft202012Validator({"$ref": _META_SCHEMA}, offline=True)

_TYPE_NAMES: Final[Mapping[str, str]] = {
    "array": "a list",
    "boolean": "a boolean",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaProblem:
    """What makes a schema, or its default, unusable. `path` is the place within the schema."""

    path: tuple[str | int, ...]
    description: str
    hint: str = ""


def schema_problems(schema: JsonValue) -> list[SchemaProblem]:
    """All that is wrong with the schema of one input; with none, `InputsChecker` takes it."""
    if not isinstance(schema, dict):
        hint = (
            f"write {{type: {schema}}}" if str(schema) in _TYPE_NAMES else "write a JSON Schema, such as {type: string}"
        )
        return [SchemaProblem(path=(), description=f"must be a JSON Schema, not {_shown(schema)}", hint=hint)]
    errors = itertools.islice(_SCHEMA_CHECK.iter_errors(schema), 8 * _VIOLATIONS_PER_INPUT)
    # The meta-schema reaches some keywords by several ways, and reports each.
    problems = list(dict.fromkeys(map(_schema_problem, errors))) or _build_problems(schema)
    if problems or "default" not in schema:
        return problems
    return [
        SchemaProblem(
            path=("default", *violation.place),
            description=f"does not fit its own schema: {violation.description}",
            hint="correct the default or the schema",
        )
        for violation in _violations(_validator(schema), schema["default"])
    ]


class InputsChecker:
    """Checks and completes the inputs of submissions against the schemas that a workflow declares.

    An input whose schema has a `default` may be left out.
    """

    __slots__ = ("_defaults", "_required", "_schemas", "_validators")

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = dict(schemas)
        self._validators = {name: _validator(schema) for name, schema in schemas.items()}
        self._defaults = {name: schema["default"] for name, schema in schemas.items() if "default" in schema}
        self._required = [name for name in schemas if name not in self._defaults]

    @property
    def names(self) -> tuple[str, ...]:
        """The declared inputs in the order of the document."""
        return tuple(self._schemas)

    def check(self, inputs: bytes) -> bytes:
        """The inputs as compact JSON with defaults filled in, in the order of declaration; raises InvalidInput.

        `inputs` is a JSON object; nothing at all means an empty one.
        """
        if not self._schemas and inputs in {b"", b"{}"}:
            return b"{}"
        given = self._object(inputs)
        violations = [*self._misnamed(given), *self._ill_typed(given)]
        if violations:
            first = violations[0]
            more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
            message = f"{first.path}: {first.description}{more}"
            raise InvalidInput(message, reason=INVALID_INPUTS, violations=violations)
        complete = {name: given[name] if name in given else self._defaults[name] for name in self._schemas}
        try:
            checked = json_text.encode(complete)
        except ValueError as error:
            raise _not_usable(str(error)) from None
        if len(checked) > INPUTS_LIMIT_BYTES:
            raise _too_large(len(checked))
        return checked

    def split(self, inputs: bytes) -> dict[str, bytes]:
        """The JSON of each input of checked `inputs`, for references that pass it on as it is."""
        given = json_text.decode(inputs or b"{}")
        assert isinstance(given, dict)
        return {name: json_text.encode(value) for name, value in given.items()}

    def schema(self) -> str:
        """The JSON Schema of the whole inputs object."""
        whole = {
            "$schema": _META_SCHEMA,
            "type": "object",
            "properties": {name: _embedded(name, schema) for name, schema in self._schemas.items()},
            "required": self._required,
            "additionalProperties": False,
        }
        return json.dumps(whole, ensure_ascii=False)

    def _object(self, inputs: bytes) -> dict[str, JsonValue]:
        if len(inputs) > INPUTS_LIMIT_BYTES:
            raise _too_large(len(inputs))
        try:
            given = json_text.decode(inputs or b"{}")
        except ValueError as error:
            raise _not_usable(str(error)) from None
        if not isinstance(given, dict):
            raise _not_usable(f"they must be a JSON object with a field per input, not {_shown(given)}")
        return given

    def _misnamed(self, given: Mapping[str, JsonValue]) -> Iterator[FieldViolation]:
        missing = [name for name in self._required if name not in given]
        for name in given:
            if name not in self._schemas:
                yield FieldViolation(
                    _path(_short(name)), "is not an input of this workflow", self._meant(name, missing)
                )
        for name in missing:
            wanted = self._schemas[name].get("type")
            hint = f"give {_types(wanted)}" if wanted else "give a value"
            yield FieldViolation(_path(name), "is missing, and has no default", hint)

    def _meant(self, name: str, missing: Sequence[str]) -> str:
        close = difflib.get_close_matches(name, [*missing, *self._schemas], n=1)
        if close:
            return f"did you mean {close[0]}?"
        return f"its inputs are {', '.join(self._schemas)}" if self._schemas else "it has no inputs"

    def _ill_typed(self, given: Mapping[str, JsonValue]) -> Iterator[FieldViolation]:
        for name, validator in self._validators.items():
            if name in given and not validator.is_valid(given[name]):
                for violation in _violations(validator, given[name]):
                    yield FieldViolation(_path(name, *violation.place), violation.description)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Violation:
    place: tuple[str | int, ...]
    description: str


def _validator(schema: Schema) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(dict(schema), offline=True, pattern_options=_PATTERNS)


def _build_problems(schema: Schema) -> list[SchemaProblem]:
    """What only building a validator finds: references that lead nowhere, patterns that do not compile."""
    try:
        _validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        if isinstance(error, jsonschema_rs.ValidationError):
            return [_schema_problem(error)]
        return [SchemaProblem(path=(), description=_short(str(error), 200))]
    except ValueError as error:
        return [SchemaProblem(path=(), description=_short(str(error), 200))]
    return []


def _schema_problem(error: jsonschema_rs.ValidationError) -> SchemaProblem:
    path = tuple(error.instance_path)
    if path[-1:] == ("type",):
        meant = difflib.get_close_matches(str(error.instance), _TYPE_NAMES, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"the types are {', '.join(_TYPE_NAMES)}"
        return SchemaProblem(path=path, description=f"{_shown(error.instance)} is not a type of JSON Schema", hint=hint)
    if path[-1:] == ("pattern",):
        hint = "write a regular expression without look-around and back-references"
        return SchemaProblem(path=path, description=f"{_shown(error.instance)} is not a usable pattern", hint=hint)
    description = _violation(error).description
    return SchemaProblem(path=path, description=f"is not valid JSON Schema: {description}")


def _violations(validator: jsonschema_rs.Draft202012Validator, value: JsonValue) -> list[_Violation]:
    return [_violation(error) for error in itertools.islice(validator.iter_errors(value), _VIOLATIONS_PER_INPUT)]


def _violation(error: jsonschema_rs.ValidationError) -> _Violation:
    place = tuple(error.instance_path)
    details = error.kind.as_dict()
    match error.kind.name:
        case "type":
            description = f"must be {_types(details.get('types'))}, not {_shown(error.instance)}"
        case "required":
            return _Violation(place=(*place, str(details.get("property"))), description="is missing")
        case _:
            description = _short(error.message, 200)
    return _Violation(place=place, description=description)


def _types(types: object) -> str:
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    return " or ".join(_TYPE_NAMES.get(str(name), str(name)) for name in names) or "a value of another type"


def _embedded(name: str, schema: Schema) -> Schema:
    """A schema of its own stays one inside the whole: its references count from its own root."""
    return schema if "$id" in schema else {"$id": f"urn:nodeflow:input:{name}", **schema}


def _path(name: str, *place: str | int) -> str:
    return f"inputs.{name}" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _shown(value: object) -> str:
    match value:
        case list() | dict():
            return json_text.kind(value)
        case _:
            return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str, limit: int = _SHOWN_CHARS) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


def _not_usable(problem: str) -> InvalidInput:
    return InvalidInput(
        f"the inputs cannot be used: {problem}", reason=INVALID_INPUTS, violations=[FieldViolation("inputs", problem)]
    )


def _too_large(size: int) -> InvalidInput:
    problem = f"they have {size:,} bytes; at most {INPUTS_LIMIT_BYTES:,} are allowed"
    return InvalidInput(
        f"the inputs are too large: {problem}",
        reason=INPUTS_TOO_LARGE,
        violations=[FieldViolation("inputs", problem, "upload large values as artifacts, or pass paths to files")],
    )
