"""Values from the command line, read as a schema wants them."""

import json
from pathlib import Path

import pytest

from nodeflow_sdk.cli.errors import CliError, ExitCode
from nodeflow_sdk.cli.inputs import read_input_file, split_pairs, typed


def read(text: str, schema: object) -> object:
    return typed({"x": text}, json.dumps({"type": "object", "properties": {"x": schema}}))["x"]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("123", {"type": "string"}, "123"),
        ("true", {"type": "string"}, "true"),
        ('"quoted"', {"type": "string"}, '"quoted"'),
        ("", {"type": "string"}, ""),
        ("123", {"type": "integer"}, 123),
        ("123", {"type": "number"}, 123),
        ("1.5", {"type": "number"}, 1.5),
        ("true", {"type": "boolean"}, True),
        ('["a"]', {"type": "array"}, ["a"]),
        ('{"a": 1}', {"type": "object"}, {"a": 1}),
        ("null", {"type": ["string", "null"]}, None),
        ("nil", {"type": ["string", "null"]}, "nil"),
        ("7", {"type": ["string", "number"]}, 7),
        ("7", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 7),
        ("a", {"enum": ["a", "b"]}, "a"),
        ("2", {"enum": [1, 2]}, 2),
        ("123", {}, 123),
        ("a.txt", {}, "a.txt"),
        ("NaN", {}, "NaN"),
        # The service says what is wrong with it, in the words of the schema.
        ("7", {"type": "array"}, 7),
    ],
)
def test_a_value_is_json_where_json_is_wanted(text: str, schema: object, value: object) -> None:
    assert read(text, schema) == value


def test_an_unknown_input_is_left_to_the_service() -> None:
    assert typed({"y": "[1"}, '{"type": "object", "properties": {}}') == {"y": "[1"}
    assert typed({"y": "1"}, "") == {"y": 1}


def test_what_cannot_be_meant_is_a_usage_error_with_an_example() -> None:
    with pytest.raises(CliError) as refused:
        read("a.txt", {"type": "array"})
    assert refused.value.exit_code is ExitCode.USAGE
    assert refused.value.hint == '--input \'x=["a", "b"]\''


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert split_pairs("--label", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(CliError):
            split_pairs("--label", wrong)


@pytest.mark.parametrize(
    ("text", "told"), [("[1]", "holds JSON of type array"), ('{"a":\n 1,}', "in.json:2:"), ("\xff", "in.json:1:")]
)
def test_an_input_file_that_is_no_object_is_a_usage_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(CliError, match=told):
        read_input_file(tmp_path / "in.json")


def test_an_input_file_of_other_bytes_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CliError, match="not UTF-8"):
        read_input_file(tmp_path / "in.json")
