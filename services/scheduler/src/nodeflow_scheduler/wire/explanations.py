"""Explanations of tasks, as they travel, and which task a caller means."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from nodeflow.scheduler.v1 import explanation_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.explanation import Explanation, WorkerSupply, progress_of
from nodeflow_scheduler.wire.readers import task_message, task_state
from nodeflow_shared.errors import FieldViolation, InvalidInput, NotFound


def task_named(execution: Execution, request: pb2.ExplainTaskRequest) -> int:
    """The number of the task that a request means. Raises InvalidInput, or NotFound that says what there is."""
    match request.WhichOneof("task"):
        case "task_number":
            check_task(execution, request.task_number)
            return request.task_number
        case "node":
            node = _node_named(execution, request.node)
            return _item(execution, node, request.map_index) if request.HasField("map_index") else node
        case None:
            violation = FieldViolation("task", "is not set", "a task's number, or a node")
            raise InvalidInput("no task is named", violations=[violation])


def check_task(execution: Execution, task: int) -> None:
    """Raises NotFound that says what there is."""
    if task >= len(execution.states):
        raise NotFound(
            f"execution {execution.execution_id} has no task {task}; its tasks are 0 to {len(execution.states) - 1}",
            reason="TASK_NOT_FOUND",
        )


def _node_named(execution: Execution, name: str) -> int:
    nodes = execution.workflow.nodes
    for number, node in enumerate(nodes):
        if node.name == name:
            return number
    shown = ", ".join(node.name for node in nodes[:20]) + (", …" if len(nodes) > 20 else "")
    raise NotFound(
        f"execution {execution.execution_id} has no node {name[:64]!r}; its nodes are {shown}", reason="TASK_NOT_FOUND"
    )


def _item(execution: Execution, node: int, index: int) -> int:
    expansion = execution.expansions.get(node)
    name = execution.workflow.nodes[node].name
    if expansion is not None and index < len(expansion.items):
        return expansion.first + index
    if execution.workflow.nodes[node].map is None:
        problem = f"node {name!r} is not mapped, so it has no items"
    elif expansion is None:
        problem = f"node {name!r} has no items yet"
    elif not expansion.items:
        problem = f"node {name!r} has an empty list, so it has no items"
    else:
        problem = f"node {name!r} has no item {index}; its items are 0 to {len(expansion.items) - 1}"
    raise NotFound(problem, reason="TASK_NOT_FOUND")


def explanation_message(execution: Execution, explanation: Explanation) -> explanation_pb2.TaskExplanation:
    """Why a task is where it is."""
    task = explanation.task
    node = execution.workflow.nodes[execution.node_of(task)]
    return explanation_pb2.TaskExplanation(
        task=task_message(execution, task, full=False),
        reason=explanation_pb2.TaskReason.ValueType(int(explanation.reason)),
        nodes=[_progress(execution, each) for each in explanation.nodes],
        condition=node.when.text if node.when is not None else "",
        attempt_limit=node.retry.attempts,
        failed_count=execution.failed_counts.get(task, 0),
        attempt_timeout=_duration(node.timeout_ms) if node.timeout_ms is not None else None,
        workers=_supply(explanation.workers) if explanation.workers is not None else None,
        worker_id=explanation.worker_id,
    )


def _progress(execution: Execution, node: int) -> explanation_pb2.NodeProgress:
    items, open_items = progress_of(execution, node)
    return explanation_pb2.NodeProgress(
        node=execution.workflow.nodes[node].name,
        state=task_state(execution.states[node]),
        item_count=items,
        open_item_count=open_items,
    )


def _supply(supply: WorkerSupply) -> explanation_pb2.WorkerSupply:
    return explanation_pb2.WorkerSupply(
        connected_count=supply.connected,
        silent_count=supply.silent,
        slot_count=supply.slots,
        held_count=supply.held,
        waiting_count=supply.waiting,
    )


def _duration(span_ms: int) -> Duration:
    seconds, rest = divmod(span_ms, 1000)
    return Duration(seconds=seconds, nanos=rest * 1_000_000)
