"""Tables for people.

Owns columns. Must not know where rows come from.
"""

from collections.abc import Iterable, Mapping

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task, TaskCounts
from nodeflow.scheduler.v1.workflow_pb2 import Workflow
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import Worker, WorkerState
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nodeflow_sdk.cli.outcome import task_label
from nodeflow_sdk.progress.symbols import STYLES, execution_state, failure_line, seconds, span, task_state

MAX_ITEMS_SHOWN = 20


def executions_table(executions: Iterable[Execution], now_s: float) -> RenderableType:
    """Return one line for each execution."""
    table = plain_table("ID", "WORKFLOW", "STATE", "TASKS", "AGE", "TOOK", "LABELS")
    for each in executions:
        table.add_row(
            each.execution_id,
            each.workflow,
            _state(execution_state(each.state)),
            _counts(each),
            span(now_s - seconds(each.create_time)),
            _took(each),
            _labels(each.labels),
        )
    return table


def execution_details(
    execution: Execution, tasks: list[Task], workflow: Workflow, now_s: float, *, all_tasks: bool
) -> RenderableType:
    """Return an execution with its tasks, those of a pipeline with their stages.

    Of a large map only items that are not simply done are shown.
    """
    state = execution_state(execution.state)
    facts = Table.grid(padding=(0, 2))
    rows = {
        "id": Text(execution.execution_id),
        "workflow": Text(f"{execution.workflow} {execution.revision}"),
        "state": _state(state),
        "age": Text(span(now_s - seconds(execution.create_time))),
        "took": Text(_took(execution)),
        "labels": Text(_labels(execution.labels)),
        "reason": Text(execution.cancel_reason),
        "failure": Text(failure_line(execution.failure) if execution.HasField("failure") else "", style="red"),
    }
    for name, value in rows.items():
        if value.plain:
            facts.add_row(Text(name, style="dim"), value)
    shown = tasks if all_tasks else [task for task in tasks if is_telling(task)]
    stages = stages_of(workflow)
    table = plain_table(*(["STAGE"] if stages else []), "TASK", "STATE", "ATTEMPT", "WORKER", "TOOK", "LAST FAILURE")
    for task in shown:
        table.add_row(*([stages[task.node]] if stages else []), *_task_row(task, now_s))
    parts: list[RenderableType] = [facts, Text(""), table]
    if len(shown) < len(tasks):
        parts.append(
            Text(f"({len(tasks) - len(shown)} items completed or waiting; --all-tasks shows them)", style="dim")
        )
    return Group(*parts)


def workers_table(workers: Iterable[Worker], now_s: float) -> RenderableType:
    """Return one line for each worker."""
    table = plain_table("ID", "STATE", "SLOTS", "CREDITS", "ASSIGNED", "LAST SEEN", "VERSION", "LABELS")
    for each in workers:
        table.add_row(
            each.worker_id,
            _state(WorkerState.Name(each.state).removeprefix("WORKER_STATE_")),
            str(each.capacity.slots),
            str(each.capacity.credits),
            str(each.assigned_count),
            f"{span(now_s - seconds(each.last_seen_time))} ago" if each.HasField("last_seen_time") else "",
            each.version,
            _labels(each.labels),
        )
    return table


def workflows_table(workflows: Iterable[Workflow], now_s: float) -> RenderableType:
    """Return one line for each workflow."""
    table = plain_table("NAME", "REVISION", "AGE")
    for each in workflows:
        table.add_row(each.name, each.revision, span(now_s - seconds(each.create_time)))
    return table


def nodes_table(workflow: Workflow) -> RenderableType:
    """Return one line for each node of a workflow."""
    stages = stages_of(workflow)
    table = plain_table(*(["STAGE"] if stages else []), "NODE", "EXECUTES", "AFTER", "MAPPED", "WHEN")
    for node in workflow.nodes:
        facts = (node.name, node.summary, ", ".join(node.dependencies), "yes" if node.mapped else "")
        table.add_row(*([node.stage] if stages else []), *facts, Text(node.condition))
    return table


def stages_of(workflow: Workflow) -> dict[str, str]:
    """Return the stage of each node of a pipeline; nothing for what is none."""
    return {node.name: node.stage for node in workflow.nodes} if any(node.stage for node in workflow.nodes) else {}


def is_telling(task: Task) -> bool:
    """Return whether a person wants to see a task: not the many items of a map that are simply done, or wait."""
    quiet = (TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_PENDING, TaskState.TASK_STATE_QUEUED)
    return not task.HasField("map_index") or task.map_index < MAX_ITEMS_SHOWN or task.state not in quiet


def _task_row(task: Task, now_s: float) -> tuple[RenderableType, ...]:
    items = f" ({task.item_count} items)" if task.item_count else ""
    took = ""
    if task.HasField("start_time"):
        took = span((seconds(task.finish_time) if task.HasField("finish_time") else now_s) - seconds(task.start_time))
    return (
        Text(f"{task_label(task)}{items}"),
        _state(task_state(task.state)),
        str(task.attempt_number or ""),
        task.worker_id,
        took,
        Text(failure_line(task.failure) if task.HasField("failure") else "", style="red"),
    )


def plain_table(*columns: str) -> Table:
    """Return an empty table without borders."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold" if column == "ID" else "ellipsis")
    return table


def _state(word: str) -> Text:
    return Text(word, style=STYLES.get(word, ""))


def _counts(execution: Execution) -> str:
    """Return how many of the tasks are completed; of a list's executions only how many there are is known."""
    counts = execution.task_counts
    if not execution.HasField("task_counts"):
        return ""
    if counts == TaskCounts(total=counts.total):
        return str(counts.total)
    return f"{counts.completed}/{counts.total}" + (f" {counts.failed} failed" if counts.failed else "")


def _took(execution: Execution) -> str:
    if not execution.HasField("finish_time"):
        return ""
    return span(seconds(execution.finish_time) - seconds(execution.create_time))


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
