"""What is raised for an execution that did not complete.

Owns the exceptions. Must not know messages of the API: `wire` makes these of them.
"""

from dataclasses import dataclass


class ExecutionFailed(Exception):
    """An execution did not complete; `reason` is a constant such as EXECUTION_TIMEOUT."""

    def __init__(self, text: str, *, execution_id: str, reason: str) -> None:
        super().__init__(text)
        self.execution_id = execution_id
        self.reason = reason


class ExecutionCancelled(ExecutionFailed):
    """An execution was cancelled; `reason` is in the words of who did it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """The task that failed first."""

    node: str
    item: int | None
    attempts: int
    reason: str
    error_type: str
    error_message: str
    remote_traceback: str


class NodeFailed(ExecutionFailed):
    """A node failed, and the execution with it.

    `node` and `item` say which one, `attempts` how often it was tried, `reason` is a constant such as FUNCTION_RAISED,
    `error_type` and `error_message` are those of the exception, `remote_traceback` its stack in the user's code.
    """

    def __init__(self, text: str, *, execution_id: str, task: FailedTask) -> None:
        super().__init__(text, execution_id=execution_id, reason=task.reason)
        self.node = task.node
        self.item = task.item
        self.attempts = task.attempts
        self.error_type = task.error_type
        self.error_message = task.error_message
        self.remote_traceback = task.remote_traceback
