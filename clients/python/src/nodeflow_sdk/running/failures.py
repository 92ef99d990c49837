"""How an execution that did not complete is raised: the node, why, how often it was tried, and the remote traceback.

Owns the exceptions and their wording. Must not know how an execution is followed.
"""

from collections.abc import Sequence

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task

from nodeflow_sdk.progress.symbols import failure_line


class ExecutionFailed(Exception):
    """An execution did not complete; `reason` is a constant such as EXECUTION_TIMEOUT."""

    def __init__(self, text: str, *, execution_id: str, reason: str) -> None:
        super().__init__(text)
        self.execution_id = execution_id
        self.reason = reason


class ExecutionCancelled(ExecutionFailed):
    """An execution was cancelled; `reason` is in the words of who did it."""


class NodeFailed(ExecutionFailed):
    """A node failed, and the execution with it.

    `node` and `item` say which one, `attempts` how often it was tried, `reason` is a constant such as FUNCTION_RAISED,
    `error_type` and `error_message` are those of the exception, `remote_traceback` its stack in the user's code.
    """

    def __init__(self, text: str, *, execution_id: str, task: Task) -> None:
        super().__init__(text, execution_id=execution_id, reason=task.failure.reason)
        self.node = task.node
        self.item = task.map_index if task.HasField("map_index") else None
        self.attempts = task.attempt_number
        self.error_type = task.failure.error_type
        self.error_message = task.failure.message
        self.remote_traceback = task.failure.traceback


def failure_of(execution: Execution, failed: Sequence[Task]) -> ExecutionFailed:
    """Return the exception for an execution that is over, with its failed tasks."""
    name = f"{execution.workflow} ({execution.execution_id})"
    if execution.state == ExecutionState.EXECUTION_STATE_CANCELLED:
        why = execution.cancel_reason
        text = f"{name} was cancelled{f': {why}' if why else ''}"
        return ExecutionCancelled(text, execution_id=execution.execution_id, reason=why)
    # A mapped node as a whole fails without an attempt of its own, because of its items.
    own = [task for task in failed if not task.item_count] or list(failed)
    if not own:
        text = f"{name} failed: {failure_line(execution.failure)}"
        return ExecutionFailed(text, execution_id=execution.execution_id, reason=execution.failure.reason)
    return NodeFailed(_told(name, own), execution_id=execution.execution_id, task=own[0])


def _told(name: str, failed: Sequence[Task]) -> str:
    task = failed[0]
    label = f"{task.node}[{task.map_index}]" if task.HasField("map_index") else task.node
    tries = f" after {task.attempt_number} attempts" if task.attempt_number > 1 else ""
    lines = [f"{label} of {name} failed{tries}: {failure_line(task.failure)}", *_traceback(task.failure)]
    if len(failed) > 1:
        lines.append(f"(and {len(failed) - 1} more failed)")
    return "\n".join(lines)


def _traceback(failure: Failure) -> list[str]:
    lines = []
    if failure.traceback:
        lines = ["Remote traceback:", failure.traceback.rstrip(), failure_line(failure)]
    if failure.HasField("cause"):
        lines += [f"Caused by: {failure_line(failure.cause)}", *_traceback(failure.cause)]
    return lines
