"""The model of an execution, and the pictures drawn from it; no service, no terminal."""

import io

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.workflow_pb2 import Node
from rich.console import Console
from tests.unit.sdk.fake_services import BEGIN_S, EventScript, execution, happy_events

from nodeflow_sdk.progress.live import render, visible
from nodeflow_sdk.progress.plain import PlainLines
from nodeflow_sdk.progress.symbols import failure_line, span
from nodeflow_sdk.progress.view import ExecutionView, NodeView

NODES = [Node(name="count", mapped=True), Node(name="total")]
BOOM = Failure(error_type="ValueError", reason="FUNCTION_RAISED", message="boom")


def viewed(events: list[Event]) -> ExecutionView:
    view = ExecutionView(execution(), NODES)
    for event in events:
        view.apply(event)
    return view


def plain(events: list[Event], *, step_s: float) -> list[str]:
    """Return all lines without their time; each event comes `step_s` after the one before."""
    view = ExecutionView(execution(), NODES)
    lines = PlainLines(view)
    told = []
    for number, event in enumerate(events):
        view.apply(event)
        told += lines.lines(event, number * step_s)
    return [line.partition(" ")[2] for line in told]


def drawn(view: ExecutionView, now_s: float, *, room: int = 20) -> list[str]:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(render(view, now_s=now_s, room=room))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_view_counts_items_once_whatever_they_went_through() -> None:
    script = EventScript().started().expanded("count", 3)
    script.task("count", "RUNNING", index=0).task("count", "QUEUED", index=0, attempt=2, failure=BOOM)
    # RUNNING events may be missing: only they are lossy.
    script.task("count", "COMPLETED", index=0, attempt=2).task("count", "COMPLETED", index=1)
    node = viewed(script.events).nodes["count"]
    assert (node.item_count, node.finished_items, node.retry_count) == (3, 2, 1)
    assert +node.counts == {TaskState.TASK_STATE_COMPLETED: 2}


def test_the_view_of_a_finished_execution() -> None:
    view = viewed(happy_events())
    assert view.is_final
    assert view.state == ExecutionState.EXECUTION_STATE_COMPLETED
    assert view.end_s == BEGIN_S + (len(happy_events()) - 1) * 0.25
    assert all(node.is_final for node in view.nodes.values())


def test_a_large_map_is_condensed_to_tenths_of_progress() -> None:
    script = EventScript().started().expanded("count", 1000)
    for index in range(1000):
        script.task("count", "RUNNING", index=index).task("count", "COMPLETED", index=index)
    lines = plain(script.task("count", "COMPLETED").finished().events, step_s=0)
    assert lines[2:-2] == [f"count {tenth}00/1000" for tenth in range(1, 11)]


def test_a_slow_large_map_tells_progress_every_half_second() -> None:
    script = EventScript().started().expanded("count", 1000)
    for index in range(12):
        script.task("count", "COMPLETED", index=index)
    assert plain(script.events, step_s=0.1)[2:] == ["count 6/1000", "count 11/1000"]


def test_failures_in_a_large_map_are_told_one_by_one_at_first() -> None:
    script = EventScript().started().expanded("count", 1000)
    for index in range(15):
        script.task("count", "FAILED", index=index, attempt=3, worker="worker-0", failure=BOOM)
    lines = plain(script.events, step_s=0)[2:]
    assert lines == [f"count[{index}] FAILED attempt 3 worker-0 ValueError: boom" for index in range(10)]


def test_the_tree_shows_bars_counts_and_failures() -> None:
    script = EventScript().started().expanded("count", 4)
    script.task("count", "RUNNING", attempt=0).task("count", "COMPLETED", index=0).task("count", "RUNNING", index=1)
    script.task("count", "QUEUED", index=2, attempt=2, failure=BOOM)
    lines = drawn(viewed(script.events), BEGIN_S + 65)
    assert lines[0].endswith("RUNNING  1m05s")
    assert lines[1].startswith(" ⠋ count ")
    assert lines[1].endswith("1/4 1 running 1 retries ValueError: boom")
    assert lines[2].split() == ["·", "total", "pending"]


def test_the_last_picture_stands_still() -> None:
    view = viewed(happy_events())
    assert drawn(view, BEGIN_S + 10) == drawn(view, BEGIN_S + 99)
    assert drawn(view, 0)[0].endswith("COMPLETED  2.5s")


def test_nodes_under_way_are_shown_when_not_all_fit() -> None:
    states = {"a": "COMPLETED", "b": "PENDING", "c": "RUNNING", "d": "COMPLETED", "e": "FAILED"}
    nodes = [NodeView(name=name, state=TaskState.Value(f"TASK_STATE_{state}")) for name, state in states.items()]
    assert [node.name for node in visible(nodes, 3)] == ["b", "c", "e"]


def test_spans_and_failures_in_words() -> None:
    spans = [span(seconds) for seconds in (-1, 0.34, 0.9999, 3.21, 59.96, 125, 3725)]
    assert spans == ["0ms", "340ms", "1.0s", "3.2s", "1m00s", "2m05s", "1h02m"]
    assert failure_line(BOOM) == "ValueError: boom"
    assert failure_line(Failure(reason="ATTEMPT_TIMEOUT")) == "ATTEMPT_TIMEOUT"
    assert failure_line(Failure(error_type="KeyError", message="KeyError: 'a'\n  more")) == "KeyError: 'a' more"
