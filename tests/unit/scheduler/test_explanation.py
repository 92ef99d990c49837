"""Why a task is where it is: each reason, from the state that gives it. Promise I4: the storms of test_replay."""

from __future__ import annotations

from typing import Any

import pytest
from nodeflow.scheduler.v1 import explanation_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from tests.unit.scheduler.making import (
    ATTACHED,
    BROKEN,
    FLAKY,
    START_MS,
    Lab,
    acquired,
    cancel,
    chain,
    held,
    opened,
    ref,
    report,
    submit,
    updates,
    workflow,
)

from nodeflow_scheduler.domain.explanation import Explanation, TaskReason, WorkerSupply
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.messages import ArtifactKept, ManagerLost, Tick
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.wire.explanations import explanation_message, task_named
from nodeflow_shared.errors import InvalidInput, NotFound

RETRIED = {"retry": {"attempts": 3, "backoff": {"initial": "10s", "jitter": 0}}}
CONTINUE = {"on_failure": "continue"}


def why(lab: Lab, task: int) -> Explanation:
    return lab.core.explain(lab.execution(), task)


def reason(lab: Lab, task: int) -> TaskReason:
    return why(lab, task).reason


def started(lab: Lab, *tasks: int) -> None:
    lab.assigned()
    lab.step(updates(started=[ref(task) for task in tasks]))


def done(lab: Lab, task: int, outcome: object = b"1") -> None:
    lab.step(updates(results=[report(task, outcome)]))  # type: ignore[arg-type]  # any outcome


def test_a_task_waits_for_the_nodes_that_have_no_result_yet() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}, "c": {"needs": ["a", "b"]}, "d": {"needs": ["c"]}})))
    assert why(lab, 2) == Explanation(task=2, reason=TaskReason.DEPENDENCIES, nodes=(0, 1))
    started(lab, 0, 1)
    done(lab, 0)
    assert why(lab, 2).nodes == (1,)
    assert why(lab, 3).nodes == (2,)


def test_workers_with_other_code_are_as_good_as_none() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)), opened("s2"))
    lab.assigned()
    done(lab, 0, Failure(kind=FailureKind.SYSTEM, reason="CODE_DIFFERS", message="", retryable=False))
    assert why(lab, 0) == Explanation(
        task=0,
        reason=TaskReason.NO_WORKER,
        workers=WorkerSupply(connected=0, silent=1, slots=0, held=0, waiting=1, has_room=False),
    )


def test_without_a_worker_a_ready_task_says_so() -> None:
    lab = Lab()
    lab.step(acquired(), ATTACHED)
    lab.step(submit(chain(1)))
    nobody = WorkerSupply(connected=0, silent=0, slots=0, held=0, waiting=1, has_room=False)
    assert why(lab, 0) == Explanation(task=0, reason=TaskReason.NO_WORKER, workers=nobody)
    lab.step(opened())
    assert why(lab, 0).reason is TaskReason.NO_WORKER
    assert (found := why(lab, 0).workers) is not None
    assert (found.connected, found.silent) == (0, 1)


def test_with_room_a_task_is_about_to_be_handed_out_and_then_names_its_worker_until_it_runs() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)))
    assert (reason(lab, 0), why(lab, 0).worker_id) == (TaskReason.HANDED_OUT, "")
    lab.assigned()
    assert why(lab, 0) == Explanation(task=0, reason=TaskReason.HANDED_OUT, worker_id="worker of s1")
    lab.step(updates(started=[ref(0)]))
    assert why(lab, 0) == Explanation(task=0, reason=TaskReason.RUNNING, worker_id="worker of s1")


def test_when_all_slots_are_taken_the_numbers_are_told() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(workflow({"a": {}, "b": {}, "c": {}})))
    lab.assigned()
    busy = WorkerSupply(connected=1, silent=0, slots=1, held=1, waiting=2, has_room=False)
    assert why(lab, 1) == Explanation(task=1, reason=TaskReason.NO_FREE_SLOT, workers=busy)


def test_a_backoff_is_named_until_it_ends() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1, **RETRIED)))
    started(lab, 0)
    done(lab, 0, FLAKY)
    assert reason(lab, 0) is TaskReason.BACKOFF
    message = explanation_message(lab.execution(), why(lab, 0))
    assert (message.failed_count, message.attempt_limit) == (1, 3)
    assert message.task.retry_time.ToMilliseconds() == START_MS + 10_000
    lab.step(Tick(), after_ms=10_000)
    assert reason(lab, 0) is TaskReason.HANDED_OUT


@pytest.mark.parametrize("runs", [True, False])
def test_an_attempt_that_a_silent_worker_may_hold_is_uncertain(runs: bool) -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)))
    started(lab, *([0] if runs else []))
    lab.step(ManagerLost(manager="wm"))
    lab.step(opened(), ATTACHED)
    assert reason(lab, 0) is TaskReason.UNCERTAIN_ATTEMPT
    lab.step(held(live=[ref(0)], generation=2))
    assert reason(lab, 0) is (TaskReason.RUNNING if runs else TaskReason.HANDED_OUT)


def test_a_mapped_node_waits_for_its_items_and_a_value_that_is_stored_for_the_store() -> None:
    lab = Lab.ready()
    nodes: dict[str, dict[str, Any]] = {
        "m": {"map": [1, 2]},
        "after": {"needs": ["m"], "with": {"all": "${nodes.m.output}"}},
    }
    lab.step(submit(workflow(nodes)))
    started(lab, 2, 3)
    done(lab, 2, Stored(digest="sha256:5", size_bytes=70_000))
    assert why(lab, 0) == Explanation(task=0, reason=TaskReason.ITEMS, nodes=(0,))
    (progress,) = explanation_message(lab.execution(), why(lab, 0)).nodes
    assert (progress.node, progress.item_count, progress.open_item_count) == ("m", 2, 1)
    done(lab, 3)
    assert reason(lab, 1) is TaskReason.ARTIFACT
    (keep,) = lab.turn.keeps
    lab.step(ArtifactKept(tenant="t", digest=keep.value.digest))
    assert reason(lab, 1) is TaskReason.HANDED_OUT


def test_a_list_that_must_be_fetched_first_is_an_artifact_that_is_waited_for() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "m": {"map": "${nodes.a.output}"}})))
    started(lab, 0)
    done(lab, 0, Stored(digest="sha256:5", size_bytes=70_000))
    assert why(lab, 1) == Explanation(task=1, reason=TaskReason.ARTIFACT)


def test_outputs_that_must_be_stored_are_what_an_execution_without_open_tasks_waits_for() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"m": {"map": ["x" * 40_000] * 2}}, outputs={"all": "${nodes.m.output}"})))
    started(lab, 1, 2)
    large = b'"' + b"x" * 40_000 + b'"'
    done(lab, 1, large)
    done(lab, 2, large)
    assert not lab.execution().finished
    assert reason(lab, 0) is TaskReason.OUTPUTS


def test_what_is_over_says_how() -> None:
    nodes: dict[str, dict[str, Any]] = {
        "good": {},
        "bad": {},
        "child": {"needs": ["bad"]},
        "grandchild": {"needs": ["child"]},
        "unwanted": {"when": "1 > 2"},
    }
    lab = Lab.ready()
    lab.step(submit(workflow(nodes, **CONTINUE)))
    started(lab, 0, 1)
    done(lab, 0)
    done(lab, 1, BROKEN)
    assert [reason(lab, task) for task in range(5)] == [
        TaskReason.COMPLETED,
        TaskReason.FAILED,
        TaskReason.PARENT_FAILED,
        TaskReason.PARENT_FAILED,
        TaskReason.CONDITION_FALSE,
    ]
    assert why(lab, 3).nodes == (1,)
    assert explanation_message(lab.execution(), why(lab, 4)).condition == "1 > 2"


def test_a_cancelled_task_tells_who_cancelled_it() -> None:
    nodes = {"a": {}, "b": {}, "c": {"needs": ["a"]}}
    by_hand, in_time, fast = Lab.ready(), Lab.ready(), Lab.ready()
    by_hand.step(submit(workflow(nodes)))
    by_hand.step(cancel())
    assert reason(by_hand, 2) is TaskReason.CANCEL_REQUESTED
    in_time.step(submit(workflow(nodes, timeout="5s")))
    in_time.step(Tick(), after_ms=5_000)
    assert reason(in_time, 1) is TaskReason.EXECUTION_TIMEOUT
    fast.step(submit(workflow(nodes, on_failure="fail_fast")))
    started(fast, 0)
    done(fast, 0, BROKEN)
    assert why(fast, 1) == Explanation(task=1, reason=TaskReason.FAIL_FAST, nodes=(0,))
    assert why(fast, 2) == Explanation(task=2, reason=TaskReason.FAIL_FAST, nodes=(0,))


def test_reasons_have_the_numbers_of_the_api() -> None:
    told = {f"TASK_REASON_{each.name}": int(each) for each in TaskReason}
    assert {"TASK_REASON_UNSPECIFIED": 0, **told} == dict(explanation_pb2.TaskReason.items())


def test_a_task_is_named_by_number_or_by_node_and_place() -> None:
    lab = Lab.ready()
    lab.step(
        submit(workflow({"a": {}, "m": {"map": [1, 2]}, "empty": {"map": []}, "later": {"map": [1], "needs": ["a"]}}))
    )
    execution = lab.execution()
    assert task_named(execution, pb2.ExplainTaskRequest(task_number=3)) == 3
    assert task_named(execution, pb2.ExplainTaskRequest(node="m")) == 1
    assert task_named(execution, pb2.ExplainTaskRequest(node="m", map_index=1)) == 5
    for request, told in [
        (pb2.ExplainTaskRequest(task_number=6), "its tasks are 0 to 5"),
        (pb2.ExplainTaskRequest(node="x"), "its nodes are a, m, empty, later"),
        (pb2.ExplainTaskRequest(node="a", map_index=0), "is not mapped"),
        (pb2.ExplainTaskRequest(node="m", map_index=2), "its items are 0 to 1"),
        (pb2.ExplainTaskRequest(node="empty", map_index=0), "an empty list"),
        (pb2.ExplainTaskRequest(node="later", map_index=0), "no items yet"),
    ]:
        with pytest.raises(NotFound, match=told):
            task_named(execution, request)
    with pytest.raises(InvalidInput, match="no task is named"):
        task_named(execution, pb2.ExplainTaskRequest())
