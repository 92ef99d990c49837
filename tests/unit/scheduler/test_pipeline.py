"""Pipeline documents: what they compile to, and every way in which one can be wrong."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from ruamel.yaml import YAML
from tests.unit.scheduler.documents import faults_of

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.document_faults import Fault
from nodeflow_scheduler.domain.document_schema import document_schema
from nodeflow_scheduler.domain.expressions import Constant
from nodeflow_scheduler.domain.job_files import FilesOf
from nodeflow_scheduler.domain.workflow import FailurePolicy, ProcessLimits, ProcessSpec, Workflow
from nodeflow_shared.errors import InvalidInput

HEAD = "apiVersion: nodeflow/v1\nkind: Pipeline\nname: p\n"
EXAMPLE = Path(__file__).parents[3] / "examples" / "package_pipeline" / "pipeline.yaml"

RELEASE = """\
apiVersion: nodeflow/v1
kind: Pipeline
name: release
source: {path: .}
stages:
  - name: test
    jobs:
      - {name: unit, run: "pytest -q tests/unit", matrix: {python: ["3.11", "3.12"]}, artifacts: [report.xml]}
      - {name: lint, run: "ruff check .", allow_failure: true}
  - name: package
    jobs:
      - {name: wheel, run: "python -m build -w", artifacts: ["dist/*.whl"]}
"""


def pipeline(text: str) -> Workflow:
    return compile_document(text.encode(), "", "/project")


def staged(*stages: str, head: str = "") -> str:
    """A document with the jobs of each stage, as the text of a list."""
    listed = "".join(f"  - {{name: s{n}, jobs: [{jobs}]}}\n" for n, jobs in enumerate(stages))
    return f"{HEAD}{head}stages:\n{listed}"


def pipeline_fault(text: str) -> Fault:
    [fault] = faults_of(text)
    return fault


class TestWhatItBecomes:
    def test_the_pipeline_of_the_issue(self) -> None:
        workflow = pipeline(RELEASE)
        unit, lint, wheel = workflow.nodes
        assert (workflow.name, workflow.source_path, workflow.inputs.names) == ("release", ".", ("source",))
        assert [node.stage for node in workflow.nodes] == ["test", "test", "package"]
        assert (unit.dependencies, lint.dependencies, wheel.dependencies) == ((), (), (0, 1))
        assert isinstance(unit.map, Constant)
        assert json.loads(unit.map.json) == [{"python": "3.11"}, {"python": "3.12"}]
        assert (unit.allow_failure, lint.allow_failure) == (False, True)
        assert lint.executor == ProcessSpec(script="ruff check .", command="ruff check .", filled=True)
        assert wheel.arguments.expressions["files"] == FilesOf(stages=((0,),), nodes=frozenset({0}))
        assert set(wheel.arguments.expressions) == {"source", "files"}

    def test_a_stage_waits_for_all_jobs_of_the_one_before(self) -> None:
        workflow = pipeline(staged("{name: a, run: x}, {name: b, run: x}", "{name: c, run: x}", "{name: d, run: x}"))
        assert [node.dependencies for node in workflow.nodes] == [(), (), (0, 1), (2,)]

    def test_jobs_of_a_stage_may_need_each_other(self) -> None:
        workflow = pipeline(staged("{name: a, run: x, needs: [b]}, {name: b, run: x}, {name: c, run: x, uses: [a]}"))
        assert [node.dependencies for node in workflow.nodes] == [(1,), (), (0,)]

    def test_a_job_has_what_a_process_and_a_node_have(self) -> None:
        job = (
            "{name: a, run: make, env: {N: 3}, retry: {attempts: 2}, timeout: 5m, when: 'true', "
            "limits: {memory: 1Gi}, artifacts: [out]}"
        )
        [node] = pipeline(staged(job, head="env: {SHARED: '${execution.id}', N: 1}\n")).nodes
        assert (node.retry.attempts, node.timeout_ms, node.when is not None) == (2, 300_000, True)
        assert isinstance(node.executor, ProcessSpec)
        assert (node.executor.limits, node.executor.artifacts) == (ProcessLimits(memory_bytes=2**30), ("out",))
        assert not node.executor.filled
        env = node.arguments.expressions["env"]
        assert '"N": 3' in env.text
        assert "SHARED" in env.text

    def test_whose_files_a_job_gets(self) -> None:
        jobs = (
            "{name: a, run: x, artifacts: [f]}, {name: b, run: x}",
            "{name: c, run: x, artifacts: [f]}, {name: d, run: x, needs: [c]}",
            "{name: e, run: x}, {name: f, run: x, uses: [a]}, {name: g, run: x, uses: []}",
        )
        found = [node.arguments.expressions.get("files") for node in pipeline(staged(*jobs)).nodes]
        stages = [each.stages if isinstance(each, FilesOf) else None for each in found]
        assert stages == [None, None, ((0,),), ((0,), (2,)), ((0,), (2,)), ((0,),), None]

    def test_values_of_a_matrix_come_as_variables(self) -> None:
        [node] = pipeline(staged("{name: a, run: x, matrix: {python: ['3.11'], os: [linux, mac]}}")).nodes
        assert isinstance(node.map, Constant)
        assert json.loads(node.map.json) == [{"python": "3.11", "os": "linux"}, {"python": "3.11", "os": "mac"}]
        assert (
            node.arguments.expressions["env"].text
            == json.dumps({"MATRIX_PYTHON": "${matrix.python}", "MATRIX_OS": "${matrix.os}"})[:60] + "…"
        )

    @pytest.mark.parametrize("word", ["SUCCESS", "Completed", "completed", "COMPLETED", "success"])
    def test_words_for_success(self, word: str) -> None:
        jobs = "{name: a, run: x, allow_failure: true}", f"{{name: b, run: x, when: jobs.a.state == '{word}'}}"
        when = pipeline(staged(*jobs)).nodes[1].when
        assert when is not None
        assert when.text == 'jobs.a.state == "COMPLETED"'

    def test_the_revision_is_that_of_the_meaning(self) -> None:
        base = pipeline(RELEASE).revision
        assert pipeline(RELEASE.replace("{path: .}", '{"path": "."}   # here')).revision == base
        assert pipeline(RELEASE.replace("-q ", "")).revision != base
        assert pipeline(RELEASE.replace(", allow_failure: true", "")).revision != base
        assert pipeline(RELEASE.replace("name: test", "name: check")).revision != base

    def test_the_source_must_be_given_with_a_digest(self) -> None:
        inputs = pipeline(RELEASE).inputs
        digest = "sha256:" + "0" * 64
        assert json.loads(inputs.check(json.dumps({"source": {"digest": digest}}).encode()))
        for wrong in (b"{}", b'{"source": {"digest": "x"}}'):
            with pytest.raises(InvalidInput):
                inputs.check(wrong)

    def test_the_policy_that_a_pipeline_can_have(self) -> None:
        workflow = pipeline(staged("{name: a, run: x}", head="on_failure: fail_fast\n"))
        assert workflow.on_failure is FailurePolicy.FAIL_FAST


class TestFaults:
    @pytest.mark.parametrize(
        ("job", "path", "description", "hint"),
        [
            ("{run: x}", "name", "is missing", ""),
            ("{name: a}", "run", "is missing", "such as run: pytest -q"),
            ("{name: a, run: ''}", "run", "is empty", "write what /bin/sh is to run"),
            ("{name: a, run: x, scipt: y}", "scipt", "is not a known field", ""),
            ("{name: a, run: x, need: [b]}", "need", "is not a known field", "did you mean needs?"),
            ("{name: a, run: x, timeout: 3}", "timeout", "3 has no unit", "write 3s"),
            ("{name: a, run: x, needs: [a]}", "needs[0]", "names itself", "take it out"),
            ("{name: a, run: x, needs: [late]}", "needs[0]", "in the later stage 's1'", "stages run in their order"),
            ("{name: a, run: x, uses: [lat]}", "uses[0]", "there is no job 'lat'", "did you mean late?"),
            ("{name: a, run: x, when: 'jobs.late.state == \"SUCCESS\"'}", "", "of the later stage 's1'", "refer to"),
            ("{name: a, run: x, when: jobs.b.output}", "when", "there is no job 'b'", ""),
            ("{name: a, run: x, when: jobs.a.output}", "when", "job 'a' refers to itself", ""),
            ("{name: a, run: x, when: nodes.late.output}", "when", "no 'nodes' here", "jobs.<name>.output"),
            ("{name: a, run: x, when: jobs.late}", "when", "must be followed by .output", "jobs.late.output"),
            ("{name: a, run: x, env: {A: '${matrix.b}'}}", "env.A", "there is no 'matrix' here", "`matrix`"),
            ("{name: a, run: x, env: {A: '${item}'}}", "env.A", "there is no 'item' here", "`matrix`"),
            ("{name: a, run: x, matrix: {os: [a]}, env: {A: '${matrix.oss}'}}", "env.A", "no 'oss' in", "mean os?"),
            ("{name: a, run: x, env: {NODEFLOW_X: y}}", "env.NODEFLOW_X", "told by the engine", "another name"),
            ("{name: a, run: 'x ${inputs.y}'}", "run", "cannot stand in a script", "env"),
            ("{name: a, run: 'x ${matrix.py}', matrix: {py: [a]}}", "run", "cannot stand", '"$MATRIX_PY"'),
            ("{name: a, run: x, matrix: {}}", "matrix", "names no values", "such as matrix"),
            ("{name: a, run: x, matrix: {v: []}}", "matrix.v", "has no values", "such as"),
            ("{name: a, run: x, matrix: {v: '3'}}", "matrix.v", "must be a list, not text", "such as ["),
            ("{name: a, run: x, matrix: {v: [3.10]}}", "matrix.v[0]", "3.1 is a number", "in quotes"),
            ("{name: a, run: x, matrix: {v: ['${inputs.x}']}}", "matrix.v[0]", "no expressions", ""),
            ("{name: a, run: x, matrix: {v-w: [1]}}", "matrix.v-w", "cannot be a name in a matrix", "letters"),
            ("{name: a, run: x, artifacts: [/etc/passwd]}", "artifacts[0]", "not a path below", "such as out"),
            ("{name: late, run: x}", "", "there is a job 'late' already", "another name"),
            ("{name: a, run: x, allow_failure: 3}", "allow_failure", "must be true or false", ""),
            ("x", "", "must be a mapping, not text", ""),
        ],
    )
    def test_of_a_job(self, job: str, path: str, description: str, hint: str) -> None:
        fault = pipeline_fault(staged(job, "{name: late, run: x}"))
        place = "stages[0].jobs[0]" if "already" not in description else "stages[1].jobs[0].name"
        assert fault.path == (f"{place}.{path}" if path else place)
        assert description in fault.description
        assert hint in fault.hint
        assert fault.line == (5 if "already" not in description else 6)

    @pytest.mark.parametrize(
        ("text", "path", "description", "hint"),
        [
            (HEAD, "stages", "there are no stages", "such as stages"),
            (f"{HEAD}stages: {{}}", "stages", "must be a list, not an object", "such as stages"),
            (f"{HEAD}stages: [{{name: a}}]", "stages[0].jobs", "there are no jobs", "such as jobs"),
            (f"{HEAD}stages: [{{name: a, job: []}}]", "stages[0].job", "is not a known field", "did you mean jobs?"),
            (staged("{name: a, run: x}").replace("Pipeline", "pipeline"), "kind", "is not known", "or Pipeline"),
            (staged("{name: a, run: x}", head="sauce: {}\n"), "sauce", "is not a known field", "did you mean source?"),
            (staged("{name: a, run: x}", head="source: {}\n"), "source.path", "is missing", "such as path: ."),
            (staged("{name: a, run: x}", head="source: .\n"), "source", "must be a mapping", "such as source"),
            (staged("{name: a, run: x}", head="on_failure: continue\n"), "on_failure", "all its jobs", "allow_failure"),
            (staged("{name: a, run: x}", head="env: {A: '${jobs.a.output}'}\n"), "env.A", "there is no job 'a'", ""),
            (
                staged("{name: a, run: x}", head="source: {path: .}\ninputs: {source: {type: string}}\n"),
                "inputs.source",
                "is what `source` becomes",
                "rename the input",
            ),
            (
                staged("{name: a, run: x, needs: [b]}, {name: b, run: x, needs: [a]}"),
                "stages[0].jobs[0]",
                "these jobs wait for each other: a → b → a",
                "take one",
            ),
        ],
    )
    def test_of_the_whole(self, text: str, path: str, description: str, hint: str) -> None:
        faults = faults_of(text)
        [fault] = [each for each in faults if each.path == path]
        assert description in fault.description
        assert hint in fault.hint
        assert fault.line is not None

    def test_all_are_told_at_once(self) -> None:
        text = staged("{name: a, run: x, needs: [z]}, {name: b}", "{name: a, run: x}", head="tiemout: 3s\n")
        assert sorted((fault.line, fault.path) for fault in faults_of(text)) == [
            (4, "tiemout"),
            (6, "stages[0].jobs[0].needs[0]"),
            (6, "stages[0].jobs[1].run"),
            (7, "stages[1].jobs[0].name"),
        ]

    def test_too_many_combinations(self) -> None:
        values = list(range(17))
        fault = pipeline_fault(staged(f"{{name: a, run: x, matrix: {{a: {values}, b: {values}}}}}"))
        assert (fault.path, "289 combinations" in fault.description) == ("stages[0].jobs[0].matrix", True)


def test_the_schema_for_editors_judges_like_the_compiler() -> None:
    validator = jsonschema_rs.validator_for(dict(document_schema()))
    yaml = YAML(typ="safe", pure=True)
    for right in (RELEASE, EXAMPLE.read_text(), staged("{name: a, run: x, retry: 3, when: true}")):
        assert validator.is_valid(yaml.load(right))
    for wrong in (
        "{name: a}",
        "{name: a, run: x, y: 1}",
        "{name: a, run: x, timeout: 3}",
        "{name: a, run: x, retry: 0}",
    ):
        assert not validator.is_valid(yaml.load(staged(wrong)))
    assert not validator.is_valid(yaml.load(staged("{name: a, run: x}", head="on_failure: continue\n")))
