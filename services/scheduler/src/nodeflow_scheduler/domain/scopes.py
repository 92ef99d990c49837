"""What the expressions of a task can see.

A node sees its execution as it is; an item of a mapped node sees itself as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.expressions import Scope
from nodeflow_scheduler.domain.values import Artifacts, Value


def scope_of(execution: Execution, task: int) -> Scope:
    """What the expressions of a task can see."""
    return execution if task < len(execution.workflow.nodes) else ItemScope(execution, task)


class ItemScope:
    """What the expressions of an item of a mapped node can see."""

    __slots__ = ("_execution", "_task")

    def __init__(self, execution: Execution, task: int) -> None:
        self._execution = execution
        self._task = task

    def inputs(self) -> bytes:
        """The inputs, a JSON object."""
        return self._execution.inputs()

    def input(self, name: str) -> Value:
        """One input."""
        return self._execution.input(name)

    def output(self, node: int) -> Value:
        """The result of a node."""
        return self._execution.output(node)

    def outputs_of(self, nodes: Sequence[int]) -> list[Value]:
        """The results of nodes."""
        return self._execution.outputs_of(nodes)

    def state_of(self, node: int) -> Value:
        """The state of a node."""
        return self._execution.state_of(node)

    def files_of(self, node: int) -> Sequence[Artifacts]:
        """The files that a node leaves."""
        return self._execution.files_of(node)

    def item(self) -> Value:
        """The item."""
        expansion = self._execution.expansion_of(self._task)
        return expansion.items[self._task - expansion.first]

    def index(self) -> int:
        """The item's place, from 0."""
        return self._task - self._execution.expansion_of(self._task).first

    def execution(self) -> Mapping[str, object]:
        """Facts about the execution."""
        return self._execution.execution()
