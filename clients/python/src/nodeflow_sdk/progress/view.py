"""What is known of an execution, from its events: the model that every picture is drawn from.

Owns the folding of events. Must not know terminals, nor the time of day.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.event_pb2 import Event, TaskChange
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.workflow_pb2 import Node

from nodeflow_sdk.progress.symbols import FINAL_EXECUTION_STATES, FINAL_TASK_STATES, seconds


@dataclass(slots=True, kw_only=True)
class NodeView:
    """A node; for a mapped one also its items."""

    name: str
    mapped: bool = False
    state: TaskState.ValueType = TaskState.TASK_STATE_PENDING
    attempt_number: int = 0
    worker_id: str = ""
    begin_s: float | None = None
    """When it first became ready or ran."""
    end_s: float | None = None
    last_failure: Failure | None = None
    retry_count: int = 0
    item_count: int = 0
    items: dict[int, TaskState.ValueType] = field(default_factory=dict)
    counts: Counter[TaskState.ValueType] = field(default_factory=Counter)
    """How many items are in each state."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in FINAL_TASK_STATES

    @property
    def finished_items(self) -> int:
        """How many items are in a final state."""
        return sum(self.counts[state] for state in FINAL_TASK_STATES)

    def expand(self, item_count: int) -> None:
        """Learn how many items there are."""
        self.mapped = True
        self.item_count = item_count

    def apply(self, change: TaskChange, time_s: float) -> None:
        """Take over a change of the node or of one of its items."""
        if change.HasField("failure"):
            self.last_failure = change.failure
            self.retry_count += change.state not in FINAL_TASK_STATES
        if change.state not in (TaskState.TASK_STATE_PENDING, *FINAL_TASK_STATES) and self.begin_s is None:
            self.begin_s = time_s
        if change.HasField("map_index"):
            self._apply_to_item(change)
            return
        self.state = change.state
        self.attempt_number = change.attempt_number or self.attempt_number
        self.worker_id = change.worker_id or self.worker_id
        self.end_s = time_s if self.is_final else None

    def _apply_to_item(self, change: TaskChange) -> None:
        self.mapped = True
        before = self.items.get(change.map_index)
        if before is not None:
            self.counts[before] -= 1
        self.items[change.map_index] = change.state
        self.counts[change.state] += 1
        self.item_count = max(self.item_count, len(self.items))


class ExecutionView:
    """An execution and its nodes, in the order of the document."""

    def __init__(self, execution: Execution, nodes: Iterable[Node]) -> None:
        self.execution_id = execution.execution_id
        self.workflow = execution.workflow
        self.state: ExecutionState.ValueType = ExecutionState.EXECUTION_STATE_PENDING
        self.begin_s = seconds(execution.create_time)
        self.end_s: float | None = None
        self.failure: Failure | None = None
        self.nodes = {node.name: NodeView(name=node.name, mapped=node.mapped) for node in nodes}

    @property
    def is_final(self) -> bool:
        """Whether the execution is over."""
        return self.state in FINAL_EXECUTION_STATES

    @property
    def has_started(self) -> bool:
        """Whether any task has got as far as a worker."""
        waiting = (TaskState.TASK_STATE_PENDING, TaskState.TASK_STATE_QUEUED)
        return any(node.state not in waiting for node in self.nodes.values())

    def apply(self, event: Event) -> None:
        """Take over an event; kinds that this version does not know change nothing."""
        time_s = seconds(event.event_time)
        match event.WhichOneof("detail"):
            case "execution":
                self._apply_to_execution(event, time_s)
            case "task":
                self._node(event.task.node).apply(event.task, time_s)
            case "expansion":
                self._node(event.expansion.node).expand(event.expansion.item_count)
            case _:
                pass

    def _apply_to_execution(self, event: Event, time_s: float) -> None:
        change = event.execution
        if event.sequence == 1:
            self.begin_s = time_s
        self.state = change.state or self.state
        if change.HasField("failure"):
            self.failure = change.failure
        if self.is_final:
            self.end_s = time_s

    def _node(self, name: str) -> NodeView:
        return self.nodes.setdefault(name, NodeView(name=name))
