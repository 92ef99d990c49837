"""Workflow documents: what they compile to, and every way in which one can be wrong."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from ruamel.yaml import YAML
from tests.unit.scheduler.documents import HEAD, compiled, fault_of, faults_of, workflow_of

from nodeflow_scheduler.domain.document_faults import FAULTS_LIMIT, DocumentFaults
from nodeflow_scheduler.domain.document_schema import document_schema
from nodeflow_scheduler.domain.expressions import Cel, Reference
from nodeflow_scheduler.domain.workflow import (
    Backoff,
    FailurePolicy,
    FunctionSpec,
    ProcessLimits,
    ProcessSpec,
    RetryPolicy,
)

WORD_COUNT = """\
apiVersion: nodeflow/v1
kind: Workflow
name: word-count
inputs: {paths: {type: array, items: {type: string}}}
nodes:
  count:
    map: ${inputs.paths}
    function: examples.word_count:count
    with: {path: "${item}"}
    retry: {attempts: 3, backoff: {initial: 1s, factor: 2, max: 30s, jitter: 0.2}}
    timeout: 30s
  total:
    function: examples.word_count:total
    with: {counts: "${nodes.count.output}"}
    when: size(nodes.count.output) > 0
outputs: {total: "${nodes.total.output}"}
"""

# ------------------------------------------------------------ what compiles


def test_the_example_compiles() -> None:
    workflow = compiled(WORD_COUNT, "application/yaml")
    count, total = workflow.nodes
    assert (workflow.name, workflow.directory, workflow.on_failure) == (
        "word-count",
        "/jobs",
        FailurePolicy.CANCEL_DEPENDENTS,
    )
    assert (count.name, count.executor, count.timeout_ms) == (
        "count",
        FunctionSpec(function="examples.word_count:count"),
        30_000,
    )
    assert count.retry == RetryPolicy(
        attempts=3, backoff=Backoff(initial_ms=1_000, factor=2, max_ms=30_000, jitter=0.2)
    )
    assert isinstance(count.map, Reference)
    assert isinstance(total.when, Cel)
    assert (count.dependencies, total.dependencies) == ((), (0,))
    assert (workflow.successors, workflow.dependency_counts, workflow.roots) == (((1,), ()), (0, 1), (0,))
    assert [name for name, _ in workflow.outputs] == ["total"]
    assert workflow.inputs.names == ("paths",)


def test_json_is_as_good_as_yaml() -> None:
    document = YAML(typ="safe", pure=True).load(WORD_COUNT)
    for content_type in ("application/json", "application/json; charset=utf-8", "application/yaml", ""):
        assert compiled(json.dumps(document), content_type).revision == compiled(WORD_COUNT).revision


def test_dependencies_come_from_needs_and_from_every_expression() -> None:
    workflow = compiled(
        workflow_of(
            "a: {function: m:f}\n"
            "b: {function: m:f}\n"
            "c-c: {function: m:f}\n"
            "d: {function: m:f}\n"
            'e: {function: m:f, map: "${nodes.d.output}", needs: [a, a], when: nodes.b.output > 1,'
            " with: {p: ['${nodes[\"c-c\"].output}'], q: '${item} ${nodes.a.output}'}}"
        )
    )
    assert workflow.nodes[4].dependencies == (0, 1, 2, 3)
    assert workflow.successors[:4] == ((4,), (4,), (4,), (4,))


def test_short_forms_and_defaults() -> None:
    workflow = compiled(
        workflow_of(
            "a: {function: m:f, retry: 4}\n"
            "b: {function: m:f, retry: {attempts: 2, backoff: {initial: 2m}}, timeout: 1m30s}\n"
            "c: {function: m.n:C.f, when: false, map: [1, 2]}",
            "timeout: 1h\non_failure: fail_fast\n",
        )
    )
    a, b, c = workflow.nodes
    assert a.retry == RetryPolicy(attempts=4)
    assert (b.retry.backoff.initial_ms, b.retry.backoff.max_ms, b.timeout_ms) == (120_000, 120_000, 90_000)
    assert (a.retry.backoff, c.retry, c.timeout_ms) == (Backoff(), RetryPolicy(), None)
    assert (workflow.timeout_ms, workflow.on_failure) == (3_600_000, FailurePolicy.FAIL_FAST)


def test_yaml_anchors_and_merge_keys_work() -> None:
    workflow = compiled(
        HEAD + "nodes:\n  a: &base {function: 'm:f', timeout: 5s}\n  b: {<<: *base, timeout: 6s}\n  c: {<<: [*base]}\n"
    )
    assert [node.timeout_ms for node in workflow.nodes] == [5_000, 6_000, 5_000]


def test_a_yaml_anchor_may_be_defined_anew() -> None:
    text = HEAD + "nodes:\n  a: {function: &f 'm:f'}\n  b: {function: &f 'm:g'}\n  c: {function: *f}\n"
    assert [node.executor for node in compiled(text).nodes] == [
        FunctionSpec(function=name) for name in ("m:f", "m:g", "m:g")
    ]


def test_ten_thousand_nodes_in_one_chain_compile() -> None:
    nodes = {f"n{i}": {"function": "m:f", **({"needs": [f"n{i - 1}"]} if i else {})} for i in range(10_000)}
    document = {"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "w", "nodes": nodes}
    workflow = compiled(json.dumps(document))
    assert workflow.roots == (0,)
    nodes["n10000"] = {"function": "m:f"}
    assert "at most 10,000" in fault_of(json.dumps(document)).description


# ----------------------------------------------------------------- revision


def test_the_revision_ignores_layout_comments_and_the_order_of_keys() -> None:
    first = compiled(workflow_of("a: {function: m:f, timeout: 60s, retry: 2, with: {x: 1, y: 2}}"))
    same = compiled(
        "# a comment\nname: w\nnodes:\n  a:\n    with:\n      y: 2\n      x: 1\n    retry: {attempts: 2}\n"
        "    timeout: 1m\n    function: 'm:f'\nkind: Workflow\napiVersion: nodeflow/v1\n"
    )
    assert first.revision == same.revision
    assert first.revision.startswith("sha256:")


@pytest.mark.parametrize(
    "other",
    [
        workflow_of("b: {function: m:f}\na: {function: m:f}"),
        workflow_of("a: {function: m:g}\nb: {function: m:f}"),
        workflow_of("a: {function: m:f, with: {x: 1}}\nb: {function: m:f}"),
        workflow_of("a: {function: m:f}\nb: {function: m:f, needs: [a]}"),
        workflow_of("a: {function: m:f}\nb: {function: m:f}", "on_failure: continue\n"),
        workflow_of("a: {function: m:f}\nb: {function: m:f}", "inputs: {x: {}}\n"),
        workflow_of("a: {function: m:f}\nb: {function: m:f}", "outputs: {x: 1}\n"),
    ],
)
def test_the_revision_changes_with_the_meaning(other: str) -> None:
    base = compiled(workflow_of("a: {function: m:f}\nb: {function: m:f}"))
    assert compiled(other).revision != base.revision
    assert compiled(workflow_of("a: {function: m:f}\nb: {function: m:f}"), directory="/else").revision != base.revision


# -------------------------------------------------------------------- shape


@pytest.mark.parametrize(
    ("node", "path", "description", "hint"),
    [
        ("{}", "function", "is missing, and there is no `process`", "my_module:my_function"),
        ("{function: m.f}", "function", "does not name a function", "did you mean m:f?"),
        ("{function: 'rm -rf'}", "function", "does not name a function", "examples.word_count:count"),
        ("{function: 3}", "function", "must be text, not a number", ""),
        ("{function: m:f, funktion: x}", "funktion", "is not a known field", "did you mean function?"),
        ("{function: m:f, zzz: x}", "zzz", "is not a known field", "the fields here are function, process, map, with"),
        ("{function: m:f, timeout: 30}", "timeout", "30 has no unit", "write 30s for seconds"),
        ("{function: m:f, timeout: 30 sec}", "timeout", "'30 sec' is not a duration", "1m30s"),
        ("{function: m:f, timeout: 0s}", "timeout", "longer than nothing", "leave it out"),
        ("{function: m:f, timeout: 9999d}", "timeout", "longer than ten years", ""),
        ("{function: m:f, retry: 0}", "retry.attempts", "must be at least 1, not 0", ""),
        ("{function: m:f, retry: 1001}", "retry.attempts", "must be at most 1000, not 1001", ""),
        ("{function: m:f, retry: often}", "retry", "must be a mapping, not text", "retry: 3"),
        ("{function: m:f, retry: true}", "retry", "must be a mapping, not a boolean", "retry: 3"),
        (
            "{function: m:f, retry: {attemps: 3, attempts: 1}}",
            "retry.attemps",
            "not a known field",
            "did you mean attempts?",
        ),
        ("{function: m:f, retry: {attempts: 2.5}}", "retry.attempts", "must be a whole number, not a number", ""),
        ("{function: m:f, retry: {attempts: 2, backoff: {factor: 0.5}}}", "retry.backoff.factor", "at least 1", ""),
        ("{function: m:f, retry: {attempts: 2, backoff: {jitter: 2}}}", "retry.backoff.jitter", "at most 1", ""),
        (
            "{function: m:f, retry: {attempts: 2, backoff: {initial: 9s, max: 1s}}}",
            "retry.backoff",
            "`max` is shorter",
            "",
        ),
        ("{function: m:f, needs: a}", "needs", "must be a list, not text", "such as needs: [count]"),
        ("{function: m:f, needs: [a]}", "needs[0]", "node 'b' needs itself|there is no node", ""),
        ("{function: m:f, with: [1]}", "with", "must be a mapping, not a list", ""),
        ("{function: m:f, with: {'a b': 1}}", "with['a b']", "cannot be the name of a parameter", ""),
        ("{function: m:f, map: inputs.paths}", "map", "not text", "did you mean ${inputs.paths}?"),
        ("{function: m:f, map: 'a ${inputs.paths}'}", "map", "not text around", ""),
        ("{function: m:f, map: {a: 1}}", "map", "must be a list or an expression, not an object", ""),
        ("{function: m:f, map: null}", "map", "must be a list or an expression, not null", ""),
        ("{function: m:f, map: '${item}'}", "map", "there is no 'item' here", ""),
        ("{function: m:f, when: 3}", "when", "must be a condition", ""),
        ("{function: m:f, when: 'nodes.b.output'}", "when", "refers to itself", ""),
        ("{function: m:f, with: {p: '${nodes.b.output}'}}", "with.p", "node 'b' refers to itself", ""),
        ("{function: m:f, with: {p: '${index}'}}", "with.p", "there is no 'index' here", ""),
        ("{function: m:f, with: {p: ['${nodes.c.output}']}}", "with.p[0]", "there is no node 'c'", ""),
        ("3", "", "must be a mapping, not a number", ""),
        ("{function: null}", "function", "is missing", "my_module:my_function"),
        ("{function: m:f, process: {command: [a]}}", "process", "stands beside `function`", "take one out"),
        ("{process: {command: [a]}, with: {x: 1}}", "with", "this node runs a process", "`env` or `stdin`"),
        ("{process: sort}", "process", "must be a mapping, not text", 'command: ["sort"'),
        ("{process: {}}", "process", "neither `command` nor `script`", 'command: ["sort"'),
        ("{process: {command: [a], script: b}}", "process", "both `command` and `script`", "take one out"),
        ("{process: {command: sort -u}}", "process.command", "must be a list, not text", "write script: |"),
        ("{process: {command: []}}", "process.command", "names no program", "sort"),
        ("{process: {command: [a, [b]]}}", "process.command[1]", "must be text, not a list", "stdin"),
        ("{process: {command: [a, '${nodes.x.output}']}}", "process.command[1]", "there is no node 'x'", ""),
        ("{process: {comand: [a]}}", "process.comand", "is not a known field", "did you mean command?"),
        ("{process: {script: ' '}}", "process.script", "is empty", "/bin/sh"),
        ("{process: {script: 'cat ${inputs.paths}'}}", "process.script", "cannot stand in a script", "$VALUE"),
        ("{process: {script: 'a ${size(inputs.paths)}'}}", "process.script", "cannot stand in a script", "env: {"),
        ("{map: [1], process: {script: 'a ${item}'}}", "process.script", "cannot stand in a script", "env: {"),
        ("{process: {command: [a], env: {1a: b}}}", "process.env['1a']", "cannot be the name", "no digit first"),
        ("{process: {command: [a], env: {NODEFLOW_X: b}}}", "process.env.NODEFLOW_X", "told by the engine", "another"),
        ("{process: {command: [a], env: {X: [b]}}}", "process.env.X", "must be text, not a list", ""),
        ("{process: {command: [a], stdin: '${item}'}}", "process.stdin", "there is no 'item' here", "`process`"),
        ("{process: {command: [a], artifacts: [/etc/x]}}", "process.artifacts[0]", "is not a path below", "out/*.csv"),
        ("{process: {command: [a], artifacts: [../x]}}", "process.artifacts[0]", "is not a path below", "out/*.csv"),
        ("{process: {command: [a], limits: {memory: 5}}}", "process.limits.memory", "5 has no unit", "5Mi"),
        ("{process: {command: [a], limits: {memory: 5 MB}}}", "process.limits.memory", "not an amount", "512Mi"),
        ("{process: {command: [a], limits: {directory: 0Gi}}}", "process.limits.directory", "more than nothing", ""),
        ("{process: {command: [a], limits: {cpu_time: 5}}}", "process.limits.cpu_time", "5 has no unit", "5s"),
        ("{process: {command: [a], limits: {open_files: 2}}}", "process.limits.open_files", "at least 8", ""),
        ("{process: {command: [a], limits: {ram: 2}}}", "process.limits.ram", "not a known field", "memory"),
    ],
)
def test_a_node_that_is_wrong(node: str, path: str, description: str, hint: str) -> None:
    fault = fault_of(workflow_of(f"b: {node}", "inputs: {paths: {}}\n"))
    assert fault.path == ".".join(filter(None, ["nodes", "b", path]))
    assert any(each in fault.description for each in description.split("|"))
    assert hint in fault.hint
    assert fault.line == 6


PROCESS = """\
sort:
  map: ${inputs.paths}
  process:
    command: ["sort", "-u", "${item}", 5]
    env: {LC_ALL: C, PLACE: "${index}"}
    stdin: ${inputs.paths}
    artifacts: ["out/*.csv"]
    limits: {memory: 512Mi, cpu_time: 60s, open_files: 256, directory: 1Gi}
"""


def test_a_process() -> None:
    [node] = compiled(workflow_of(PROCESS.rstrip(), "inputs: {paths: {}}\n")).nodes
    assert node.executor == ProcessSpec(
        script="",
        command="sort -u ${item} 5",
        artifacts=("out/*.csv",),
        limits=ProcessLimits(memory_bytes=2**29, cpu_time_ms=60_000, open_files=256, directory_bytes=2**30),
    )
    assert list(node.arguments.expressions) == ["command", "env", "stdin"]
    assert isinstance(node.arguments.expressions["stdin"], Reference)


@pytest.mark.parametrize("script", ["echo ${HOME:-x} $$ ${#item} ${item}", "for item in a; do echo ${item}; done"])
def test_a_script_is_the_shells(script: str) -> None:
    [node] = compiled(workflow_of(f"a: {{process: {{script: {json.dumps(script)}}}}}")).nodes
    assert isinstance(node.executor, ProcessSpec)
    assert (node.executor.script, dict(node.arguments.expressions)) == (script, {})


@pytest.mark.parametrize(
    ("text", "path", "description", "hint"),
    [
        (
            WORD_COUNT.replace("nodeflow/v1", "nodeflow/v9"),
            "apiVersion",
            "'nodeflow/v9' is not known",
            "write nodeflow/v1",
        ),
        (
            WORD_COUNT.replace("apiVersion: nodeflow/v1\n", ""),
            "apiVersion",
            "is missing",
            "write apiVersion: nodeflow/v1",
        ),
        (WORD_COUNT.replace("kind: Workflow", "kind: Job"), "kind", "'Job' is not known", "write Workflow"),
        (WORD_COUNT.replace("name: word-count\n", ""), "name", "is missing", "such as"),
        (WORD_COUNT.replace("word-count", "word count"), "name", "'word count' is not a name", "use a letter"),
        (
            WORD_COUNT + "on_failure: panic\n",
            "on_failure",
            "'panic' is not known",
            "write cancel_dependents, fail_fast or continue",
        ),
        (WORD_COUNT + "timeout: 5\n", "timeout", "5 has no unit", "write 5s"),
        (WORD_COUNT + "node: {}\n", "node", "is not a known field", "did you mean nodes?"),
        (HEAD, "nodes", "there are no nodes", "add one"),
        (HEAD + "nodes: {}\n", "nodes", "there are no nodes", "add one"),
        (HEAD + "nodes: [a]\n", "nodes", "must be a mapping, not a list", "write each node"),
        (workflow_of("1a: {function: m:f}"), "nodes['1a']", "'1a' is not a name", "use a letter"),
        (workflow_of(f"{'a' * 64}: {{function: m:f}}"), f"nodes.{'a' * 64}", "is not a name", "at most 63"),
        (
            WORD_COUNT.replace("items: {type: string}", "items: {type: strin}"),
            "inputs.paths.items.type",
            "not a type",
            "did you mean",
        ),
        (
            WORD_COUNT.replace("type: array", "type: array, default: 3"),
            "inputs.paths.default",
            "must be a list, not 3",
            "default",
        ),
        (
            WORD_COUNT.replace("nodes.total.output", "nodes.totl.output"),
            "outputs.total",
            "no node 'totl'",
            "did you mean total?",
        ),
        (WORD_COUNT.replace("nodes.total.output", "index"), "outputs.total", "there is no 'index' here", ""),
    ],
)
def test_a_document_that_is_wrong(text: str, path: str, description: str, hint: str) -> None:
    fault = fault_of(text)
    assert fault.path == path
    assert description in fault.description
    assert hint in fault.hint


def test_cycles_are_named() -> None:
    text = workflow_of(
        "a: {function: m:f, needs: [c]}\n"
        'b: {function: m:f, with: {x: "${nodes.a.output}"}}\n'
        "c: {function: m:f, when: nodes.b.output == 1}\n"
        "d: {function: m:f, needs: [e, a]}\n"
        "e: {function: m:f, needs: [d]}"
    )
    first, second = faults_of(text)
    assert (first.path, first.description) == ("nodes.a", "these nodes wait for each other: a → b → c → a")
    assert (second.path, second.description) == ("nodes.d", "these nodes wait for each other: d → e → d")


def test_all_faults_are_told_at_once_each_with_its_line() -> None:
    text = (
        "apiVersion: nodeflow/v2\nkind: Workflow\nnme: w\n"
        "inputs: {n: integer}\n"
        "nodes:\n"
        "  a: {function: m.f, retry: {attemps: 3}, with: {x: '${inputs.m}', y: '${1 +}'}}\n"
        "  b:\n    function: m:f\n    needs: [a, cc]\n    wen: true\n"
        "outputs: {o: '${nodes.bb.output}'}\n"
    )
    faults = faults_of(text)
    assert [(fault.path, fault.line) for fault in faults] == [
        ("apiVersion", 1),
        ("name", 1),
        ("nme", 3),
        ("inputs.n", 4),
        ("nodes.a.function", 6),
        ("nodes.a.retry.attempts", 6),
        ("nodes.a.retry.attemps", 6),
        ("nodes.a.with.x", 6),
        ("nodes.a.with.y", 6),
        ("nodes.b.needs[1]", 9),
        ("nodes.b.wen", 10),
        ("outputs.o", 11),
    ]


def test_an_error_carries_its_faults_as_violations() -> None:
    with pytest.raises(
        DocumentFaults, match=r"line 3: nme: is not a known field \(did you mean name\?\)|name: is missing"
    ) as caught:
        compiled(HEAD.replace("name", "nme") + "nodes: {a: {function: 'm:f'}}\n")
    assert caught.value.reason == "INVALID_DOCUMENT"
    assert ("nme", "is not a known field (line 3)", "did you mean name?") in [
        (each.path, each.description, each.hint) for each in caught.value.violations
    ]


def test_more_faults_than_anyone_reads_are_counted() -> None:
    text = workflow_of("\n".join(f"n{i}: {{}}" for i in range(300)))
    with pytest.raises(DocumentFaults, match=r"and 299 more") as caught:
        compiled(text)
    assert len(caught.value.faults) == FAULTS_LIMIT


def test_lines_of_faults_in_json() -> None:
    text = '{"apiVersion": "nodeflow/v1",\n"kind": "Workflow",\n"name": "w",\n"nodes": {"a": {\n"function": 3}}}'
    assert fault_of(text, "application/json").line == 5


# ------------------------------------------------------------------- schema


def test_the_schema_for_editors_is_in_step_with_the_models() -> None:
    written = Path(__file__).parents[3] / "docs" / "workflow.schema.json"
    assert json.loads(written.read_text(encoding="utf-8")) == document_schema(), "run python scripts/write_schema.py"


def test_the_schema_for_editors_judges_like_the_compiler() -> None:
    validator = jsonschema_rs.validator_for(dict(document_schema()))
    yaml = YAML(typ="safe", pure=True)
    assert validator.is_valid(yaml.load(WORD_COUNT))
    assert validator.is_valid(yaml.load(workflow_of("a: {function: m:f, retry: 3, when: true, map: [1]}")))
    for wrong in (
        "{}",
        "{function: m.f}",
        "{function: m:f, x: 1}",
        "{function: m:f, timeout: 30}",
        "{function: m:f, retry: 0}",
    ):
        assert not validator.is_valid(yaml.load(workflow_of(f"a: {wrong}")))
