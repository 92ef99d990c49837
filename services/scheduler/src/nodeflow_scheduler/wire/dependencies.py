"""What a task depends on, as it travels: pages that are bounded in number and in bytes."""

from __future__ import annotations

from typing import NamedTuple

from nodeflow.common.v1 import dependency_pb2

from nodeflow_scheduler.domain.dependencies import Place, dependencies_of
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import TaskState
from nodeflow_scheduler.wire.cursors import dependency_page, dependency_page_start
from nodeflow_scheduler.wire.readers import task_state
from nodeflow_scheduler.wire.values import failure_message, payload_of, write_artifacts
from nodeflow_shared.errors import FieldViolation, InvalidInput

PAGE_SIZE, PAGE_LIMIT = 100, 1000

PAGE_BYTES = 256 * 1024
"""A page ends behind the dependency with which it has this many bytes."""


class DependencyPage(NamedTuple):
    """A page, and the token of the next."""

    dependencies: list[dependency_pb2.TaskDependency]
    next_page_token: str


def dependency_list(execution: Execution, task: int, page_size: int, page_token: str) -> DependencyPage:
    """A page of what a task depends on. Raises InvalidInput for a size or a token that cannot be."""
    if page_size < 0:
        raise InvalidInput("the page size is negative", violations=[FieldViolation("page_size", "is negative")])
    size = min(page_size or PAGE_SIZE, PAGE_LIMIT)
    page: list[dependency_pb2.TaskDependency] = []
    room = PAGE_BYTES
    start = Place(*dependency_page_start(page_token, execution.execution_id, task))
    for place, dependency in dependencies_of(execution, task, start):
        if len(page) == size or room <= 0:
            return DependencyPage(page, dependency_page(execution.execution_id, task, place))
        page.append(_message(execution, dependency))
        room -= page[-1].ByteSize()
    return DependencyPage(page, "")


def _message(execution: Execution, task: int) -> dependency_pb2.TaskDependency:
    failure = execution.failures.get(task)
    expansion = execution.expansions.get(task)
    message = dependency_pb2.TaskDependency(
        task_number=task,
        node=execution.workflow.nodes[execution.node_of(task)].name,
        map_index=execution.map_index_of(task),
        state=task_state(execution.states[task]),
        attempt_number=execution.attempts[task],
        failure=failure_message(failure) if failure is not None else None,
        item_count=len(expansion.items) if expansion is not None else 0,
    )
    if expansion is None and execution.states[task] == TaskState.COMPLETED:
        message.output.CopyFrom(payload_of(execution.output(task)))
        write_artifacts(message.artifacts, execution.artifacts.get(task, {}))
    return message
