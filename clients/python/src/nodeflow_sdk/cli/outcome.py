"""How an execution ended, told to a person: which node failed, why, the user's own traceback, how often it was tried.

Owns that report and the exit code. Must not know how the execution was started.
"""

from collections.abc import Iterable
from typing import Final

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from rich.text import Text

from nodeflow_sdk.cli.errors import ExitCode
from nodeflow_sdk.client import Client
from nodeflow_sdk.progress.symbols import STYLES, execution_state, failure_line, seconds, span

MAX_TASKS_SHOWN: Final = 5


def exit_code_of(execution: Execution) -> ExitCode:
    """Return 0 for a completed execution, 1 for any other."""
    completed = execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
    return ExitCode.SUCCESS if completed else ExitCode.FAILED


async def outcome_lines(client: Client, execution: Execution) -> list[Text]:
    """Return what to tell about an execution that is over."""
    state = execution_state(execution.state)
    took = span(seconds(execution.finish_time) - seconds(execution.create_time))
    lines = [Text.assemble(execution.execution_id, " ", (state, STYLES.get(state, "")), f" after {took}")]
    if execution.state == ExecutionState.EXECUTION_STATE_CANCELLED and execution.cancel_reason:
        lines.append(Text(f"  reason: {execution.cancel_reason}"))
    completed = execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
    if execution.HasField("failure"):
        lines.append(Text.assemble("  ", (failure_line(execution.failure), "red")))
    elif completed and execution.task_counts.failed:
        lines.append(Text("  in spite of these failures, as its `on_failure: continue` says:", style="yellow"))
    if execution.state == ExecutionState.EXECUTION_STATE_FAILED or (completed and execution.task_counts.failed):
        failed = [task async for task in client.tasks(execution.execution_id, state=TaskState.TASK_STATE_FAILED)]
        lines += failed_task_lines(failed)
    return lines


def failed_task_lines(tasks: Iterable[Task]) -> list[Text]:
    """Return the failures of tasks: items before the mapped node that failed because of them."""
    # A mapped node as a whole fails without an attempt of its own, because of its items.
    listed = sorted(tasks, key=lambda task: (task.item_count > 0, task.task_number))
    own = [task for task in listed if not task.item_count] or listed
    lines = [line for task in own[:MAX_TASKS_SHOWN] for line in _task_lines(task)]
    if len(own) > MAX_TASKS_SHOWN:
        lines.append(Text(f"  … and {len(own) - MAX_TASKS_SHOWN} more failed tasks"))
    return lines


def task_label(task: Task) -> str:
    """Return the node, with the place of an item."""
    return f"{task.node}[{task.map_index}]" if task.HasField("map_index") else task.node


def _task_lines(task: Task) -> list[Text]:
    attempts = f" after {task.attempt_number} attempts" if task.attempt_number > 1 else ""
    failure = task.failure
    on = f" on {task.worker_id}" if task.worker_id else ""
    lines = [
        Text.assemble("  ", ("✗ ", "red"), (task_label(task), "bold"), f" failed{attempts}{on}: "),
    ]
    lines[0].append(failure_line(failure), "red")
    if failure.reason and failure.error_type:
        lines[0].append(f" ({failure.reason})", "dim")
    lines += _traceback_lines(failure)
    return lines


def _traceback_lines(failure: Failure) -> list[Text]:
    lines = [Text(f"      {line}", style="dim") for line in failure.traceback.rstrip().splitlines()]
    if failure.HasField("cause"):
        lines.append(Text.assemble("      caused by: ", (failure_line(failure.cause), "red")))
        lines += _traceback_lines(failure.cause)
    return lines
