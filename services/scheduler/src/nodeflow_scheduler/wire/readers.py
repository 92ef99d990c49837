"""What readers see: executions, tasks, workflows and events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from nodeflow.common.v1 import lifecycle_pb2, payload_pb2
from nodeflow.scheduler.v1 import event_pb2, execution_pb2, workflow_pb2
from nodeflow.state_manager.v1 import log_pb2 as store_pb2

from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
)
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import ExecutionState, TaskState
from nodeflow_scheduler.domain.workflow import FunctionSpec, NodeSpec, Workflow
from nodeflow_scheduler.ports import LoggedChunk
from nodeflow_scheduler.wire.values import failure_message, payload_of, timestamp, timestamp_or_none, write_artifacts

_Detail = tuple["event_pb2.EventType.ValueType", dict[str, Any]]
_STATE_CHANGED = event_pb2.EVENT_TYPE_NODE_STATE_CHANGED


# ------------------------------------------------------------------ executions


def execution_message(execution: Execution, *, full: bool = True) -> execution_pb2.Execution:
    """An execution as it is in memory. `full` adds inputs, outputs and failure."""
    origin = execution.origin
    message = execution_pb2.Execution(
        execution_id=execution.execution_id,
        tenant=origin.tenant,
        workflow=origin.workflow,
        revision=origin.revision,
        state=execution_state(execution.state),
        labels=origin.labels,
        create_time=timestamp(execution.start_ms),
        finish_time=timestamp_or_none(execution.finish_ms),
        task_counts=task_counts(execution),
        last_sequence=execution.sequence,
        cancel_reason=execution.cancel_reason or "",
    )
    if full:
        message.inputs.CopyFrom(payload_pb2.Payload(data=origin.inputs))
        if execution.result is not None:
            message.outputs.CopyFrom(payload_of(execution.result))
        if execution.failure is not None:
            message.failure.CopyFrom(failure_message(execution.failure))
    return message


def indexed_execution_message(record: store_pb2.ExecutionRecord) -> execution_pb2.Execution:
    """An execution as the index has it."""
    message = execution_pb2.Execution(
        execution_id=record.execution_id,
        tenant=record.tenant,
        workflow=record.workflow,
        revision=record.revision,
        state=record.state,
        labels=record.labels,
        create_time=record.create_time,
    )
    if record.HasField("finish_time"):
        message.finish_time.CopyFrom(record.finish_time)
        message.task_counts.total = record.task_count
    return message


def task_counts(execution: Execution) -> execution_pb2.TaskCounts:
    """How many tasks are in each state."""
    counts = Counter(execution.states)
    return execution_pb2.TaskCounts(
        total=len(execution.states),
        **{state.name.lower(): counts[state] for state in TaskState},
    )


def task_message(execution: Execution, task: int, *, full: bool) -> execution_pb2.Task:
    """A task as it is in memory. `full` adds its result."""
    node = execution.node_of(task)
    failure = execution.failures.get(task)
    expansion = execution.expansions.get(task)
    message = execution_pb2.Task(
        execution_id=execution.execution_id,
        task_number=task,
        node=execution.workflow.nodes[node].name,
        map_index=execution.map_index_of(task),
        state=task_state(execution.states[task]),
        attempt_number=execution.attempts[task],
        failure=failure_message(failure) if failure is not None else None,
        retry_time=timestamp_or_none(execution.retries_ms.get(task, 0)),
        worker_id=execution.worker_ids.get(task, ""),
        start_time=timestamp_or_none(execution.starts_ms.get(task, 0)),
        finish_time=timestamp_or_none(execution.finishes_ms[task]),
        item_count=len(expansion.items) if expansion is not None else 0,
    )
    if full and execution.states[task] == TaskState.COMPLETED:
        message.output.CopyFrom(payload_of(execution.output(task)))
        write_artifacts(message.artifacts, execution.artifacts.get(task, {}))
    return message


def execution_state(state: ExecutionState) -> lifecycle_pb2.ExecutionState.ValueType:
    """The state of an execution, as it travels: the numbers are the same."""
    return lifecycle_pb2.ExecutionState.ValueType(int(state))


def task_state(state: int) -> lifecycle_pb2.TaskState.ValueType:
    """The state of a task, as it travels: the numbers are the same."""
    return lifecycle_pb2.TaskState.ValueType(state)


# ------------------------------------------------------------------- workflows


def workflow_message(workflow: Workflow, record: store_pb2.WorkflowRecord | None) -> workflow_pb2.Workflow:
    """A workflow with its nodes, and with its document if it is stored."""
    message = workflow_pb2.Workflow(
        name=workflow.name,
        revision=workflow.revision,
        nodes=[_node_message(workflow, node) for node in workflow.nodes],
        inputs_schema=workflow.inputs.schema(),
        source_path=workflow.source_path,
    )
    if record is not None:
        message.create_time.CopyFrom(record.create_time)
        message.document.source = record.document
        message.document.content_type = record.content_type
        message.document.directory = record.directory
    return message


def listed_workflow_message(record: store_pb2.WorkflowRecord) -> workflow_pb2.Workflow:
    """A workflow in a list."""
    return workflow_pb2.Workflow(name=record.name, revision=record.revision, create_time=record.create_time)


def _node_message(workflow: Workflow, node: NodeSpec) -> workflow_pb2.Node:
    return workflow_pb2.Node(
        name=node.name,
        dependencies=[workflow.nodes[each].name for each in node.dependencies],
        summary=_summary(node),
        mapped=node.map is not None,
        condition=node.when.text if node.when is not None else "",
        stage=node.stage,
        allow_failure=node.allow_failure,
    )


def _summary(node: NodeSpec) -> str:
    return node.executor.name if isinstance(node.executor, FunctionSpec) else node.executor.command


# ---------------------------------------------------------------------- events


GROUP_BYTES = 64 * 1024
"""About how much of events goes into one message to a reader."""
EVENT_BYTES = 256
"""About what an event takes beside a result."""


@dataclass(slots=True)
class EventReader:
    """Turns the log of one execution into events for readers, chunk by chunk.

    It needs to know which task is which, and so it follows expansions; everything else is in the events.
    """

    execution_id: str
    workflow: Workflow
    expansions: list[tuple[int, int, int]]
    """Node, first item, item count; in the order of their first items.

    At least those before the first chunk that is read.
    """

    @classmethod
    def of(cls, execution: Execution) -> EventReader:
        """A reader that knows the expansions so far."""
        known = [(each.node, each.first, len(each.items)) for each in execution.expansions.values()]
        return cls(execution.execution_id, execution.workflow, known)

    def groups(self, chunk: LoggedChunk, after_sequence: int) -> Iterator[list[event_pb2.Event]]:
        """The events of a chunk behind a sequence, in groups that fit into a message. Made as they are asked for."""
        group: list[event_pb2.Event] = []
        size = 0
        for event in self.read(chunk.first_sequence, chunk.time_ms, chunk.events):
            if event.sequence <= after_sequence:
                continue
            if size >= GROUP_BYTES:
                yield group
                group, size = [], 0
            group.append(event)
            size += EVENT_BYTES + len(event.task.output.data) + len(event.task.failure.traceback)
        if group:
            yield group

    def read(self, first_sequence: int, time_ms: int, events: Sequence[Event]) -> Iterator[event_pb2.Event]:
        """The events of a chunk."""
        sequence = first_sequence
        when = timestamp(time_ms)
        for event in events:
            for kind, detail in self._details(event):
                yield event_pb2.Event(
                    execution_id=self.execution_id, sequence=sequence, event_time=when, type=kind, **detail
                )
                sequence += 1

    # The values are messages of three types, one for each key.
    def _details(self, event: Event) -> Iterator[_Detail]:
        match event:
            case ExecutionStarted() | CancelRequested() | ExecutionFinished():
                yield self._execution_detail(event)
            case TasksCompleted():
                for task, attempt, output in zip(event.tasks, event.attempts, event.outputs, strict=True):
                    change = self._change(task, attempt, TaskState.COMPLETED)
                    if output is not None:
                        change.output.CopyFrom(payload_of(output))
                    if event.artifacts and task in event.artifacts:
                        write_artifacts(change.artifacts, event.artifacts[task])
                    yield event_pb2.EVENT_TYPE_DATA_AVAILABLE, {"task": change}
            case TaskFailed():
                yield event_pb2.EVENT_TYPE_ERROR_OCCURRED, {"task": self._failed(event)}
            case NodeExpanded():
                if all(event.task != node for node, _, _ in self.expansions):  # Empty ones share their first item.
                    self.expansions.append((event.task, event.first_item, len(event.items)))
                expansion = event_pb2.NodeExpansion(
                    node=self._name(event.task), first_item=event.first_item, item_count=len(event.items)
                )
                yield event_pb2.EVENT_TYPE_NODE_EXPANDED, {"expansion": expansion}
            case TasksQueued() | TasksStarted() | AttemptsLost() | TasksSkipped() | TasksCancelled():
                for change in self._state_changes(event):
                    yield _STATE_CHANGED, {"task": change}
            case _:
                assert_never(event)

    def _execution_detail(self, event: ExecutionStarted | CancelRequested | ExecutionFinished) -> _Detail:
        match event:
            case ExecutionStarted():
                change = event_pb2.ExecutionChange(
                    state=lifecycle_pb2.EXECUTION_STATE_RUNNING,
                    workflow=event.workflow,
                    node_count=len(self.workflow.nodes),
                )
                return event_pb2.EVENT_TYPE_EXECUTION_STARTED, {"execution": change}
            case CancelRequested():
                change = event_pb2.ExecutionChange(state=lifecycle_pb2.EXECUTION_STATE_RUNNING, reason=event.reason)
                return event_pb2.EVENT_TYPE_CANCEL_REQUESTED, {"execution": change}
            case ExecutionFinished():
                change = event_pb2.ExecutionChange(
                    state=execution_state(event.state),
                    outputs=payload_of(event.outputs) if event.outputs is not None else None,
                    failure=failure_message(event.failure) if event.failure is not None else None,
                )
                return event_pb2.EVENT_TYPE_EXECUTION_COMPLETED, {"execution": change}

    def _state_changes(
        self, event: TasksQueued | TasksStarted | AttemptsLost | TasksSkipped | TasksCancelled
    ) -> Iterable[event_pb2.TaskChange]:
        match event:
            case TasksQueued():
                return [self._change(t, a, TaskState.QUEUED) for t, a in zip(event.tasks, event.attempts, strict=True)]
            case TasksStarted():
                return [
                    self._change(task, attempt, TaskState.RUNNING, worker_id=event.worker_id)
                    for task, attempt in zip(event.tasks, event.attempts, strict=True)
                ]
            case AttemptsLost():
                return [
                    self._change(task, attempt, TaskState.QUEUED, reason=event.reason)
                    for task, attempt in zip(event.tasks, event.attempts, strict=True)
                ]
            case TasksSkipped():
                reason = "PARENT_FAILED" if event.parent_failed else "CONDITION_FALSE"
                return [self._change(task, 0, TaskState.SKIPPED, reason=reason) for task in event.tasks]
            case TasksCancelled():
                return [self._change(task, 0, TaskState.CANCELLED, reason=event.reason) for task in event.tasks]

    def _failed(self, event: TaskFailed) -> event_pb2.TaskChange:
        state = TaskState.QUEUED if event.retry_ms else TaskState.FAILED
        change = self._change(event.task, event.attempt, state)
        change.failure.CopyFrom(failure_message(event.failure))
        if event.retry_ms:
            change.retry_time.CopyFrom(timestamp(event.retry_ms))
        return change

    def _change(
        self, task: int, attempt: int, state: TaskState, *, worker_id: str = "", reason: str = ""
    ) -> event_pb2.TaskChange:
        change = event_pb2.TaskChange(
            node=self._name(task),
            task_number=task,
            attempt_number=attempt,
            state=task_state(state),
            worker_id=worker_id,
            reason=reason,
        )
        if task >= len(self.workflow.nodes):
            change.map_index = task - self._expansion(task)[1]
        return change

    def _name(self, task: int) -> str:
        nodes = self.workflow.nodes
        return nodes[task].name if task < len(nodes) else nodes[self._expansion(task)[0]].name

    def _expansion(self, task: int) -> tuple[int, int, int]:
        return next(each for each in reversed(self.expansions) if each[1] <= task)
