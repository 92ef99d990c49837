"""Arguments: expressions and constants, joined to what a task is given."""

import json

import pytest
from hypothesis import given
from tests.unit.scheduler.expressing import NODES, FixedScope, compact, compiled, json_values

from nodeflow_scheduler.domain.document_faults import FaultList
from nodeflow_scheduler.domain.expressions import (
    ARGUMENTS_TOO_LARGE,
    VALUE_TOO_LARGE,
    Arguments,
    ExpressionError,
    Rendered,
)
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.templates import Names, compile_value
from nodeflow_scheduler.domain.values import Stored


def arguments_of(**values: JsonValue) -> Arguments:
    return Arguments({name: compiled(value) for name, value in values.items()})


def test_arguments_are_joined_from_constants_and_references() -> None:
    arguments = arguments_of(a=1, b="${nodes.a.output}", c="t", d="${item}", e="${index}")
    scope = FixedScope(outputs={0: b"[1, 2]"}, given_item=b'"i"', given_index=3)
    assert arguments.render(scope) == Rendered(b'{"a":1,"b":[1, 2],"c":"t","d":"i","e":3}')
    assert arguments.nodes == {0}


def test_constant_arguments_are_rendered_once() -> None:
    arguments = arguments_of(a=1, b={"c": []})
    assert arguments.render(FixedScope()) is arguments.render(FixedScope())
    assert arguments.render(FixedScope()) == Rendered(b'{"a":1,"b":{"c":[]}}')
    assert arguments_of().render(FixedScope()) == Rendered(b"{}")


def test_stored_arguments_are_references_beside_the_others() -> None:
    stored, other = Stored(digest="d", size_bytes=2**30), Stored(content_type="image/png", data=b"\x89")
    arguments = arguments_of(first="${nodes.a.output}", n=1, last="${nodes.b.output}", i="${item}")
    rendered = arguments.render(FixedScope(outputs={0: stored, 1: other}, given_item=b"2"))
    assert rendered == Rendered(b'{"n":1,"i":2}', (("first", stored), ("last", other)))
    assert arguments_of(only="${item}").render(FixedScope(given_item=stored)) == Rendered(b"{}", (("only", stored),))


LARGEST = b'"' + b"x" * 65_000 + b'"'


@pytest.mark.parametrize("value", ["${item}" * 300, ["${item}"] * 300], ids=["text", "list"])
def test_a_value_that_names_a_large_one_very_often_is_refused_before_it_is_made(value: JsonValue) -> None:
    with pytest.raises(ExpressionError, match="more than 16,777,216 bytes") as caught:
        compiled(value).evaluate(FixedScope(given_item=LARGEST))
    assert caught.value.reason == VALUE_TOO_LARGE
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("text", ["${item}", "${nodes.a.output}"])
def test_of_very_many_arguments_no_more_is_read_than_can_be_passed(text: str) -> None:
    scope = FixedScope(given_item=LARGEST, outputs={0: LARGEST})
    arguments = Arguments({f"p{n}": compiled(text) for n in range(5_000)})
    with pytest.raises(ExpressionError, match="the arguments have 1,1"):
        arguments.render(scope)


def test_arguments_over_a_mebibyte_are_refused() -> None:
    arguments = Arguments({f"p{n}": compiled("${item}") for n in range(20)})
    with pytest.raises(ExpressionError, match="the arguments have") as caught:
        arguments.render(FixedScope(given_item=b'"' + b"x" * 60_000 + b'"'))
    assert caught.value.reason == ARGUMENTS_TOO_LARGE


@given(item=json_values, constant=json_values, output=json_values)
def test_rendering_agrees_with_plain_json(item: JsonValue, constant: JsonValue, output: JsonValue) -> None:
    faults = FaultList()
    names = Names(nodes=NODES, item=True)
    # A constant may hold `${` by chance; what it then means is not the point here.
    if "${" in json.dumps(constant):
        return
    with_: dict[str, JsonValue] = {
        "constant": constant,
        "whole": "${nodes.a.output}",
        "list": ["${item}", constant, {"in": "${nodes.a.output}"}],
        "text": "<${item}>",
    }
    arguments = Arguments({name: compile_value(value, names, faults, (name,)) for name, value in with_.items()})
    faults.raise_if_any()
    rendered = arguments.render(FixedScope(outputs={0: json.dumps(output).encode()}, given_item=compact(item)))
    shown = item if isinstance(item, str) else compact(item).decode()
    assert json.loads(rendered.arguments) == {
        "constant": constant,
        "whole": output,
        "list": [item, constant, {"in": output}],
        "text": f"<{shown}>",
    }
