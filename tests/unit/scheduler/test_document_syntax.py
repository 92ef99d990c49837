"""Texts that are no YAML, no JSON, or more than JSON has."""

import pytest
from tests.unit.scheduler.documents import compiled, fault_of, faults_of, workflow_of

from nodeflow_scheduler.domain.document_faults import Fault


@pytest.mark.parametrize(
    ("text", "description", "line"),
    [
        (b"", "is empty", None),
        (b"# only a comment\n", "is empty", None),
        (b"a: [1", "expected ',' or ']'", 1),
        (b"a: {b: 1\nc: 2\n", "at line 2, column 2; it begins at line 1, column 4", 1),
        (b"a: 'b\nc: 2\n", "at line 3, column 1; it begins at line 1, column 4", 1),
        (b"a: 1\nb: c: d\n", "mapping values are not allowed", 2),
        (b"a:\n\t- 1\n", "cannot start any token", 2),
        (b"a: 1\nb: \xff\n", "not UTF-8 text: byte 8", 2),
        (b"a: \x00", "not YAML: unacceptable character", None),
        (b"a: *nowhere", "undefined alias", 1),
        (b"--- {}\n--- {}\n", "another document", 2),
        (b"%FOO", "not YAML", 1),
        (b"- 1\n", "must be a mapping, not a list", 1),
        (b"text", "must be a mapping, not a string", 1),
        (b"[" * 100_000, "nested more than 64 levels", None),
        (b"{" * 100_000, "nested more than 64 levels", None),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested more than 64 levels", None),
        (b"a: &a [*a]", "nested more than 64 levels", 1),
        (b"a: 1\n" + b"#" * 1024 * 1024, "at most 1,048,576 are allowed", None),
    ],
)
def test_text_that_cannot_be_read(text: bytes, description: str, line: int | None) -> None:
    fault = fault_of(text)
    assert description in fault.description
    assert (fault.path, fault.line) == ("", line)


def test_aliases_of_aliases_cannot_explode() -> None:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert "aliases repeat more than" in fault_of(f"l0: &l0 [1]\n{layers}").description


def test_json_that_is_none_says_where() -> None:
    fault = fault_of('{"name": "w",\n "nodes" 3}', "application/json")
    assert fault.description == "the document is not JSON: Expecting ':' delimiter at line 2, column 10"
    assert fault.line == 2


def test_a_content_type_that_is_not_known() -> None:
    assert fault_of(workflow_of("a: m:f"), "text/html").hint == "send application/yaml or application/json"


@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_duplicate_keys_are_told_with_both_lines(content_type: str) -> None:
    text = (
        '{"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "w",\n"nodes": {\n"a": {"function": "m:f"},\n'
        '"b": {"function": "m:f", "function": "m:g"},\n"a": {"function": "m:f"}}}'
    )
    assert faults_of(text, content_type) == (
        Fault(
            path="nodes.b.function",
            description="'function' stands twice, in lines 4 and 4",
            hint="keep one of the two",
            line=4,
        ),
        Fault(path="nodes.a", description="'a' stands twice, in lines 3 and 5", hint="keep one of the two", line=5),
    )


def test_keys_tags_and_numbers_that_json_does_not_have() -> None:
    text = workflow_of("a: {function: m:f, with: {x: .inf, y: !mine 1, 3: 4, z: 2026-01-02, k: 0x1F}}")
    assert [(fault.path, fault.line) for fault in faults_of(text)] == [
        ("nodes.a.with.x", 5),
        ("nodes.a.with.y", 5),
        ("nodes.a.with", 5),
    ]


def test_escaped_surrogates_are_characters_in_pairs_and_faults_alone() -> None:
    node = '{"function": "m:f", "with": {"x": ["\\ud83d\\ude00"]}}'
    pair = f'{{"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "w", "nodes": {{"a": {node}}}}}'
    direct = workflow_of("a: {function: m:f, with: {x: ['😀']}}")
    assert compiled(pair, "application/json").revision == compiled(direct).revision
    as_yaml = pair.replace('"x": ', "x: ")
    assert compiled(as_yaml).revision == compiled(direct).revision
    for alone in (pair, as_yaml):
        fault = fault_of(alone.replace("\\ude00", ""))
        assert (fault.path, fault.line) == ("nodes.a.with.x[0]", 1)
        assert "half of a surrogate pair" in fault.description
