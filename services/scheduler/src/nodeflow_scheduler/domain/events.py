"""What can happen to an execution: the facts in its log.

An event may speak of many tasks at once (columns, not rows), so that a task costs a few list entries. Each task that an
event names has a sequence of its own. `Execution.apply` is the only reader that matters; `wire/log.py` writes and reads
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from nodeflow_scheduler.domain.failures import Failure
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.values import Artifacts, Value

# Not frozen: an event is made and read once on the hot path, and a frozen dataclass pays for every field it sets.
# Nothing changes an event after it was applied.


@dataclass(slots=True)
class ExecutionStarted:
    """The execution was accepted."""

    tenant: str
    workflow: str
    revision: str
    inputs: bytes
    """A JSON object with defaults filled in."""
    request_id: str
    request_digest: bytes
    labels: dict[str, str]
    deadline_ms: int
    """When its time is up; 0 for never."""


@dataclass(slots=True)
class TasksQueued:
    """Tasks are ready, each with its next attempt."""

    tasks: list[int]
    attempts: list[int]


@dataclass(slots=True)
class TasksStarted:
    """Attempts began on a worker."""

    tasks: list[int]
    attempts: list[int]
    worker_id: str


@dataclass(slots=True)
class TasksCompleted:
    """Attempts succeeded; or, with attempt 0 and no output, mapped nodes have all their items."""

    tasks: list[int]
    attempts: list[int]
    outputs: list[Value | None]
    artifacts: dict[int, Artifacts] | None = None
    """Files that attempts left, by task: few leave any."""


@dataclass(slots=True)
class TaskFailed:
    """An attempt failed, or a task failed without one (attempt 0)."""

    task: int
    attempt: int
    failure: Failure
    retry_ms: int
    """When the next attempt is due; 0 when there is none."""


NOT_DELIVERED = "NOT_DELIVERED"
"""The reason of a loss of what never reached a worker."""
CODE_DIFFERS = "CODE_DIFFERS"
"""The reason of a worker that has other code than the function's digest says: another one may have it."""
HARMLESS = frozenset({NOT_DELIVERED, CODE_DIFFERS})
"""Reasons of losses that do not count against a task: it was not executed."""


@dataclass(slots=True)
class AttemptsLost:
    """Attempts that nobody executes any more."""

    tasks: list[int]
    attempts: list[int]
    reason: str


@dataclass(slots=True)
class TasksSkipped:
    """Tasks that will not run."""

    tasks: list[int]
    parent_failed: bool


@dataclass(slots=True)
class TasksCancelled:
    """Tasks that were cancelled."""

    tasks: list[int]
    reason: str


@dataclass(slots=True)
class NodeExpanded:
    """A mapped node got its items."""

    task: int
    first_item: int
    items: list[bytes]


@dataclass(slots=True)
class CancelRequested:
    """A cancellation was asked for."""

    reason: str


@dataclass(slots=True)
class ExecutionFinished:
    """The execution is over."""

    state: ExecutionState
    outputs: Value | None
    failure: Failure | None


Event = (
    ExecutionStarted
    | TasksQueued
    | TasksStarted
    | TasksCompleted
    | TaskFailed
    | AttemptsLost
    | TasksSkipped
    | TasksCancelled
    | NodeExpanded
    | CancelRequested
    | ExecutionFinished
)


def sequence_count(event: Event) -> int:
    """How many sequences an event takes: one for each task that it names, one if it names none."""
    match event:
        case TasksQueued() | TasksStarted() | TasksCompleted() | AttemptsLost() | TasksSkipped() | TasksCancelled():
            return len(event.tasks)
        case ExecutionStarted() | TaskFailed() | NodeExpanded() | CancelRequested() | ExecutionFinished():
            return 1
        case _:
            assert_never(event)
