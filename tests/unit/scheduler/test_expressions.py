"""Expressions: what `${…}` gives, as bytes, and what it refuses."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduler.expressing import (
    INPUTS,
    NODES,
    FixedScope,
    compact,
    compiled,
    condition,
    evaluated,
    fault_of,
    json_values,
)

from nodeflow_scheduler.domain.document_faults import DocumentFaults, FaultList
from nodeflow_scheduler.domain.expressions import (
    VALUE_TOO_LARGE,
    Cel,
    Constant,
    ExpressionError,
    Path,
    Reference,
    truth,
)
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.templates import Names, compile_value
from nodeflow_scheduler.domain.values import MANIFEST, Stored, Value

# ---------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("${inputs.x}", b'{"deep":1.0}'),
        ("${ inputs.x }", b'{"deep":1.0}'),
        ('${inputs["file-name"]}', b'"f"'),
        ("${inputs}", b'{"x":{"deep":1.0},"file-name":"f"}'),
        ("${nodes.a.output}", b"[1, 2,  3]"),
        ('${nodes["a-b"].output}', b"7"),
        ("${item}", b'"i"'),
        ("${index}", b"4"),
        ("${execution.id}", b'"e-1"'),
    ],
)
def test_a_plain_reference_passes_the_bytes_on_as_they_are(text: str, given: bytes) -> None:
    scope = FixedScope(
        given_inputs={"x": {"deep": 1.0}, "file-name": "f"},
        outputs={0: b"[1, 2,  3]", 2: b"7"},
        given_item=b'"i"',
        given_index=4,
    )
    expression = compiled(text)
    assert isinstance(expression, Reference)
    assert expression.evaluate(scope) == given


def test_a_reference_to_a_stored_value_is_that_stored_value() -> None:
    stored = Stored(content_type=MANIFEST, digest="d", size_bytes=10**9)
    assert compiled("${nodes.a.output}").evaluate(FixedScope(outputs={0: stored})) is stored


def test_a_path_into_a_value_needs_no_cel() -> None:
    expression = compiled("${nodes.a.output.rows[1].name}")
    assert isinstance(expression, Path)
    assert expression.nodes == {0}
    assert expression.evaluate(FixedScope(outputs={0: b'{"rows":[{},{"name":"n"}]}'})) == b'"n"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${item.b}", "item has no field 'b'; it has a"),
        ("${item.a.b}", "item.a is a list, which has no field 'b'"),
        ("${item.a[1]}", "item.a has 1 items, so none at [1]"),
        ("${item[0]}", "item is an object, which has no item [0]"),
    ],
)
def test_a_path_that_leads_nowhere_says_how_far_it_came(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError, match="item") as caught:
        compiled(text).evaluate(FixedScope(given_item=b'{"a":[1]}'))
    assert caught.value.problem == problem


# ---------------------------------------------------------------------- CEL


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${1 + 2}", 3),
        ("${size(nodes.a.output) > 0}", True),
        ("${nodes.a.output.filter(n, n > 1)}", [2, 3]),
        ("${inputs.x + '/' + item}", "dir/i"),
        ("${{'a': index, 'b': [item]}}", {"a": 4, "b": ["i"]}),
        ("${'}' + \"{${\" + r'\\'}", "}{${\\"),
        ("${nodes['b'].output == null}", True),
        ("${timestamp('2026-01-02T03:04:05+01:00')}", "2026-01-02T02:04:05Z"),
        ("${duration('90s')}", "90s"),
        ("${duration('1500ms')}", "1.5s"),
        ("${has(inputs.y.z) ? inputs.y.z : 'none'}", "none"),
        ("${inputs.exists(name, name == 'x')}", True),
        ("${inputs[inputs.x + '-name'] == 1 || true}", True),
        ("${execution.workflow + '!'}", "word-count!"),
        ("${7.0 / 2.0}", 3.5),
    ],
)
def test_cel(text: str, result: JsonValue) -> None:
    scope = FixedScope(
        given_inputs={"x": "dir", "y": {}, "file-name": "f"},
        outputs={0: b"[1,2,3]", 1: b"null"},
        given_item=b'"i"',
        given_index=4,
    )
    assert evaluated(text, scope) == result


def test_cel_decodes_only_what_it_reads_and_each_value_once() -> None:
    scope = FixedScope(given_inputs={"x": 1, "y": 2}, outputs={0: b"5"})
    assert evaluated("${inputs.x + inputs.x + nodes.a.output}", scope) == 7
    assert scope.read == ["inputs.x", "nodes[0]"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${inputs.y.missing + 1}", "there is no field 'missing'"),
        ("${inputs.x + 1}", "string \\+ int"),
        ("${1 / (size(inputs.x) - 3)}", "division by zero"),
        ("${[1][size(inputs.x)]}", "out of bounds"),
        ("${bytes(inputs.x)}", "no JSON value: bytes"),
        ("${double(size(inputs.x)) / 0.0}", "no JSON value: a number"),
        ("${int(inputs.x)}", "parse"),
        ("${inputs.x.matches('(')}", "not a valid regex"),
    ],
)
def test_cel_that_fails_says_what_and_where(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError, match=problem) as caught:
        evaluated(text, FixedScope(given_inputs={"x": "dir", "y": {}}))
    assert caught.value.code_name == "INVALID_ARGUMENT"
    assert caught.value.expression == text[2:-1]


@pytest.mark.parametrize("value", [b'"' + b"x" * 70_000 + b'"', Stored(digest="d", size_bytes=70_002)])
@pytest.mark.parametrize("text", ["${size(nodes.a.output)}", "${nodes.a.output[0]}", "text ${nodes.a.output}"])
def test_large_values_are_refused_by_name_wherever_they_must_be_read(text: str, value: Value) -> None:
    with pytest.raises(
        ExpressionError, match=r"nodes\.a\.output is too large \(70,002 bytes\).*\$\{nodes\.a\.output\}"
    ) as caught:
        compiled(text).evaluate(FixedScope(outputs={0: value}))
    assert caught.value.reason == VALUE_TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        "${inputs.x.map(i, inputs.x)}",
        "${inputs.x.map(i, inputs.x.map(j, inputs.x.map(k, k)))}",
        "${[inputs.x]" + ".map(i, i + i)" * 200 + "}",
        "${inputs.x.map(i, i)}",
        "${inputs.x.filter(i, i > 1)}",
        "${" + "+".join(["inputs.x"] * 400) + "}",
        "${inputs.x.all(i, 'a'.matches('(\\\\p{L}{20}){5}'))}",
    ],
)
def test_what_would_take_long_is_refused_before_it_is_tried(text: str) -> None:
    scope = FixedScope(given_inputs={"x": list(range(10_000))})
    expression = compiled(text)
    started = time.perf_counter()
    with pytest.raises(ExpressionError, match=r"take too long .* 10,000 items"):
        expression.evaluate(scope)
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("${inputs.x.all(i, i >= 0)}", 10_000),
        ("${inputs.x.filter(i, i >= 0)}", 2_000),
        ("${inputs.x.map(i, string(i) + '.txt')}", 1_000),
        ("${inputs.x.filter(i, inputs.x.exists(j, j == i))}", 400),
        ("${inputs.x.map(i, inputs.x.map(j, i * j))}", 60),
    ],
)
def test_what_ends_soon_is_evaluated(text: str, count: int) -> None:
    assert evaluated(text, FixedScope(given_inputs={"x": list(range(count))}))


@given(value=json_values)
def test_cel_gives_back_any_value_it_is_given(value: JsonValue) -> None:
    scope = FixedScope(given_item=compact(value))
    assert evaluated("${[item][0]}", scope) == value


# ------------------------------------------------------------ interpolation


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a ${item} b", 'a "q"\\é\n b'),
        ("${item}${item}", '"q"\\é\n"q"\\é\n'),
        ("n=${1 + 1}", "n=2"),
        ("o=${inputs.x}", 'o={"k":["v"]}'),
        ("none: ${nodes.b.output}", "none: null"),
        ("$${item} costs $5 ${index}", "${item} costs $5 0"),
        ("$${item}", "${item}"),
        ("${'a}b'}!", "a}b!"),
    ],
)
def test_interpolation(text: str, result: str) -> None:
    scope = FixedScope(given_inputs={"x": {"k": ["v"]}}, outputs={1: b"null"}, given_item=compact('"q"\\é\n'))
    assert evaluated(text, scope) == result


# --------------------------------------------------------------- structures


def test_structures_hold_expressions_at_any_depth() -> None:
    value: JsonValue = {"a": [1, {"b": "${item}"}, "${nodes.a.output}"], "c": "x${index}", "d": {}}
    scope = FixedScope(outputs={0: b'{"z":  1}'}, given_item=b"5")
    assert evaluated(value, scope) == {"a": [1, {"b": 5}, {"z": 1}], "c": "x0", "d": {}}
    assert compiled(value).nodes == {0}


def test_a_structure_without_expressions_is_a_constant() -> None:
    assert isinstance(compiled({"a": [1, None, "é"]}), Constant)


def test_a_stored_value_inside_a_structure_must_be_passed_whole() -> None:
    scope = FixedScope(outputs={0: Stored(digest="d", size_bytes=2**20)})
    with pytest.raises(ExpressionError, match="pass it whole as a parameter") as caught:
        compiled({"a": ["${nodes.a.output}"]}).evaluate(scope)
    assert caught.value.reason == VALUE_TOO_LARGE


# --------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (True, True),
        (False, False),
        ("size(nodes.a.output) > 0", True),
        ("${inputs.x}", False),
        ("inputs.x || true", True),
    ],
)
def test_conditions(text: JsonValue, *, result: bool) -> None:
    scope = FixedScope(given_inputs={"x": False}, outputs={0: b"[1]"})
    assert truth(condition(text), scope) is result


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (None, "null"),
        (3, "a number, 3"),
        ("true", 'a string, "true"'),
        ([], "a list, []"),
        ({"a": 1}, 'an object, {"a":1}'),
    ],
)
def test_a_condition_must_be_a_boolean(given: JsonValue, what: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        truth(condition("inputs.x"), FixedScope(given_inputs={"x": given}))
    assert caught.value.problem == f"a condition must give true or false; this gave {what}"


def test_a_condition_is_one_expression() -> None:
    with pytest.raises(DocumentFaults, match="must be one condition"):
        condition("${inputs.x} == 1")
    with pytest.raises(DocumentFaults, match="must be a condition"):
        condition(3)


# ------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("${inputs.z}", "there is no input 'z'"),
        ("${inputs.file_name}", "did you mean file-name?"),
        ("${nodes.c.output}", "there is no node 'c'"),
        ("${nodes.a}", "nodes.a must be followed by .output"),
        ("${nodes.a.result}", "write nodes.a.output"),
        ("${nodes.a-b.output}", 'written nodes["a-b"].output'),
        ("${nodes}", "needs a constant name"),
        ("${nodes[inputs.x].output}", "needs a constant name"),
        ("${size(nodes)}", "needs a constant name"),
        ("${execution.name}", "it has id, workflow, revision, tenant, create_time"),
        ("${x + 1}", "did you mean inputs.x?"),
        ("${a.output}", "'a' in 'a.output' is not known (did you mean nodes.a.output?)"),
        ("${input.x + 1}", "did you mean inputs?"),
        ("${len(inputs.x)}", "there is no function 'len' in CEL (use size(…))"),
        ("${inputs.x.startswith('a')}", "did you mean startsWith?"),
        ("${inputs.x.map(item, item)}", "'item' cannot be the variable of a loop"),
        ("${True}", "did you mean true?"),
        ("${1 +}", "unexpected the end at column 4"),
        ("${a and b}", "write &&, || and !"),
        ("${}", "the expression is empty"),
        ("${  }", "the expression is empty"),
        ("${inputs.x", "has no closing brace"),
        ("${'}", "unexpected text ''' at column 1"),
        ("${" + "1+" * 2100 + "1}", "the expression has 4,201 characters"),
        ("${" + "(" * 500 + ")" * 500 + "}", "is not a CEL expression"),
        ({"a${item}": 1}, "cannot stand in a key"),
        (float("inf"), "is no JSON value"),
    ],
)
def test_faults_are_found_before_anything_runs(text: JsonValue, fault: str) -> None:
    assert fault in fault_of(text)


@pytest.mark.parametrize("text", ["${item}", "${index + 1}", "a ${item.x}"])
def test_item_and_index_exist_only_per_item(text: str) -> None:
    assert "of a node that has `map`" in fault_of(text, item=False)


def test_all_faults_of_a_structure_are_told() -> None:
    assert fault_of({"a": "${inputs.q} ${nodes.q.output}", "b": ["${1 +}"]}).count("with.") == 3


@given(text=st.text(alphabet="${}()[].+-'\"\\ abinputsnodesoutputxyz019,", max_size=60))
def test_any_text_compiles_or_is_a_fault(text: str) -> None:
    faults = FaultList()
    expression = compile_value("${" + text + "}", Names(inputs=INPUTS, nodes=NODES, item=True), faults, ())
    try:
        faults.raise_if_any()
    except DocumentFaults:
        return
    scope = FixedScope(given_inputs={"x": 1, "y": [], "file-name": ""}, outputs={0: b"1", 1: b"{}", 2: b"[]"})
    try:
        value = expression.evaluate(scope)
    except ExpressionError:
        return
    assert isinstance(value, bytes)
    json.loads(value)


def test_a_simple_expression_is_cel_and_not_more() -> None:
    assert isinstance(compiled("${inputs.x.size()}"), Cel)
    assert isinstance(compiled("plain"), Constant)
