"""The lifecycle of tasks and executions: one table for each, and nothing else decides what may follow what.

The theory: a state changes only by a trigger, every trigger is applied through `Execution.apply`, and a pair that is
not in the table is illegal. `docs/lifecycle.md` is drawn from these tables by `scripts/draw_lifecycle.py`. The numbers
of the states are those on the wire and in snapshots.

A few moves deserve a word:

- QUEUED → COMPLETED without RUNNING: reports of a start are lossy, so a result may be the first thing that is heard of
  an attempt.
- RUNNING → QUEUED: the attempt failed or was lost, and there will be another; while its backoff lasts, the task is
  QUEUED with a due time.
- PENDING → FAILED: the condition or the list of a mapped node could not be computed.
- PENDING → RUNNING by EXPAND: a mapped node is RUNNING while its items are under way.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """Where a task is."""

    PENDING = 1
    QUEUED = 2
    RUNNING = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6
    SKIPPED = 7


class ExecutionState(IntEnum):
    """Where an execution is. The numbers leave room for the other words that the wire has."""

    PENDING = 1
    RUNNING = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6


class TaskTrigger(StrEnum):
    """What can happen to a task."""

    QUEUE = "queue"
    EXPAND = "expand"
    START = "start"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    LOSE = "lose"
    SKIP = "skip"
    CANCEL = "cancel"


class ExecutionTrigger(StrEnum):
    """What can happen to an execution."""

    START = "start"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


TASK_TRANSITIONS: dict[TaskState, dict[TaskTrigger, TaskState]] = {
    TaskState.PENDING: {
        TaskTrigger.QUEUE: TaskState.QUEUED,
        TaskTrigger.EXPAND: TaskState.RUNNING,
        TaskTrigger.SKIP: TaskState.SKIPPED,
        TaskTrigger.FAIL: TaskState.FAILED,
        TaskTrigger.CANCEL: TaskState.CANCELLED,
    },
    TaskState.QUEUED: {
        TaskTrigger.QUEUE: TaskState.QUEUED,
        TaskTrigger.START: TaskState.RUNNING,
        TaskTrigger.COMPLETE: TaskState.COMPLETED,
        TaskTrigger.RETRY: TaskState.QUEUED,
        TaskTrigger.FAIL: TaskState.FAILED,
        TaskTrigger.LOSE: TaskState.QUEUED,
        TaskTrigger.CANCEL: TaskState.CANCELLED,
    },
    TaskState.RUNNING: {
        TaskTrigger.COMPLETE: TaskState.COMPLETED,
        TaskTrigger.RETRY: TaskState.QUEUED,
        TaskTrigger.FAIL: TaskState.FAILED,
        TaskTrigger.LOSE: TaskState.QUEUED,
        TaskTrigger.CANCEL: TaskState.CANCELLED,
    },
    TaskState.COMPLETED: {},
    TaskState.FAILED: {},
    TaskState.CANCELLED: {},
    TaskState.SKIPPED: {},
}

EXECUTION_TRANSITIONS: dict[ExecutionState, dict[ExecutionTrigger, ExecutionState]] = {
    ExecutionState.PENDING: {ExecutionTrigger.START: ExecutionState.RUNNING},
    ExecutionState.RUNNING: {
        ExecutionTrigger.COMPLETE: ExecutionState.COMPLETED,
        ExecutionTrigger.FAIL: ExecutionState.FAILED,
        ExecutionTrigger.CANCEL: ExecutionState.CANCELLED,
    },
    ExecutionState.COMPLETED: {},
    ExecutionState.FAILED: {},
    ExecutionState.CANCELLED: {},
}

FINAL_TASK_STATES = frozenset(state for state, moves in TASK_TRANSITIONS.items() if not moves)
FINAL_EXECUTION_STATES = frozenset(state for state, moves in EXECUTION_TRANSITIONS.items() if not moves)

FINISHING_TRIGGERS = {
    ExecutionState.COMPLETED: ExecutionTrigger.COMPLETE,
    ExecutionState.FAILED: ExecutionTrigger.FAIL,
    ExecutionState.CANCELLED: ExecutionTrigger.CANCEL,
}


def moves_of(trigger: TaskTrigger) -> tuple[int, ...]:
    """One column of the table: the next state for each state by its number, 0 where the move is illegal.

    The hot path indexes these tuples; they are the table in another shape, not another table.
    """
    last = max(TaskState)
    return tuple(
        int(TASK_TRANSITIONS[TaskState(number)].get(trigger, 0)) if number in TASK_TRANSITIONS else 0
        for number in range(last + 1)
    )
