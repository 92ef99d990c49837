"""What a task depends on: the nodes before its own, and the items of those that are mapped.

Owns their order, and the places in it. Knows nothing of pages or messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nodeflow_scheduler.domain.execution import Execution


class Place(NamedTuple):
    """A place in the list. It means the same at any later time, although mapped nodes may get their items meanwhile."""

    parent: int = 0
    """Which of the nodes that the task's node depends on, from 0."""
    position: int = 0
    """0 for that node, 1 for its first item, and so on."""


def dependencies_of(execution: Execution, task: int, start: Place) -> Iterator[tuple[Place, int]]:
    """The tasks that a task depends on, from a place on: nodes in the order of the workflow, each before its items."""
    parents = execution.workflow.nodes[execution.node_of(task)].dependencies
    position = start.position
    for parent in range(start.parent, len(parents)):
        node = parents[parent]
        expansion = execution.expansions.get(node)
        count = len(expansion.items) if expansion is not None else 0
        for place in range(position, count + 1):
            yield Place(parent, place), node if not place or expansion is None else expansion.first + place - 1
        position = 0
