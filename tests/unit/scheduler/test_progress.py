"""What follows from what happened: given what came in, the exact events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.scheduler.making import (
    BROKEN,
    FLAKY,
    START_MS,
    Lab,
    chain,
    closed,
    columns,
    held,
    opened,
    report,
    submit,
    updates,
    workflow,
)
from tests.unit.scheduler.making import cancel as cancellation
from tests.unit.scheduler.making import ref as attempt

from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    ExecutionFinished,
    ExecutionStarted,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
)
from nodeflow_scheduler.domain.expressions import Cel, Scope
from nodeflow_scheduler.domain.failures import (
    Failure,
    FailureKind,
    execution_timed_out,
    items_failed,
    lost_too_often,
    node_failed,
)
from nodeflow_scheduler.domain.fan_out import MAP_ITEMS_LIMIT, split_items
from nodeflow_scheduler.domain.lifecycle import ExecutionState, TaskState
from nodeflow_scheduler.domain.messages import ArgumentsFailed, ArtifactFetched, ArtifactKept, Tick
from nodeflow_scheduler.domain.retries import LOST_ATTEMPTS_LIMIT, retry_delay_ms
from nodeflow_scheduler.domain.values import MANIFEST, Stored, Value
from nodeflow_scheduler.domain.workflow import Backoff, RetryPolicy
from nodeflow_shared.channel import MAX_MESSAGE_BYTES
from nodeflow_shared.errors import InvalidInput

Nodes = dict[str, dict[str, Any]]  # Any: JSON of a document

COMPLETED = ExecutionFinished(ExecutionState.COMPLETED, b"{}", None)
DIAMOND: Nodes = {"a": {}, "b": {"needs": ["a"]}, "c": {"needs": ["a"]}, "d": {"needs": ["b", "c"]}}
SIDE: Nodes = {"a": {}, "b": {"needs": ["a"]}, "c": {"needs": ["b"]}, "other": {}, "after": {"needs": ["other"]}}


def test_a_result_and_what_it_makes_ready_are_one_chunk() -> None:
    lab = Lab.ready()
    assert lab.step(submit(workflow(DIAMOND)))[1:] == [TasksQueued([0], [1])]
    assert lab.step(updates(results=[report(0)])) == [TasksCompleted([0], [1], [b"1"]), TasksQueued([1, 2], [1, 1])]
    assert lab.step(updates(results=[report(1)])) == [TasksCompleted([1], [1], [b"1"])]
    assert lab.step(updates(results=[report(2, b"2")])) == [TasksCompleted([2], [1], [b"2"]), TasksQueued([3], [1])]
    assert lab.step(updates(results=[report(3)])) == [TasksCompleted([3], [1], [b"1"]), COMPLETED]
    assert len(lab.log["e1"]) == 5


def test_a_false_condition_skips_a_node_and_what_depends_on_it_runs_with_null() -> None:
    nodes: Nodes = {
        "a": {},
        "b": {"when": "nodes.a.output > 1"},
        "c": {"with": {"x": "${nodes.b.output}"}},
    }
    lab = Lab.ready()
    lab.step(submit(workflow(nodes, outputs={"b": "${nodes.b.output}"})))
    assert lab.step(updates(results=[report(0, b"1")])) == [
        TasksCompleted([0], [1], [b"1"]),
        TasksSkipped([1], parent_failed=False),
        TasksQueued([2], [1]),
    ]
    execution = lab.execution()
    assert execution.workflow.nodes[2].arguments.render(execution).arguments == b'{"x":null}'
    assert lab.step(updates(results=[report(2)]))[-1] == ExecutionFinished(
        ExecutionState.COMPLETED, b'{"b":null}', None
    )


def test_a_true_condition_queues_and_one_that_gives_no_boolean_fails_the_node() -> None:
    lab = Lab.ready()
    assert lab.step(submit(workflow({"a": {"when": "1 < 2"}})))[1:] == [TasksQueued([0], [1])]
    (failed, finished) = lab.step(submit(workflow({"a": {"when": "'yes'"}}), "e2"))[1:]
    assert isinstance(failed, TaskFailed)
    assert (failed.task, failed.attempt, failed.retry_ms, failed.failure.reason) == (0, 0, 0, "EXPRESSION_FAILED")
    assert "must give true or false" in failed.failure.message
    assert finished == ExecutionFinished(ExecutionState.FAILED, None, node_failed("a", failed.failure))


def test_a_map_over_an_input_and_its_list_of_results() -> None:
    nodes: Nodes = {"m": {"map": "${inputs.xs}", "with": {"x": "${item}", "i": "${index}"}}}
    compiled = workflow(nodes, inputs={"xs": {"type": "array"}}, outputs={"m": "${nodes.m.output}"})
    lab = Lab.ready()
    assert lab.step(submit(compiled, inputs=b'{"xs":[7,{"k":1}]}'))[1:] == [
        NodeExpanded(0, 1, [b"7", b'{"k":1}']),
        TasksQueued([1, 2], [1, 1]),
    ]
    assert lab.execution().states[0] == TaskState.RUNNING
    assert lab.step(updates(results=[report(2, b'"b"')])) == [TasksCompleted([2], [1], [b'"b"'])]
    assert lab.step(updates(results=[report(1, b'"a"')])) == [
        TasksCompleted([1], [1], [b'"a"']),
        TasksCompleted([0], [0], [None]),
        ExecutionFinished(ExecutionState.COMPLETED, b'{"m":["a","b"]}', None),
    ]


def test_a_map_over_an_output_that_is_empty() -> None:
    nodes: Nodes = {"list": {}, "m": {"map": "${nodes.list.output}"}, "sum": {"with": {"xs": "${nodes.m.output}"}}}
    lab = Lab.ready()
    lab.step(submit(workflow(nodes)))
    assert lab.step(updates(results=[report(0, b"[]")])) == [
        TasksCompleted([0], [1], [b"[]"]),
        NodeExpanded(1, 3, []),
        TasksCompleted([1], [0], [None]),
        TasksQueued([2], [1]),
    ]
    execution = lab.execution()
    assert execution.workflow.nodes[2].arguments.render(execution).arguments == b'{"xs":[]}'


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (b"3", "map needs a list, not a number"),
        (b"[1", "map needs a list, and this cannot be read"),
        (Stored(content_type="image/png", data=b"\x89PNG"), "map needs a list as JSON, not image/png"),
        (json.dumps([0] * 10).encode()[:-1] + b',"\\ud800"]', "an item of the list cannot be passed on"),
    ],
)
def test_a_map_over_what_is_no_list_fails_the_node(output: bytes | Stored, message: str) -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"list": {}, "m": {"map": "${nodes.list.output}"}})))
    failed = lab.step(updates(results=[report(0, output)]))[1]
    assert isinstance(failed, TaskFailed)
    assert (failed.task, failed.attempt) == (1, 0)
    assert message in failed.failure.message


def test_a_list_that_is_too_long_names_the_limit() -> None:
    with pytest.raises(InvalidInput, match=f"map got {MAP_ITEMS_LIMIT + 1} items; at most {MAP_ITEMS_LIMIT} items"):
        split_items(b"[" + b",".join([b"1"] * (MAP_ITEMS_LIMIT + 1)) + b"]")


def test_the_list_of_a_fan_in_is_mapped_over_by_value() -> None:
    assert split_items(b'[{"value":{"a":1}},{"value":2}]', MANIFEST) == [b'{"a":1}', b"2"]
    with pytest.raises(InvalidInput, match="item 1 of the list is stored as an artifact"):
        split_items(b'[{"value":1},{"artifact":{"digest":"d","size_bytes":1}}]', MANIFEST)


@pytest.mark.parametrize("outcome", [BROKEN, b"x" * 70_000, Stored(content_type="text/plain", data=b"x" * 70_000)])
def test_failing_items_fail_their_node_when_all_are_over(outcome: bytes | Stored | Failure) -> None:
    compiled = workflow(
        {"m": {"map": "${inputs.xs}"}, "after": {"needs": ["m"]}},
        inputs={"xs": {"type": "array", "default": [1, 2, 3]}},
    )
    lab = Lab.ready()
    lab.step(submit(compiled, inputs=b'{"xs":[1,2,3]}'))
    (failed,) = lab.step(updates(results=[report(3, outcome)]))
    assert isinstance(failed, TaskFailed)
    assert failed.failure == BROKEN or failed.failure.reason == "RESULT_TOO_LARGE"
    assert lab.step(updates(results=[report(2), report(4)])) == [
        TasksCompleted([2, 4], [1, 1], [b"1", b"1"]),
        TaskFailed(0, 0, items_failed(1, 3, failed.failure), 0),
        TasksCancelled([1], "PARENT_FAILED"),
        ExecutionFinished(ExecutionState.FAILED, None, node_failed("m", items_failed(1, 3, failed.failure))),
    ]


def test_under_continue_failing_items_leave_null_in_the_list() -> None:
    compiled = workflow(
        {"m": {"map": "${inputs.xs}"}, "after": {"with": {"xs": "${nodes.m.output}"}}},
        inputs={"xs": {"type": "array"}},
        on_failure="continue",
    )
    lab = Lab.ready()
    lab.step(submit(compiled, inputs=b'{"xs":[1,2]}'))
    lab.step(updates(results=[report(2, BROKEN)]))
    assert lab.step(updates(results=[report(3)]))[1:] == [TasksCompleted([0], [0], [None]), TasksQueued([1], [1])]
    execution = lab.execution()
    assert execution.workflow.nodes[1].arguments.render(execution).arguments == b'{"xs":[null,1]}'


def test_cancel_dependents_lets_other_branches_end() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow(SIDE)))
    assert lab.step(updates(results=[report(0, BROKEN)])) == [
        TaskFailed(0, 1, BROKEN, 0),
        TasksCancelled([1, 2], "PARENT_FAILED"),
    ]
    lab.step(updates(results=[report(3)]))
    assert lab.step(updates(results=[report(4)]))[-1] == ExecutionFinished(
        ExecutionState.FAILED, None, node_failed("a", BROKEN)
    )


def test_fail_fast_cancels_all_and_stops_what_runs() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow(SIDE, on_failure="fail_fast")))
    lab.assigned()
    assert lab.step(updates(results=[report(0, BROKEN)])) == [
        TaskFailed(0, 1, BROKEN, 0),
        TasksCancelled([1, 2, 3, 4], "FAIL_FAST"),
        ExecutionFinished(ExecutionState.FAILED, None, node_failed("a", BROKEN)),
    ]
    assert lab.outgoing.stops == {"s1": [attempt(3)]}


def test_continue_skips_dependents_and_completes() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow(SIDE, on_failure="continue")))
    assert lab.step(updates(results=[report(0, BROKEN)])) == [
        TaskFailed(0, 1, BROKEN, 0),
        TasksSkipped([1, 2], parent_failed=True),
    ]
    lab.step(updates(results=[report(3)]))
    assert lab.step(updates(results=[report(4)]))[-1] == COMPLETED


# --------------------------------------------------------------------- retries


def test_a_retry_waits_for_its_backoff_and_is_the_next_attempt() -> None:
    lab = Lab.ready()
    policy = {"attempts": 2, "backoff": {"initial": "10s", "jitter": 0}}
    lab.step(submit(workflow({"a": {"retry": policy}})))
    due_ms = START_MS + 10_000
    assert lab.step(updates(results=[report(0, FLAKY)])) == [TaskFailed(0, 1, FLAKY, due_ms)]
    assert lab.core.next_due_ms() == due_ms
    assert lab.step(Tick(), after_ms=9_999) == []
    assert lab.step(Tick(), after_ms=1) == [TasksQueued([0], [2])]
    assert lab.step(updates(results=[report(0, FLAKY, 2)])) == [
        TaskFailed(0, 2, FLAKY, 0),
        ExecutionFinished(ExecutionState.FAILED, None, node_failed("a", FLAKY)),
    ]


def test_what_cannot_be_retried_fails_at_once() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {"retry": 5}})))
    assert lab.step(updates(results=[report(0, BROKEN)]))[0] == TaskFailed(0, 1, BROKEN, 0)


def test_backoffs_grow_to_their_limit_with_bounded_jitter() -> None:
    policy = RetryPolicy(attempts=100, backoff=Backoff(initial_ms=1_000, factor=3, max_ms=20_000, jitter=0.25))
    for failed_count, wait in enumerate((1_000, 3_000, 9_000, 20_000, 20_000), start=1):
        delays = [retry_delay_ms(policy, failed_count, FLAKY, f"e{n}/0/1") for n in range(200)]
        drawn = [delay for delay in delays if delay is not None]
        assert len(drawn) == 200
        assert min(drawn) >= wait * 0.75
        assert max(drawn) <= wait * 1.25
        assert max(drawn) - min(drawn) > wait * 0.4
        assert delays[7] == retry_delay_ms(policy, failed_count, FLAKY, "e7/0/1")
    assert retry_delay_ms(policy, 99, FLAKY, "key") is not None
    assert retry_delay_ms(policy, 100, FLAKY, "key") is None
    assert retry_delay_ms(RetryPolicy(attempts=2, backoff=Backoff(initial_ms=0)), 1, FLAKY, "key") == 1


def test_losses_are_made_up_for_without_counting_as_tries_until_there_are_too_many() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {"retry": 1}})))
    for number in range(1, LOST_ATTEMPTS_LIMIT):
        lab.assigned()
        assert lab.step(closed(), opened(), held()) == [
            AttemptsLost([0], [number], "WORKER_LOST"),
            TasksQueued([0], [number + 1]),
        ]
    failure = lost_too_often(LOST_ATTEMPTS_LIMIT)
    lab.assigned()
    assert lab.step(closed()) == [
        AttemptsLost([0], [LOST_ATTEMPTS_LIMIT], "WORKER_LOST"),
        TaskFailed(0, LOST_ATTEMPTS_LIMIT, failure, 0),
        ExecutionFinished(ExecutionState.FAILED, None, node_failed("a", failure)),
    ]


# ---------------------------------------------------------------- ends, in time


def test_an_execution_timeout_cancels_what_is_open_and_fails_it() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(2, retry=3), "e0"))
    started = lab.step(submit(workflow(DIAMOND, timeout="5s")))[0]
    assert isinstance(started, ExecutionStarted)
    assert started.deadline_ms == START_MS + 5_000
    lab.assigned()
    assert lab.step(Tick(), after_ms=4_999) == []
    assert lab.step(Tick(), after_ms=1) == [
        TasksCancelled([0, 1, 2, 3], "EXECUTION_TIMEOUT"),
        ExecutionFinished(ExecutionState.FAILED, None, execution_timed_out(5_000)),
    ]
    assert lab.outgoing.stops == {"s1": [attempt(0)]}
    assert not lab.execution("e0").finished


def test_a_cancellation_ends_everything_and_a_backoff_never_fires() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {"retry": 3}, "b": {}, "c": {"needs": ["a"]}})))
    lab.assigned()
    lab.step(updates(started=[attempt(1)], results=[report(0, FLAKY)]))
    assert lab.step(cancellation()) == [
        CancelRequested("enough"),
        TasksCancelled([0, 1, 2], "CANCEL_REQUESTED"),
        ExecutionFinished(ExecutionState.CANCELLED, None, None),
    ]
    assert lab.outgoing.stops == {"s1": [attempt(1)]}
    assert lab.execution().retries_ms == {}
    assert lab.step(Tick(), after_ms=600_000) == []


def test_a_cancellation_in_the_turn_that_makes_tasks_ready_hands_none_out() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(2)))
    lab.assigned()
    lab.step(updates(results=[report(0)]), cancellation())
    assert lab.assigned() == {}


def test_arguments_that_give_no_value_fail_the_task_for_good() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {"retry": 5, "with": {"x": 1}}})))
    events = lab.step(ArgumentsFailed(execution_id="e1", task=0, attempt=1, failure=BROKEN))
    assert events[0] == TaskFailed(0, 1, BROKEN, 0)
    assert lab.step(ArgumentsFailed(execution_id="e1", task=0, attempt=1, failure=BROKEN)) == []


def test_starts_are_told_once() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}})))
    begun = updates(started=[attempt(0), attempt(0), attempt(1)])
    assert lab.step(begun) == [TasksStarted([0, 1], [1, 1], "worker of s1")]
    assert lab.step(begun) == []


# -------------------------------------------------------------------- artifacts


def test_outputs_that_are_too_large_are_stored_before_the_execution_is_over() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}}, outputs={"x": "${nodes.a.output}", "y": "${nodes.b.output}"})))
    large = b'"' + b"x" * 40_000 + b'"'
    assert lab.step(updates(results=[report(0, large), report(1, large)])) == [
        TasksCompleted([0, 1], [1, 1], [large, large])
    ]
    (keep,) = lab.turn.keeps
    assert keep.tenant == "t"
    assert json.loads(keep.value.data) == {"x": "x" * 40_000, "y": "x" * 40_000}
    reference = Stored(digest=keep.value.digest, size_bytes=len(keep.value.data))
    assert lab.step(ArtifactKept(tenant="other", digest=keep.value.digest)) == []
    assert lab.step(ArtifactKept(tenant="t", digest=keep.value.digest)) == [
        ExecutionFinished(ExecutionState.COMPLETED, reference, None)
    ]
    assert [draft.artifacts for write in lab.turn.writes for draft in write.drafts] == [[keep.value.digest]]


def test_outputs_that_cannot_be_stored_fail_the_execution() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}}, outputs={"x": "${nodes.a.output}", "y": "${nodes.b.output}"})))
    large = b'"' + b"x" * 40_000 + b'"'
    lab.step(updates(results=[report(0, large), report(1, large)]))
    digest = lab.turn.keeps[0].value.digest
    (finished,) = lab.step(ArtifactKept(tenant="t", digest=digest, problem="there is no room"))
    assert isinstance(finished, ExecutionFinished)
    assert finished.state is ExecutionState.FAILED
    assert finished.failure is not None
    assert finished.failure.message == "outputs: there is no room"


def test_a_list_in_an_artifact_is_fetched_once_for_its_tenant() -> None:
    stored = Stored(digest="sha256:1", size_bytes=100_000)
    lab = Lab.ready()
    compiled = workflow({"list": {}, "m": {"map": "${nodes.list.output}"}})
    lab.step(submit(compiled), submit(compiled, "e2"))
    assert lab.step(updates(results=[report(0, stored), report(0, stored, execution_id="e2", result_id=2)])) == [
        TasksCompleted([0], [1], [stored]),
        TasksCompleted([0], [1], [stored]),
    ]
    assert [(fetch.tenant, fetch.value) for fetch in lab.turn.fetches] == [("t", stored)]
    assert lab.step(ArtifactFetched(tenant="other", digest="sha256:1", data=b"[0]")) == []
    assert lab.step(ArtifactFetched(tenant="t", digest="sha256:1", data=b"[1]")) == [
        NodeExpanded(1, 2, [b"1"]),
        TasksQueued([2], [1]),
        NodeExpanded(1, 2, [b"1"]),
        TasksQueued([2], [1]),
    ]


def test_a_list_that_cannot_be_fetched_fails_its_node() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"list": {}, "m": {"map": "${nodes.list.output}"}})))
    lab.step(updates(results=[report(0, Stored(digest="sha256:1", size_bytes=100_000))]))
    failed = lab.step(ArtifactFetched(tenant="t", digest="sha256:1", data=None, problem="it is gone"))[0]
    assert isinstance(failed, TaskFailed)
    assert failed.failure == Failure(kind=FailureKind.USER, reason="EXPRESSION_FAILED", message="node 'm': it is gone")


def test_outputs_that_name_a_large_value_very_often_fail_the_execution_before_they_are_made() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}}, outputs={f"o{n}": "${nodes.a.output}" for n in range(1_100)})))
    finished = lab.step(updates(results=[report(0, b'"%s"' % (b"x" * 65_000))]))[-1]
    assert isinstance(finished, ExecutionFinished)
    assert finished.failure is not None
    assert finished.failure.reason == "VALUE_TOO_LARGE"
    assert finished.failure.message == "outputs: 1100 values: they have more than 67,108,864 bytes together"


def test_many_lists_over_a_large_value_are_expanded_over_some_turns_each_of_which_fits_into_a_message() -> None:
    nodes: dict[str, dict[str, object]] = {"list": {}}
    nodes |= {f"m{n}": {"map": "${nodes.list.output}"} for n in range(6)}
    lab = Lab.ready()
    lab.step(submit(workflow(nodes)))
    data = json.dumps(["x" * 15_000] * 1_000).encode()
    lab.step(updates(results=[report(0, Stored(digest="sha256:1", size_bytes=len(data)))]))
    expanded: list[int] = []
    events = lab.step(ArtifactFetched(tenant="t", digest="sha256:1", data=data))
    while events:
        assert max(map(len, lab.log["e1"])) < MAX_MESSAGE_BYTES * 3 // 4
        expanded += [event.task for event in events if isinstance(event, NodeExpanded)]
        due_ms = lab.core.next_due_ms()
        events = lab.step(Tick())
        assert (due_ms == 0) == bool(events)
    assert expanded == [1, 2, 3, 4, 5, 6]
    assert columns(lab.replayed()) == columns(lab.execution())


def test_a_fan_in_of_stored_items_is_kept_as_a_manifest_before_the_attempt_is_handed_out() -> None:
    nodes: Nodes = {"m": {"map": "${inputs.xs}"}, "sum": {"with": {"xs": "${nodes.m.output}"}}}
    lab = Lab.ready()
    lab.step(submit(workflow(nodes, inputs={"xs": {"type": "array"}}), inputs=b'{"xs":[1,2]}'))
    lab.assigned()
    stored = Stored(digest="sha256:9", size_bytes=70_000)
    lab.step(updates(results=[report(2, stored), report(3, b"5")]))
    assert lab.assigned() == {}
    (keep,) = lab.turn.keeps
    assert keep.value.content_type == MANIFEST
    assert json.loads(keep.value.data) == [
        {"artifact": {"digest": "sha256:9", "size_bytes": 70_000}, "content_type": "application/json"},
        {"value": 5},
    ]
    lab.step(ArtifactKept(tenant="t", digest=keep.value.digest))
    assert lab.assigned() == {"s1": [("e1", 1, 1)]}


def test_nothing_is_computed_for_items_that_wait_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many items it would take longer than the leases last; it is done for those that are handed out."""
    computed: list[str] = []

    def evaluate(expression: Cel, scope: Scope) -> Value:
        computed.append(expression.text)
        return b"1"

    monkeypatch.setattr(Cel, "evaluate", evaluate)
    lab = Lab.ready()
    nodes: Nodes = {"m": {"map": "${inputs.xs}", "with": {"x": "${item + 1}"}}}
    lab.step(submit(workflow(nodes, inputs={"xs": {"type": "array"}}), inputs=b'{"xs":[1,2]}'))
    assert [grant.task for grant in lab.live_grants()] == [1, 2]
    assert computed == []


def test_an_attempt_whose_arguments_cannot_be_stored_fails() -> None:
    nodes: Nodes = {"m": {"map": "${inputs.xs}"}, "sum": {"with": {"xs": "${nodes.m.output}"}}}
    lab = Lab.ready()
    lab.step(submit(workflow(nodes, inputs={"xs": {"type": "array"}}), inputs=b'{"xs":[1]}'))
    lab.step(updates(results=[report(2, Stored(digest="sha256:9", size_bytes=70_000))]))
    failed = lab.step(ArtifactKept(tenant="t", digest=lab.turn.keeps[0].value.digest, problem="there is no room"))[0]
    assert isinstance(failed, TaskFailed)
    assert (failed.task, failed.attempt, failed.failure.reason) == (1, 1, "ARGUMENTS_NOT_STORED")


def test_what_waits_for_bytes_when_the_execution_ends_waits_for_nothing() -> None:
    lab = Lab.ready()
    nodes = {"a": {}, "m": {"map": "${nodes.a.output}"}, "w": {"when": "size(nodes.a.output) > 0"}}
    lab.step(submit(workflow(nodes, on_failure="fail_fast")))
    stored = Stored(digest="sha256:1", size_bytes=70_000)
    turn = lab.core.step([updates(results=[report(0, stored)])], START_MS)
    assert lab.execution().finished
    assert lab.execution().ready == []
    assert turn.fetches == []
