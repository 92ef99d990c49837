"""The check of inputs: what a submission gives against what a workflow declares."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeflow_scheduler.domain.inputs import INPUTS_TOO_LARGE, INVALID_INPUTS, InputsChecker, schema_problems
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_shared.errors import FieldViolation, InvalidInput

CHECKER = InputsChecker(
    {"paths": {"type": "array", "items": {"type": "string"}}, "limit": {"type": "integer", "minimum": 1, "default": 10}}
)


def violations(checker: InputsChecker, inputs: bytes) -> list[FieldViolation]:
    with pytest.raises(InvalidInput) as caught:
        checker.check(inputs)
    assert caught.value.reason == INVALID_INPUTS
    return list(caught.value.violations)


def test_defaults_fill_in_and_the_order_is_that_of_the_declaration() -> None:
    assert CHECKER.check(b'{ "paths": ["\xc3\xa9"] }') == '{"paths":["é"],"limit":10}'.encode()
    assert CHECKER.check(b'{"limit": 3, "paths": []}') == b'{"paths":[],"limit":3}'


def test_nothing_is_an_empty_object() -> None:
    assert InputsChecker({}).check(b"") == b"{}"
    assert InputsChecker({"n": {"default": None}}).check(b"") == b'{"n":null}'


def test_each_wrong_value_is_told_with_its_place() -> None:
    assert violations(CHECKER, b'{"paths": ["a", 3, {"b": 1}], "limit": 0}') == [
        FieldViolation("inputs.paths[1]", "must be a string, not 3"),
        FieldViolation("inputs.paths[2]", "must be a string, not an object"),
        FieldViolation("inputs.limit", "0 is less than the minimum of 1"),
    ]


def test_unknown_and_missing_inputs_are_told_together() -> None:
    assert violations(CHECKER, b'{"path": []}') == [
        FieldViolation("inputs.path", "is not an input of this workflow", "did you mean paths?"),
        FieldViolation("inputs.paths", "is missing, and has no default", "give a list"),
    ]
    assert violations(InputsChecker({}), b'{"a": 1}')[0].hint == "it has no inputs"


def test_a_missing_field_inside_an_input_has_its_place() -> None:
    checker = InputsChecker({"o": {"type": "object", "required": ["a"]}})
    assert violations(checker, b'{"o": {}}') == [FieldViolation("inputs.o.a", "is missing")]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (b"[1]", "must be a JSON object with a field per input, not a list"),
        (b"{", "it is not JSON: .* at line 1, column 2"),
        (b'{"paths": NaN}', "NaN is not a number"),
        (b'{"paths": 1' + b"0" * 5000 + b"}", "it holds a number with too many digits"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"paths": ["\\ud800"]}', "half of a surrogate pair"),
        (b'{"paths": [], "limit": 1e999}', "not finite|integer"),
    ],
)
def test_what_is_no_json_object_is_refused(inputs: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        CHECKER.check(inputs)


def test_inputs_over_a_mebibyte_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 1,048,576") as caught:
        CHECKER.check(b'{"paths": ["' + b"x" * 1024 * 1024 + b'"]}')
    assert caught.value.reason == INPUTS_TOO_LARGE


def test_split_gives_the_bytes_of_each_input() -> None:
    assert CHECKER.split(b'{"paths":["a","b"],"limit":3}') == {"paths": b'["a","b"]', "limit": b"3"}


def test_the_schema_of_the_whole_says_the_same_as_the_check() -> None:
    schema = json.loads(CHECKER.schema())
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid({"paths": []})
    assert not validator.is_valid({"limit": 1})
    assert not validator.is_valid({"paths": [], "other": 1})
    assert not validator.is_valid({"paths": [1]})


def test_references_within_a_schema_hold_in_the_whole_too() -> None:
    checker = InputsChecker({"t": {"$ref": "#/$defs/name", "$defs": {"name": {"type": "string"}}}})
    assert checker.check(b'{"t": "x"}') == b'{"t":"x"}'
    validator = jsonschema_rs.validator_for(json.loads(checker.schema()))
    assert validator.is_valid({"t": "x"})
    assert not validator.is_valid({"t": 1})


@pytest.mark.parametrize(
    ("schema", "path", "description", "hint"),
    [
        ("string", (), "must be a JSON Schema", "write {type: string}"),
        (3, (), "must be a JSON Schema, not 3", "such as {type: string}"),
        ({"type": "strng"}, ("type",), '"strng" is not a type', "did you mean string?"),
        ({"items": 5}, ("items",), "is not valid JSON Schema", ""),
        ({"pattern": "("}, ("pattern",), "not a usable pattern", "look-around"),
        ({"pattern": "(?=a)b"}, ("pattern",), "not a usable pattern", "look-around"),
        ({"$ref": "#/$defs/none"}, (), "does not exist", ""),
        ({"$ref": "http://example.invalid/x"}, (), "cannot fetch", ""),
        ({"type": "integer", "default": "a"}, ("default",), 'must be an integer, not "a"', "correct the default"),
    ],
)
def test_unusable_schemas(schema: JsonValue, path: tuple[str, ...], description: str, hint: str) -> None:
    [problem] = schema_problems(schema)
    assert problem.path == path
    assert description in problem.description
    assert hint in problem.hint


def test_every_fault_of_a_schema_is_told_once() -> None:
    problems = schema_problems({"minimum": "x", "properties": {"a": {"type": "text"}}})
    assert sorted(problem.path for problem in problems) == [("minimum",), ("properties", "a", "type")]


@given(inputs=st.binary(max_size=200) | st.text(alphabet='{}[]",:pathslimit0123 ', max_size=60).map(str.encode))
def test_any_bytes_are_checked_or_refused(inputs: bytes) -> None:
    try:
        checked = CHECKER.check(inputs)
    except InvalidInput:
        return
    assert set(json.loads(checked)) == {"paths", "limit"}
