"""The tables of the lifecycle, and that an execution refuses every move that is not in them."""

from __future__ import annotations

import itertools

import pytest
from nodeflow.common.v1 import lifecycle_pb2
from tests.unit.scheduler.making import BROKEN, chain

from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
    sequence_count,
)
from nodeflow_scheduler.domain.execution import Execution, IllegalTransition
from nodeflow_scheduler.domain.lifecycle import (
    EXECUTION_TRANSITIONS,
    FINAL_EXECUTION_STATES,
    FINAL_TASK_STATES,
    TASK_TRANSITIONS,
    ExecutionState,
    ExecutionTrigger,
    TaskState,
    TaskTrigger,
    moves_of,
)

STARTED = ExecutionStarted("t", "w", "r", b"{}", "", b"", {}, 0)

EVENTS: dict[TaskTrigger, Event] = {
    TaskTrigger.QUEUE: TasksQueued([0], [1]),
    TaskTrigger.EXPAND: NodeExpanded(0, 1, [b"1"]),
    TaskTrigger.START: TasksStarted([0], [1], "worker"),
    TaskTrigger.COMPLETE: TasksCompleted([0], [1], [b"1"]),
    TaskTrigger.RETRY: TaskFailed(0, 1, BROKEN, 99),
    TaskTrigger.FAIL: TaskFailed(0, 1, BROKEN, 0),
    TaskTrigger.LOSE: AttemptsLost([0], [1], "WORKER_LOST"),
    TaskTrigger.SKIP: TasksSkipped([0], parent_failed=False),
    TaskTrigger.CANCEL: TasksCancelled([0], "FAIL_FAST"),
}


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(TaskState, TaskTrigger)))
def test_a_task_moves_as_the_table_says_and_not_otherwise(state: TaskState, trigger: TaskTrigger) -> None:
    execution = Execution("e", 0, chain(1))
    execution.apply(STARTED, 1, 1)
    execution.states[0] = state
    following = TASK_TRANSITIONS[state].get(trigger)
    if following is None:
        with pytest.raises(IllegalTransition, match=rf"of task 0, which is {state.name} at attempt 0"):
            execution.apply(EVENTS[trigger], 2, 1)
    else:
        execution.apply(EVENTS[trigger], 2, 1)
        assert execution.states[0] == following


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(ExecutionState, ExecutionTrigger)))
def test_an_execution_moves_as_the_table_says_and_not_otherwise(
    state: ExecutionState, trigger: ExecutionTrigger
) -> None:
    events: dict[ExecutionTrigger, Event] = {
        ExecutionTrigger.START: STARTED,
        ExecutionTrigger.COMPLETE: ExecutionFinished(ExecutionState.COMPLETED, b"{}", None),
        ExecutionTrigger.FAIL: ExecutionFinished(ExecutionState.FAILED, None, BROKEN),
        ExecutionTrigger.CANCEL: ExecutionFinished(ExecutionState.CANCELLED, None, None),
    }
    execution = Execution("e", 0, chain(1))
    execution.state = state
    following = EXECUTION_TRANSITIONS[state].get(trigger)
    if following is None:
        with pytest.raises(IllegalTransition, match=f"is {state.name} and cannot {trigger}"):
            execution.apply(events[trigger], 2, 1)
    else:
        execution.apply(events[trigger], 2, 1)
        assert execution.state is following


def test_every_state_has_its_row_and_is_reached_and_left() -> None:
    assert set(TASK_TRANSITIONS) == set(TaskState)
    assert set(EXECUTION_TRANSITIONS) == set(ExecutionState)
    assert {after for row in TASK_TRANSITIONS.values() for after in row.values()} == set(TaskState) - {
        TaskState.PENDING
    }
    assert {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED} == FINAL_TASK_STATES
    assert {ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED} == FINAL_EXECUTION_STATES


@pytest.mark.parametrize("trigger", list(TaskTrigger))
def test_a_column_is_the_table_in_another_shape(trigger: TaskTrigger) -> None:
    column = moves_of(trigger)
    assert column[0] == 0
    assert {state: column[state] for state in TaskState} == {
        state: TASK_TRANSITIONS[state].get(trigger, 0) for state in TaskState
    }


def test_the_numbers_are_those_on_the_wire() -> None:
    for each in TaskState:
        assert int(lifecycle_pb2.TaskState.Value(f"TASK_STATE_{each.name}")) == int(each)
    for state in ExecutionState:
        assert int(lifecycle_pb2.ExecutionState.Value(f"EXECUTION_STATE_{state.name}")) == int(state)


@pytest.mark.parametrize(
    ("event", "count"),
    [
        (STARTED, 1),
        (TasksQueued([1, 2, 3], [1, 1, 1]), 3),
        (TasksStarted([1, 2], [1, 1], "w"), 2),
        (TasksCompleted([1, 2], [1, 1], [b"1", b"2"]), 2),
        (TaskFailed(1, 1, BROKEN, 0), 1),
        (AttemptsLost([1, 2], [1, 1], "REFUSED"), 2),
        (TasksSkipped([4], parent_failed=True), 1),
        (TasksCancelled([4, 5], "FAIL_FAST"), 2),
        (NodeExpanded(1, 2, [b"1", b"2", b"3"]), 1),
        (CancelRequested("why"), 1),
        (ExecutionFinished(ExecutionState.CANCELLED, None, None), 1),
    ],
)
def test_an_event_takes_a_sequence_for_each_task_that_it_names(event: Event, count: int) -> None:
    assert sequence_count(event) == count


def test_items_begin_where_the_tasks_end() -> None:
    execution = Execution("e", 0, chain(2))
    execution.apply(STARTED, 1, 1)
    with pytest.raises(IllegalTransition, match="items of task 0 begin at 3, not at 2"):
        execution.apply(NodeExpanded(0, 3, [b"1"]), 2, 1)
