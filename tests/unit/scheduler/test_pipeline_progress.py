"""Pipelines as they go on: given what came in, the exact events."""

import json

import pytest
from tests.unit.scheduler.making import BROKEN, FLAKY, Lab, columns, report, submit, updates
from tests.unit.scheduler.test_pipeline import pipeline, staged

from nodeflow_scheduler.domain.events import (
    Event,
    ExecutionFinished,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
)
from nodeflow_scheduler.domain.expressions import ExpressionError
from nodeflow_scheduler.domain.failures import node_failed
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.messages import Outcome, Produced
from nodeflow_scheduler.domain.scopes import scope_of
from nodeflow_scheduler.domain.values import Stored

COMPLETED = ExecutionFinished(ExecutionState.COMPLETED, b"{}", None)


def begun(*stages: str, head: str = "") -> Lab:
    lab = Lab.ready()
    lab.step(submit(pipeline(staged(*stages, head=head))))
    return lab


def ended(lab: Lab, task: int, outcome: Outcome = b"1", attempt: int = 1) -> list[Event]:
    events = lab.step(updates(results=[report(task, outcome, attempt)]))
    assert columns(lab.replayed()) == columns(lab.execution())
    return events


def left(**files: str) -> Produced:
    return Produced(b"1", {name: Stored(digest=f"sha256:{digest}", size_bytes=1) for name, digest in files.items()})


def files_given(lab: Lab, task: int) -> object:
    execution = lab.execution()
    rendered = execution.workflow.nodes[task].arguments.render(scope_of(execution, task))
    return json.loads(rendered.arguments).get("files")


def test_the_next_stage_begins_with_the_last_job_of_the_one_before() -> None:
    lab = begun("{name: a, run: x}, {name: b, run: x}", "{name: c, run: x}, {name: d, run: x}", "{name: e, run: x}")
    assert ended(lab, 0) == [TasksCompleted([0], [1], [b"1"])]
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), TasksQueued([2, 3], [1, 1])]
    assert ended(lab, 3) == [TasksCompleted([3], [1], [b"1"])]
    assert ended(lab, 2) == [TasksCompleted([2], [1], [b"1"]), TasksQueued([4], [1])]
    assert ended(lab, 4) == [TasksCompleted([4], [1], [b"1"]), COMPLETED]


def test_a_failed_job_ends_the_pipeline_after_its_stage() -> None:
    lab = begun("{name: a, run: x}, {name: b, run: x}", "{name: c, run: x}", "{name: d, run: x}")
    assert ended(lab, 0, BROKEN) == [TaskFailed(0, 1, BROKEN, 0), TasksCancelled([2, 3], "PARENT_FAILED")]
    finished = ExecutionFinished(ExecutionState.FAILED, None, node_failed("a", BROKEN))
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), finished]


def test_an_allowed_failure_fails_neither_its_stage_nor_the_pipeline() -> None:
    condition = "when: 'jobs.a.state == \"FAILED\"'"
    other = "when: 'jobs.a.state == \"SUCCESS\"'"
    lab = begun(
        "{name: a, run: x, allow_failure: true}", f"{{name: c, run: x, {condition}}}, {{name: d, run: x, {other}}}"
    )
    assert ended(lab, 0, BROKEN) == [
        TaskFailed(0, 1, BROKEN, 0),
        TasksSkipped([3 - 1], parent_failed=False),
        TasksQueued([1], [1]),
    ]
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), COMPLETED]


def test_an_allowed_failure_is_still_tried_again_first() -> None:
    job = "{name: a, run: x, allow_failure: true, retry: {attempts: 2, backoff: {initial: 1s, jitter: 0}}}"
    lab = begun(job, "{name: b, run: x}")
    [failed] = ended(lab, 0, FLAKY)
    assert isinstance(failed, TaskFailed)
    assert failed.retry_ms == lab.now_ms + 1_000
    assert lab.step(after_ms=1_000) == [TasksQueued([0], [2])]
    assert ended(lab, 0, FLAKY, attempt=2) == [TaskFailed(0, 2, FLAKY, 0), TasksQueued([1], [1])]


def test_an_allowed_failure_does_not_cancel_the_rest_under_fail_fast() -> None:
    jobs = "{name: a, run: x, allow_failure: true}, {name: b, run: x}"
    lab = begun(jobs, head="on_failure: fail_fast\n")
    assert ended(lab, 0, BROKEN) == [TaskFailed(0, 1, BROKEN, 0)]
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), COMPLETED]


def test_a_skipped_job_keeps_nothing_from_running() -> None:
    lab = begun("{name: a, run: x, when: false}", "{name: b, run: x}")
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), COMPLETED]


def test_a_matrix_is_one_job_that_completes_with_all_its_combinations() -> None:
    lab = Lab.ready()
    text = staged("{name: a, run: x, matrix: {v: [1, 2]}}", "{name: b, run: x}")
    started = lab.step(submit(pipeline(text)))
    assert started[1:] == [NodeExpanded(0, 2, [b'{"v":1}', b'{"v":2}']), TasksQueued([2, 3], [1, 1])]
    execution = lab.execution()
    rendered = execution.workflow.nodes[0].arguments.render(scope_of(execution, 3))
    assert json.loads(rendered.arguments) == {"env": {"MATRIX_V": 2}}
    assert ended(lab, 3) == [TasksCompleted([3], [1], [b"1"])]
    completed = [TasksCompleted([2], [1], [b"1"]), TasksCompleted([0], [0], [None]), TasksQueued([1], [1])]
    assert ended(lab, 2) == completed


def test_an_allowed_failure_of_one_combination() -> None:
    lab = begun("{name: a, run: x, matrix: {v: [1, 2]}, allow_failure: true}", "{name: b, run: x}")
    ended(lab, 2, BROKEN)
    ended(lab, 3, left(f="1"))
    assert ended(lab, 1) == [TasksCompleted([1], [1], [b"1"]), COMPLETED]


def test_files_of_later_stages_stand_for_those_of_earlier_ones() -> None:
    lab = begun(
        "{name: a, run: x, artifacts: [f, g]}",
        "{name: b, run: x, artifacts: [f]}",
        "{name: c, run: x}, {name: d, run: x, uses: [a]}, {name: e, run: x, uses: []}",
    )
    ended(lab, 0, left(f="1", g="2"))
    ended(lab, 1, left(f="3"))
    f, g = {"digest": "sha256:3", "size_bytes": 1}, {"digest": "sha256:2", "size_bytes": 1}
    assert files_given(lab, 2) == {"f": f, "g": g}
    assert files_given(lab, 3) == {"f": {"digest": "sha256:1", "size_bytes": 1}, "g": g}
    assert files_given(lab, 4) is None


def test_two_different_files_of_one_stage_at_one_path_are_refused() -> None:
    lab = begun("{name: a, run: x, artifacts: [f], matrix: {v: [1, 2]}}", "{name: b, run: x}")
    ended(lab, 2, left(f="1"))
    ended(lab, 3, left(f="1"))
    assert files_given(lab, 1) == {"f": {"digest": "sha256:1", "size_bytes": 1}}
    lab = begun("{name: a, run: x, artifacts: [f], matrix: {v: [1, 2]}}", "{name: b, run: x}")
    ended(lab, 2, left(f="1"))
    ended(lab, 3, left(f="2"))
    with pytest.raises(ExpressionError, match="different files at 'f'"):
        files_given(lab, 1)


def test_the_source_is_referred_to_by_the_first_chunk() -> None:
    digest = "sha256:" + "0" * 64
    lab = Lab.ready()
    compiled = pipeline(staged("{name: a, run: x}", head="source: {path: .}\n"))
    lab.step(submit(compiled, inputs=json.dumps({"source": {"digest": digest}}).encode()))
    [write] = lab.turn.writes
    assert [draft.artifacts for draft in write.drafts] == [[digest]]
    execution = lab.execution()
    rendered = execution.workflow.nodes[0].arguments.render(scope_of(execution, 0))
    assert json.loads(rendered.arguments)["source"] == {"digest": digest}
