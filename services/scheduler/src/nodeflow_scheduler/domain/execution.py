"""The state of one execution: arrays indexed by task number, changed by `apply` alone.

`apply` is total over the events of a valid history and deterministic, so that a replay gives exactly this state
(promise I7). It decides nothing: what an event makes possible is left in `ready`, `settled` and `broken`, and
`progress.py` decides about it.

Task numbers: the nodes of the workflow come first, in its order; the items of mapped nodes follow in the order of their
expansion.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.events import (
    HARMLESS,
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
    sequence_count,
)
from nodeflow_scheduler.domain.failures import Failure
from nodeflow_scheduler.domain.fan_in import join_outputs
from nodeflow_scheduler.domain.lifecycle import (
    EXECUTION_TRANSITIONS,
    FINAL_EXECUTION_STATES,
    FINAL_TASK_STATES,
    FINISHING_TRIGGERS,
    ExecutionState,
    ExecutionTrigger,
    TaskState,
    TaskTrigger,
    moves_of,
)
from nodeflow_scheduler.domain.values import NULL, Artifacts, Value
from nodeflow_scheduler.domain.workflow import Workflow

_QUEUE = moves_of(TaskTrigger.QUEUE)
_START = moves_of(TaskTrigger.START)
_COMPLETE = moves_of(TaskTrigger.COMPLETE)
_RETRY = moves_of(TaskTrigger.RETRY)
_FAIL = moves_of(TaskTrigger.FAIL)
_LOSE = moves_of(TaskTrigger.LOSE)
_SKIP = moves_of(TaskTrigger.SKIP)
_CANCEL = moves_of(TaskTrigger.CANCEL)
_EXPAND = moves_of(TaskTrigger.EXPAND)

_LIVE = (int(TaskState.QUEUED), int(TaskState.RUNNING))
_SATISFIED = frozenset({TaskState.COMPLETED, TaskState.SKIPPED})


class IllegalTransition(Exception):
    """An event does not fit the state: a defect of the engine, or a log that is not this execution's."""


@dataclass(slots=True)
class Expansion:
    """The items of a mapped node."""

    node: int
    first: int
    items: list[bytes]
    open: int
    """How many items are not in a final state."""
    unsuccessful: int = 0
    """How many failed or were cancelled."""

    @property
    def tasks(self) -> range:
        """The task numbers of the items."""
        return range(self.first, self.first + len(self.items))


class Execution:
    """One run of a workflow."""

    __slots__ = (
        "_input_values",
        "_joined",
        "artifacts",
        "attempts",
        "broken",
        "cancel_reason",
        "execution_id",
        "expansions",
        "failed_counts",
        "failure",
        "failures",
        "finish_ms",
        "finishes_ms",
        "lost_counts",
        "open_count",
        "outputs",
        "ready",
        "result",
        "retries_ms",
        "sequence",
        "settled",
        "shard",
        "snapshot_sequence",
        "start_ms",
        "started",
        "starts_ms",
        "state",
        "states",
        "time_ms",
        "tokens",
        "void",
        "waiting",
        "worker_ids",
        "workflow",
    )

    def __init__(self, execution_id: str, shard: int, workflow: Workflow) -> None:
        count = len(workflow.nodes)
        self.execution_id = execution_id
        self.shard = shard
        self.workflow = workflow
        self.state = ExecutionState.PENDING
        self.sequence = 0
        self.snapshot_sequence = 0
        self.time_ms = 0
        self.start_ms = 0
        self.finish_ms = 0
        self.started: ExecutionStarted | None = None
        self.cancel_reason: str | None = None
        self.failure: Failure | None = None
        self.result: Value | None = None
        # Columns, by task number.
        self.states = bytearray([TaskState.PENDING]) * count
        self.attempts = [0] * count
        self.tokens = [0] * count
        self.outputs: list[Value | None] = [None] * count
        self.finishes_ms = [0] * count
        # By node only.
        self.waiting = list(workflow.dependency_counts)
        # Sparse, by task number.
        self.failed_counts: dict[int, int] = {}
        self.lost_counts: dict[int, int] = {}
        self.failures: dict[int, Failure] = {}
        self.retries_ms: dict[int, int] = {}
        self.starts_ms: dict[int, int] = {}
        self.worker_ids: dict[int, str] = {}
        self.expansions: dict[int, Expansion] = {}
        self.artifacts: dict[int, Artifacts] = {}
        # What the last events made possible.
        self.open_count = count
        self.ready: list[int] = []
        self.settled: list[int] = []
        self.broken: list[int] = []
        self._joined: dict[int, Value] = {}
        self._input_values: dict[str, bytes] | None = None
        # It was dropped with its shard: part of what it says may never have happened.
        self.void = False

    # ------------------------------------------------------------------ change

    def apply(self, event: Event, time_ms: int, token: int) -> None:
        """Takes in one event. Raises IllegalTransition, and then the execution must not be used any more."""
        self._APPLY[type(event)](self, event, time_ms, token)
        self.sequence += sequence_count(event)
        self.time_ms = time_ms

    def _apply_started(self, event: ExecutionStarted, time_ms: int, _token: int) -> None:
        self.state = self._execution_move(ExecutionTrigger.START)
        self.started = event
        self.start_ms = time_ms
        self.ready.extend(self.workflow.roots)

    def _apply_queued(self, event: TasksQueued, _time_ms: int, token: int) -> None:
        states, attempts, tokens, retries = self.states, self.attempts, self.tokens, self.retries_ms
        for task, attempt in zip(event.tasks, event.attempts, strict=True):
            states[task] = _QUEUE[states[task]] or self._refuse(event, task)
            attempts[task] = attempt
            tokens[task] = token
            if retries:
                retries.pop(task, None)

    def _apply_tasks_started(self, event: TasksStarted, time_ms: int, _token: int) -> None:
        for task in event.tasks:
            self.states[task] = _START[self.states[task]] or self._refuse(event, task)
            self.starts_ms[task] = time_ms
            self.worker_ids[task] = event.worker_id

    def _apply_completed(self, event: TasksCompleted, time_ms: int, _token: int) -> None:
        states, outputs, finishes, waiting = self.states, self.outputs, self.finishes_ms, self.waiting
        successors, ready = self.workflow.successors, self.ready
        node_count = len(successors)
        for task, output in zip(event.tasks, event.outputs, strict=True):
            states[task] = _COMPLETE[states[task]] or self._refuse(event, task)
            outputs[task] = output
            finishes[task] = time_ms
            if task < node_count:
                for successor in successors[task]:
                    left = waiting[successor] - 1
                    waiting[successor] = left
                    if not left:
                        ready.append(successor)
            else:
                self._settle_item(task, success=True)
        if event.artifacts:
            self.artifacts.update(event.artifacts)
        self.open_count -= len(event.tasks)

    def _apply_failed(self, event: TaskFailed, time_ms: int, _token: int) -> None:
        task = event.task
        moves = _RETRY if event.retry_ms else _FAIL
        self.states[task] = moves[self.states[task]] or self._refuse(event, task)
        self.failures[task] = event.failure
        self.failed_counts[task] = self.failed_counts.get(task, 0) + 1
        if event.retry_ms:
            self.retries_ms[task] = event.retry_ms
            return
        self._finish_task(task, time_ms)
        if task >= len(self.workflow.nodes):
            self._settle_item(task, success=False)
        elif self.workflow.nodes[task].allow_failure:
            self._satisfy_successors(task)
        else:
            self.broken.append(task)

    def _apply_lost(self, event: AttemptsLost, _time_ms: int, _token: int) -> None:
        for task in event.tasks:
            self.states[task] = _LOSE[self.states[task]] or self._refuse(event, task)
            if event.reason not in HARMLESS:
                self.lost_counts[task] = self.lost_counts.get(task, 0) + 1

    def _apply_skipped(self, event: TasksSkipped, time_ms: int, _token: int) -> None:
        for task in event.tasks:
            self.states[task] = _SKIP[self.states[task]] or self._refuse(event, task)
            self._finish_task(task, time_ms)
            if task >= len(self.workflow.nodes):
                self._settle_item(task, success=True)
            elif not event.parent_failed:
                self._satisfy_successors(task)

    def _apply_cancelled(self, event: TasksCancelled, time_ms: int, _token: int) -> None:
        for task in event.tasks:
            self.states[task] = _CANCEL[self.states[task]] or self._refuse(event, task)
            self._finish_task(task, time_ms)
            self.retries_ms.pop(task, None)
            if task >= len(self.workflow.nodes):
                self._settle_item(task, success=False)

    def _apply_expanded(self, event: NodeExpanded, time_ms: int, _token: int) -> None:
        task, count = event.task, len(event.items)
        if event.first_item != len(self.states):
            raise IllegalTransition(f"items of task {task} begin at {event.first_item}, not at {len(self.states)}")
        self.states[task] = _EXPAND[self.states[task]] or self._refuse(event, task)
        self.starts_ms[task] = time_ms
        self.expansions[task] = Expansion(node=task, first=event.first_item, items=event.items, open=count)
        self._grow(count)
        self.open_count += count
        if not count:
            self.settled.append(task)

    def _apply_cancel_requested(self, event: CancelRequested, _time_ms: int, _token: int) -> None:
        self.cancel_reason = event.reason

    def _apply_finished(self, event: ExecutionFinished, time_ms: int, _token: int) -> None:
        self.state = self._execution_move(FINISHING_TRIGGERS[event.state])
        self.result = event.outputs
        self.failure = event.failure
        self.finish_ms = time_ms
        self.ready, self.settled, self.broken = [], [], []

    # The functions take the event type of their key; a dict cannot say so.
    _APPLY: ClassVar[dict[type, Callable[..., None]]] = {
        ExecutionStarted: _apply_started,
        TasksQueued: _apply_queued,
        TasksStarted: _apply_tasks_started,
        TasksCompleted: _apply_completed,
        TaskFailed: _apply_failed,
        AttemptsLost: _apply_lost,
        TasksSkipped: _apply_skipped,
        TasksCancelled: _apply_cancelled,
        NodeExpanded: _apply_expanded,
        CancelRequested: _apply_cancel_requested,
        ExecutionFinished: _apply_finished,
    }

    def _grow(self, count: int) -> None:
        self.states.extend(bytes([TaskState.PENDING]) * count)
        self.attempts.extend([0] * count)
        self.tokens.extend([0] * count)
        self.outputs.extend([None] * count)
        self.finishes_ms.extend([0] * count)

    def _finish_task(self, task: int, time_ms: int) -> None:
        self.finishes_ms[task] = time_ms
        self.open_count -= 1

    def _satisfy_successors(self, node: int) -> None:
        for successor in self.workflow.successors[node]:
            self.waiting[successor] -= 1
            if not self.waiting[successor]:
                self.ready.append(successor)

    def _settle_item(self, task: int, *, success: bool) -> None:
        expansion = self.expansion_of(task)
        expansion.open -= 1
        expansion.unsuccessful += not success
        if not expansion.open:
            self.settled.append(expansion.node)

    def _execution_move(self, trigger: ExecutionTrigger) -> ExecutionState:
        following = EXECUTION_TRANSITIONS[self.state].get(trigger)
        if following is None:
            raise IllegalTransition(f"execution {self.execution_id} is {self.state.name} and cannot {trigger}")
        return following

    def _refuse(self, event: Event, task: int) -> int:
        state = TaskState(self.states[task]).name
        raise IllegalTransition(
            f"{type(event).__name__} of task {task}, which is {state} at attempt {self.attempts[task]}, "
            f"after sequence {self.sequence} of execution {self.execution_id}"
        )

    def derive(self) -> None:
        """Computes anew what follows from the columns: after a snapshot was restored, and after a replay."""
        workflow = self.workflow
        states = self.states
        satisfied = [self.is_satisfied(node) for node in range(len(workflow.nodes))]
        self.waiting = [sum(not satisfied[parent] for parent in node.dependencies) for node in workflow.nodes]
        self.open_count = sum(state not in FINAL_TASK_STATES for state in states)
        for expansion in self.expansions.values():
            ends = [states[task] for task in expansion.tasks]
            expansion.open = sum(state not in FINAL_TASK_STATES for state in ends)
            expansion.unsuccessful = sum(state in (TaskState.FAILED, TaskState.CANCELLED) for state in ends)
        pending = self.state is ExecutionState.RUNNING
        self.ready = [
            task for task, left in enumerate(self.waiting) if pending and not left and states[task] == TaskState.PENDING
        ]
        self.settled = [
            node
            for node, expansion in self.expansions.items()
            if pending and not expansion.open and states[node] == TaskState.RUNNING
        ]
        self.broken = []

    # -------------------------------------------------------------------- read

    @property
    def finished(self) -> bool:
        """Whether it is in a final state."""
        return self.state in FINAL_EXECUTION_STATES

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.origin.tenant

    @property
    def origin(self) -> ExecutionStarted:
        """How it was accepted; its first event."""
        if self.started is None:
            raise IllegalTransition(f"execution {self.execution_id} has no first event")
        return self.started

    def is_satisfied(self, node: int) -> bool:
        """Whether what depends on a node no longer waits for it."""
        return self.states[node] in _SATISFIED or self.has_allowed_failure(node)

    def has_allowed_failure(self, node: int) -> bool:
        """Whether a node has failed, and that changes nothing for others."""
        return self.states[node] == TaskState.FAILED and self.workflow.nodes[node].allow_failure

    def is_current(self, task: int, attempt: int, token: int) -> bool:
        """Whether a report on an attempt is about the one attempt that may still have a result (promise I2)."""
        return (
            task < len(self.states)
            and 0 < attempt == self.attempts[task]  # 0 is a mapped node as a whole, which nobody reports on
            and self.tokens[task] == token
            and self.states[task] in _LIVE
            and task not in self.retries_ms
        )

    def live_tasks(self) -> list[int]:
        """Tasks with an attempt that a worker may hold."""
        nodes = self.expansions
        return [
            task
            for task, state in enumerate(self.states)
            if state in _LIVE and task not in self.retries_ms and task not in nodes
        ]

    def open_tasks(self) -> list[int]:
        """Tasks that are not in a final state."""
        return [task for task, state in enumerate(self.states) if state not in FINAL_TASK_STATES]

    def expansion_of(self, task: int) -> Expansion:
        """The expansion that an item belongs to."""
        if len(self.expansions) == 1:
            return next(iter(self.expansions.values()))
        ordered = list(self.expansions.values())  # In the order of their first items: expansions only ever append.
        return ordered[bisect_right([each.first for each in ordered], task) - 1]

    def node_of(self, task: int) -> int:
        """The node that a task belongs to."""
        return task if task < len(self.workflow.nodes) else self.expansion_of(task).node

    def map_index_of(self, task: int) -> int | None:
        """The place of an item in its list; None for a node."""
        return None if task < len(self.workflow.nodes) else task - self.expansion_of(task).first

    # ------------------------------------------------- Scope (see expressions)

    def inputs(self) -> bytes:
        """The inputs, a JSON object."""
        return self.origin.inputs

    def input(self, name: str) -> Value:
        """One input."""
        if self._input_values is None:
            self._input_values = self.workflow.inputs.split(self.origin.inputs)
        return self._input_values[name]

    def output(self, node: int) -> Value:
        """The result of a node: for a mapped one the list of its items' results; null where there is none."""
        if node in self.expansions:
            return self._joined_output(node)
        output = self.outputs[node]
        return NULL if output is None else output

    def outputs_of(self, nodes: Sequence[int]) -> list[Value]:
        """The results of nodes."""
        if self.expansions:
            return [self.output(node) for node in nodes]
        outputs = self.outputs
        return [NULL if (output := outputs[node]) is None else output for node in nodes]

    def state_of(self, node: int) -> Value:
        """The state of a node, such as "COMPLETED"."""
        return json_text.encode(TaskState(self.states[node]).name)

    def files_of(self, node: int) -> Sequence[Artifacts]:
        """The files that a node leaves, those of each item of a mapped one."""
        expansion = self.expansions.get(node)
        tasks = expansion.tasks if expansion is not None else (node,)
        return [self.artifacts[task] for task in tasks if task in self.artifacts]

    def item(self) -> Value:
        """Nodes that are not mapped have no item; the document's check says so before anything runs."""
        raise LookupError("item")

    def index(self) -> int:
        """Nodes that are not mapped have no index."""
        raise LookupError("index")

    def execution(self) -> Mapping[str, object]:
        """Facts about the execution."""
        created = datetime.fromtimestamp(self.start_ms / 1000, tz=UTC)
        return {
            "id": self.execution_id,
            "workflow": self.workflow.name,
            "revision": self.workflow.revision,
            "tenant": self.tenant,
            "create_time": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _joined_output(self, node: int) -> Value:
        joined = self._joined.get(node)
        if joined is None:
            tasks = self.expansions[node].tasks
            joined = join_outputs([self.outputs[task] or NULL for task in tasks])
            if self.states[node] in FINAL_TASK_STATES:
                self._joined[node] = joined
        return joined
