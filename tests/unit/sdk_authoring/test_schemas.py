"""Hints as JSON Schemas, and what two schemas say about each other."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from nodeflow_sdk.authoring.hints import needs_conversion
from nodeflow_sdk.authoring.schemas import fields_of, item_of, list_of, misfit, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.5


@dataclass
class Tree:
    name: str
    children: list["Tree"]


class Row(TypedDict):
    name: str
    age: NotRequired[int]


class Unknown:
    pass


SCHEMAS: list[tuple[object, object]] = [
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (str, {"type": "string"}),
    (bool, {"type": "boolean"}),
    (None, {"type": "null"}),
    (list, {"type": "array"}),
    (list[str], {"type": "array", "items": {"type": "string"}}),
    (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (Mapping[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    (Literal["a", "b"], {"enum": ["a", "b"]}),
    (datetime, {"type": "string"}),
    (Any, {}),
    (Unknown, {}),
    (Path, {}),
    (bytes, {}),
    (list[Unknown], {"type": "array", "items": {}}),
    (dict[str, Unknown], {"type": "object", "additionalProperties": {}}),
    (Colour, {"$ref": "#/$defs/Colour", "$defs": {"Colour": {"title": "Colour", "enum": ["blue", "red"]}}}),
    (
        Row,
        {
            "$ref": "#/$defs/Row",
            "$defs": {
                "Row": {
                    "title": "Row",
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name"],
                }
            },
        },
    ),
]


@pytest.mark.parametrize(("hint", "schema"), SCHEMAS, ids=[str(hint) for hint, _ in SCHEMAS])
def test_a_hint_becomes_a_schema(hint: object, schema: object) -> None:
    assert schema_of(hint) == schema


MISFITS: list[tuple[object, object]] = [
    (int, str),
    (float, int),
    (str, int | None),
    (list[int], list[str]),
    (list[int], int),
    (dict[str, int], dict[str, str]),
    (Point, int),
    (Point, Row),
    (list[Point], list[Row]),
    (Colour, int),
    (Literal["a"], Literal["b"]),
    (Literal[1], str),
    (str | None, int | bool),
    (dict[str, list[int]], dict[str, list[str]]),
]
FITS: list[tuple[object, object]] = [
    (int, float),
    (int, int | None),
    (int | None, int),
    (Any, str),
    (str, Any),
    (Unknown, int),
    (list[Unknown], list[int]),
    (list, list[int]),
    (Point, dict[str, Any]),
    (dict[str, Any], Point),
    (Point, Point),
    (Tree, Tree),
    (Colour, str),
    (Literal["red"], Colour),
    (int | list[str], list[str]),
    (bytes, str),
]


@pytest.mark.parametrize(("given", "wanted"), MISFITS, ids=str)
def test_what_certainly_does_not_fit(given: object, wanted: object) -> None:
    assert misfit(schema_of(given), schema_of(wanted))


@pytest.mark.parametrize(("given", "wanted"), FITS, ids=str)
def test_what_may_fit(given: object, wanted: object) -> None:
    assert not misfit(schema_of(given), schema_of(wanted))


def test_parts_of_a_schema_keep_its_definitions() -> None:
    points = list_of(schema_of(Point))
    assert fields_of(item_of(points)) == ["x", "y"]
    assert misfit(item_of(points), schema_of(str))


CONVERTED = [Point, Colour, list[Point], Colour | None, dict[str, datetime], tuple[int, str], set[int], Tree]
PLAIN = [int, list[str], dict[str, Any], Row, Any, Unknown, Literal["a"], int | None, bytes, object]


@pytest.mark.parametrize("hint", CONVERTED, ids=str)
def test_types_beyond_json_are_made_from_it(hint: object) -> None:
    assert needs_conversion(hint)


@pytest.mark.parametrize("hint", PLAIN, ids=str)
def test_json_types_stay_as_they_came(hint: object) -> None:
    assert not needs_conversion(hint)
