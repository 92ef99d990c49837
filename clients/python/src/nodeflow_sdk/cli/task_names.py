"""Tasks as they are typed: `ID/NODE`, `ID/NODE[INDEX]`.

Owns the form. Must not know what is done with a task.
"""

import re
from dataclasses import dataclass
from typing import Final

from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation

from nodeflow_sdk.cli.errors import CliError, ExitCode, usage_error
from nodeflow_sdk.client import Client
from nodeflow_shared.errors import NotFound

_TASK: Final = re.compile(r"(?P<node>[^\[\]]+)(\[(?P<index>\d{1,9})\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskName:
    """A task, or a whole execution if there is no node."""

    execution_id: str
    node: str = ""
    map_index: int | None = None

    async def explained(self, client: Client) -> TaskExplanation:
        """Return the task with its reason; raises CliError for a node or an item that does not exist."""
        try:
            return await client.explain(self.execution_id, self.node, self.map_index)
        except NotFound as error:
            if error.reason != "TASK_NOT_FOUND":
                raise
            raise CliError(error.message, ExitCode.USAGE, hint=f"nodeflow get {self.execution_id}") from error


def task_name(text: str) -> TaskName:
    """Return what a text names; raises CliError that says how a task is named."""
    execution_id, slash, rest = text.partition("/")
    found = _TASK.fullmatch(rest)
    if not execution_id or (slash and not found):
        raise usage_error(f"{text!r} names no task", "ID/NODE, or ID/NODE[0] for an item: @latest/count[0]")
    if found is None:
        return TaskName(execution_id=execution_id)
    index = found["index"]
    return TaskName(execution_id=execution_id, node=found["node"], map_index=None if index is None else int(index))
