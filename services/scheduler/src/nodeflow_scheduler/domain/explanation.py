"""Why a task is where it is: what it waits for, or how it ended (promise I4).

Decided from the state of its execution and of the workers alone; changes neither. What is told of an execution that
is not over names something that happens by itself: a worker's answer, a timer, the artifact store, or another task of
which the same holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import FINAL_TASK_STATES, TaskState
from nodeflow_scheduler.domain.placement import Key, Placement
from nodeflow_scheduler.domain.workflow import FailurePolicy


class TaskReason(IntEnum):
    """Why; the numbers are those of the API, which says what each means."""

    DEPENDENCIES = 1
    ARTIFACT = 2
    BACKOFF = 3
    NO_WORKER = 4
    NO_FREE_SLOT = 5
    HANDED_OUT = 6
    UNCERTAIN_ATTEMPT = 7
    RUNNING = 8
    ITEMS = 9
    COMPLETED = 10
    FAILED = 11
    PARENT_FAILED = 12
    CONDITION_FALSE = 13
    CANCEL_REQUESTED = 14
    EXECUTION_TIMEOUT = 15
    FAIL_FAST = 16
    OUTPUTS = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSupply:
    """What the workers have, and how many attempts want it."""

    connected: int
    silent: int
    """Workers that have not reported yet."""
    slots: int
    held: int
    waiting: int
    has_room: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a task is where it is."""

    task: int
    reason: TaskReason
    nodes: tuple[int, ...] = ()
    """The nodes that the reason is about, ascending."""
    workers: WorkerSupply | None = None
    worker_id: str = ""


def explain(execution: Execution, task: int, placement: Placement, is_parked: Callable[[Key], bool]) -> Explanation:
    """Why a task is where it is. `is_parked` says whether an attempt waits until its arguments are stored."""
    match TaskState(execution.states[task]):
        case TaskState.PENDING:
            return _pending(execution, task)
        case TaskState.QUEUED:
            return _queued(execution, task, placement, is_parked)
        case TaskState.RUNNING:
            return _running(execution, task, placement)
        case _:
            return _over(execution, task)


def supply(placement: Placement, execution: Execution | None = None, task: int = 0) -> WorkerSupply:
    """What the workers have; with a task, those that may have its code."""
    connected = [
        session
        for session in placement.sessions.values()
        if session.generation and (execution is None or placement.fits(session.session_id, execution, task))
    ]
    return WorkerSupply(
        connected=len(connected),
        silent=sum(not session.generation for session in placement.sessions.values()),
        slots=sum(session.slots for session in connected),
        held=sum(len(session.live) for session in connected),
        waiting=placement.waiting,
        has_room=any(session.room > 0 for session in connected),
    )


def _pending(execution: Execution, task: int) -> Explanation:
    """An item is queued in the very turn that makes it, so what is pending is a node."""
    dependencies = execution.workflow.nodes[task].dependencies
    missing = tuple(parent for parent in dependencies if not execution.is_satisfied(parent))
    if missing:
        return Explanation(task=task, reason=TaskReason.DEPENDENCIES, nodes=missing)
    return Explanation(task=task, reason=TaskReason.ARTIFACT)


def _queued(execution: Execution, task: int, placement: Placement, is_parked: Callable[[Key], bool]) -> Explanation:
    if task in execution.retries_ms:
        return Explanation(task=task, reason=TaskReason.BACKOFF)
    key = (execution.execution_id, task, execution.attempts[task])
    holder = placement.holder_of(key)
    if holder is not None:
        return Explanation(task=task, reason=TaskReason.HANDED_OUT, worker_id=holder.worker_id)
    if key in placement.doubtful:
        return Explanation(task=task, reason=TaskReason.UNCERTAIN_ATTEMPT, workers=supply(placement))
    if is_parked(key):
        return Explanation(task=task, reason=TaskReason.ARTIFACT)
    workers = supply(placement, execution, task)
    if workers.has_room:
        return Explanation(task=task, reason=TaskReason.HANDED_OUT, workers=workers)
    reason = TaskReason.NO_FREE_SLOT if workers.connected else TaskReason.NO_WORKER
    return Explanation(task=task, reason=reason, workers=workers)


def _running(execution: Execution, task: int, placement: Placement) -> Explanation:
    if task in execution.expansions:
        return Explanation(task=task, reason=TaskReason.ITEMS, nodes=(task,))
    key = (execution.execution_id, task, execution.attempts[task])
    if key in placement.doubtful:
        return Explanation(task=task, reason=TaskReason.UNCERTAIN_ATTEMPT, workers=supply(placement))
    return Explanation(task=task, reason=TaskReason.RUNNING, worker_id=execution.worker_ids.get(task, ""))


def _over(execution: Execution, task: int) -> Explanation:
    if not execution.finished and not execution.open_count:
        return Explanation(task=task, reason=TaskReason.OUTPUTS)
    match TaskState(execution.states[task]):
        case TaskState.COMPLETED:
            return Explanation(task=task, reason=TaskReason.COMPLETED)
        case TaskState.FAILED:
            return Explanation(task=task, reason=TaskReason.FAILED)
        case _:
            return _never_ran(execution, task)


def _never_ran(execution: Execution, task: int) -> Explanation:
    """Cancelled or skipped. The log's events name the cause; the state does not keep it, but it follows from it."""
    cancelled = execution.states[task] == TaskState.CANCELLED
    if cancelled and execution.workflow.on_failure is FailurePolicy.FAIL_FAST and execution.cancel_reason is None:
        broken = tuple(_failed(execution, range(len(execution.workflow.nodes))))
        if broken:
            return Explanation(task=task, reason=TaskReason.FAIL_FAST, nodes=broken)
    failed = _failed_ancestors(execution, execution.node_of(task))
    if failed:
        return Explanation(task=task, reason=TaskReason.PARENT_FAILED, nodes=failed)
    if not cancelled:
        return Explanation(task=task, reason=TaskReason.CONDITION_FALSE)
    by_hand = execution.cancel_reason is not None
    return Explanation(task=task, reason=TaskReason.CANCEL_REQUESTED if by_hand else TaskReason.EXECUTION_TIMEOUT)


def _failed_ancestors(execution: Execution, node: int) -> tuple[int, ...]:
    nodes = execution.workflow.nodes
    seen: set[int] = set()
    frontier = list(nodes[node].dependencies)
    while frontier:
        parent = frontier.pop()
        if parent not in seen:
            seen.add(parent)
            frontier.extend(nodes[parent].dependencies)
    return tuple(sorted(_failed(execution, seen)))


def _failed(execution: Execution, nodes: Iterable[int]) -> list[int]:
    """Those of some nodes whose failure counts."""
    states = execution.states
    return [node for node in nodes if states[node] == TaskState.FAILED and not execution.has_allowed_failure(node)]


def progress_of(execution: Execution, node: int) -> tuple[int, int]:
    """How many items a node has, and how many of them are not over."""
    expansion = execution.expansions.get(node)
    if expansion is None:
        return 0, 0
    states = execution.states
    return len(expansion.items), sum(states[task] not in FINAL_TASK_STATES for task in expansion.tasks)
