"""What follows from what happened: the decisions about one execution, each written down as an event at once.

`Draft` is the only way to decide: it applies each event to the execution and keeps it for the log. It knows nothing of
workers, shards or time other than what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    Event,
    ExecutionFinished,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
)
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.expressions import VALUE_TOO_LARGE, ExpressionError, truth
from nodeflow_scheduler.domain.failures import (
    Failure,
    execution_timed_out,
    expression_failed,
    items_failed,
    lost_too_often,
    node_failed,
)
from nodeflow_scheduler.domain.fan_in import describe, to_store
from nodeflow_scheduler.domain.fan_out import split_items
from nodeflow_scheduler.domain.lifecycle import ExecutionState, TaskState
from nodeflow_scheduler.domain.retries import LOST_ATTEMPTS_LIMIT, retry_delay_ms
from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, JSON, Artifacts, Stored, Value
from nodeflow_scheduler.domain.workflow import FailurePolicy
from nodeflow_shared.errors import NodeflowError

OUTPUTS_LIMIT_BYTES = 64 * 1024 * 1024
"""All outputs of an execution together, artifacts not counted."""
EXPANSION_BYTES = 8 * 1024 * 1024
"""About how much of items one turn writes down of an execution, and one list: a turn's events travel in one message."""

_QUEUED, _RUNNING, _PENDING = TaskState.QUEUED, TaskState.RUNNING, TaskState.PENDING


class NotAtHand(Exception):
    """A decision needs the bytes of an artifact that is not in memory; it is taken when they have come."""

    def __init__(self, value: Stored) -> None:
        super().__init__(value.digest)
        self.value = value


class NotStored(Exception):
    """A decision refers to bytes that the artifact store does not have yet; it is taken when it has them."""

    def __init__(self, value: Stored) -> None:
        super().__init__(value.digest)
        self.value = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Artifacts as the core sees them."""

    bytes_of: Callable[[str, Stored], bytes]
    """The bytes of a tenant's value; raises NotAtHand."""
    require: Callable[[str, Stored], None]
    """Makes sure that a tenant's value is in the artifact store; raises NotStored."""


@dataclass(slots=True)
class Draft:
    """The events of one execution in one turn, applied and not yet committed."""

    execution: Execution
    now_ms: int
    token: int
    shelf: Shelf
    first_sequence: int
    events: list[Event] = field(default_factory=list)
    queued: list[tuple[int, int]] = field(default_factory=list)
    """Tasks and attempts to hand out once this is committed."""
    stopped: list[tuple[int, int]] = field(default_factory=list)
    """Tasks and attempts that a worker may hold and shall stop."""
    artifacts: list[str] = field(default_factory=list)
    """Digests that the events refer to."""
    unfinished: bool = False
    """Whether `advance` left decisions to the next turn, which has to come without any other cause."""
    _expanded_bytes: int = 0

    def add(self, event: Event) -> None:
        """Applies an event and keeps it for the log."""
        self.execution.apply(event, self.now_ms, self.token)
        self.events.append(event)

    # ------------------------------------------------------------ what came in

    def complete(
        self,
        tasks: list[int],
        attempts: list[int],
        outputs: list[Value | None],
        artifacts: dict[int, Artifacts] | None = None,
    ) -> None:
        """Attempts succeeded. The caller has checked that they are current, each once."""
        self.add(TasksCompleted(tasks, attempts, outputs, artifacts))
        for files in (artifacts or {}).values():
            self.artifacts.extend(file.digest for file in files.values())
        self.artifacts.extend(output.digest for output in outputs if isinstance(output, Stored) and output.digest)

    def start(self, tasks: list[int], attempts: list[int], worker_id: str) -> None:
        """Attempts began."""
        self.add(TasksStarted(tasks, attempts, worker_id))

    def fail(self, task: int, attempt: int, failure: Failure) -> None:
        """An attempt failed. It is tried again if the node's policy says so."""
        execution = self.execution
        policy = execution.workflow.nodes[execution.node_of(task)].retry
        failed_count = execution.failed_counts.get(task, 0) + 1
        key = f"{execution.execution_id}/{task}/{attempt}"
        delay_ms = retry_delay_ms(policy, failed_count, failure, key) if attempt else None
        self.add(TaskFailed(task, attempt, failure, self.now_ms + delay_ms if delay_ms else 0))

    def lose(self, tasks: list[int], reason: str) -> None:
        """Attempts are lost. They are tried again at once, and do not count as tries of the user's."""
        execution = self.execution
        self.add(AttemptsLost(tasks, [execution.attempts[task] for task in tasks], reason))
        again = [task for task in tasks if execution.lost_counts.get(task, 0) < LOST_ATTEMPTS_LIMIT]
        for task in sorted(set(tasks).difference(again)):
            self.add(TaskFailed(task, execution.attempts[task], lost_too_often(LOST_ATTEMPTS_LIMIT), 0))
        self.queue(again)

    def retry(self, task: int) -> None:
        """A backoff has ended."""
        self.queue([task])

    def cancel(self, reason: str) -> None:
        """A person wants it cancelled."""
        self.add(CancelRequested(reason))
        self._cancel_all("CANCEL_REQUESTED")
        self.add(ExecutionFinished(ExecutionState.CANCELLED, None, None))

    def time_out(self) -> None:
        """The execution's time is up."""
        self._cancel_all("EXECUTION_TIMEOUT")
        failure = execution_timed_out(self.execution.workflow.timeout_ms or 0)
        self.add(ExecutionFinished(ExecutionState.FAILED, None, failure))

    def queue(self, tasks: list[int]) -> None:
        """Makes tasks ready for their next attempts."""
        if not tasks:
            return
        attempts = [self.execution.attempts[task] + 1 for task in tasks]
        self.add(TasksQueued(tasks, attempts))
        self.queued.extend(zip(tasks, attempts, strict=True))

    # ----------------------------------------------------------- what follows

    def advance(self) -> None:
        """Takes every decision that is possible now, to the end of the execution if it has come.

        Raises NotAtHand or NotStored when a decision waits for an artifact. What was decided until then stands; call
        again when it is there.
        """
        execution = self.execution
        parked: list[int] = []
        waiting: NotAtHand | None = None
        while not execution.finished:
            if execution.broken:
                broken, execution.broken = execution.broken, []
                self._propagate(broken)
            elif execution.ready:
                ready, execution.ready = execution.ready, []
                waiting = self._consider(ready, parked) or waiting
            elif execution.settled:
                settled, execution.settled = execution.settled, []
                for node in settled:
                    self._settle(node)
            elif execution.open_count == 0:
                self._finish()
            else:
                break
        if execution.finished:
            return  # What was parked on the way waits for nothing any more.
        execution.ready = parked
        if waiting is not None:
            raise waiting

    def _consider(self, ready: Sequence[int], parked: list[int]) -> NotAtHand | None:
        """Ready nodes: queue, expand or skip them.

        What waits for bytes is parked; says what the last of them waits for.
        """
        execution = self.execution
        nodes, states = execution.workflow.nodes, execution.states
        queued: list[int] = []
        waiting: NotAtHand | None = None
        for task in ready:
            node = nodes[task]
            if states[task] != _PENDING:
                continue  # It was cancelled or skipped when another parent failed.
            if node.when is None and node.map is None:
                queued.append(task)
                continue
            if self._expanded_bytes >= EXPANSION_BYTES:
                self.unfinished = True
                parked.append(task)
                continue
            try:
                self._decide_special(task, queued)
            except NotAtHand as reason:
                waiting = reason
                parked.append(task)
            except NodeflowError as error:
                self.add(TaskFailed(task, 0, expression_failed(f"node {node.name!r}", error), 0))
        self.queue(queued)
        return waiting

    def _decide_special(self, task: int, queued: list[int]) -> None:
        """A node with a condition, a list, or both."""
        execution = self.execution
        node = execution.workflow.nodes[task]
        if node.when is not None and not truth(node.when, execution):
            self.add(TasksSkipped([task], parent_failed=False))
        elif node.map is None:
            queued.append(task)
        else:
            value = node.map.evaluate(execution)
            if isinstance(value, Stored):
                items = split_items(self.shelf.bytes_of(execution.tenant, value), value.content_type)
            else:
                items = split_items(value)
            first = len(execution.states)
            self.add(NodeExpanded(task, first, items))
            self._expanded_bytes += sum(map(len, items))
            self.queue(list(range(first, first + len(items))))

    def _settle(self, node: int) -> None:
        """All items of a mapped node are in a final state."""
        execution = self.execution
        expansion = execution.expansions[node]
        if execution.states[node] != _RUNNING:
            return
        if expansion.unsuccessful and execution.workflow.on_failure is not FailurePolicy.CONTINUE:
            first = next((execution.failures[task] for task in expansion.tasks if task in execution.failures), None)
            failure = items_failed(expansion.unsuccessful, len(expansion.items), first)
            self.add(TaskFailed(node, 0, failure, 0))
        else:
            self.add(TasksCompleted([node], [0], [None]))

    def _propagate(self, failed: Iterable[int]) -> None:
        """What the failure of nodes does to the rest."""
        execution = self.execution
        policy = execution.workflow.on_failure
        if policy is FailurePolicy.FAIL_FAST:
            self._cancel_all("FAIL_FAST")
            return
        descendants = self._pending_descendants(failed)
        if not descendants:
            return
        if policy is FailurePolicy.CONTINUE:
            self.add(TasksSkipped(descendants, parent_failed=True))
        else:
            self.add(TasksCancelled(descendants, "PARENT_FAILED"))

    def _pending_descendants(self, nodes: Iterable[int]) -> list[int]:
        execution = self.execution
        successors, states = execution.workflow.successors, execution.states
        found: set[int] = set()
        frontier = list(nodes)
        while frontier:
            for successor in successors[frontier.pop()]:
                if successor not in found and states[successor] == _PENDING:
                    found.add(successor)
                    frontier.append(successor)
        return sorted(found)

    def _cancel_all(self, reason: str) -> None:
        execution = self.execution
        live = execution.live_tasks()
        self.stopped.extend((task, execution.attempts[task]) for task in live)
        self.queued.clear()  # What was queued in this very turn is not handed out.
        tasks = execution.open_tasks()
        if tasks:
            self.add(TasksCancelled(tasks, reason))

    def _finish(self) -> None:
        execution = self.execution
        nodes = execution.workflow.nodes
        failed = [
            task
            for task, state in enumerate(execution.states)
            if state == TaskState.FAILED and not nodes[execution.node_of(task)].allow_failure
        ]
        if failed and execution.workflow.on_failure is not FailurePolicy.CONTINUE:
            node = execution.node_of(failed[0])
            cause = execution.failures.get(failed[0])
            failure = node_failed(nodes[node].name, cause)
            self.add(ExecutionFinished(ExecutionState.FAILED, None, failure))
            return
        try:
            outputs = self._outputs()
        except NodeflowError as error:
            failure = expression_failed("outputs", error)
            self.add(ExecutionFinished(ExecutionState.FAILED, None, failure))
            return
        self.add(ExecutionFinished(ExecutionState.COMPLETED, outputs, None))

    def _outputs(self) -> Value:
        """The outputs of the execution: a JSON object, in which an artifact stands as `{"artifact": {…}}`."""
        execution = self.execution
        parts: list[bytes] = []
        digests: list[str] = []
        size = 0
        for name, expression in execution.workflow.outputs:
            value = expression.evaluate(execution)
            if isinstance(value, Stored):
                digests.append(self._stored(value).digest)
                value = describe(value)
            parts.append(json_text.encode(name) + b":" + value)
            size += len(parts[-1])
            if size > OUTPUTS_LIMIT_BYTES:
                problem = f"they have more than {OUTPUTS_LIMIT_BYTES:,} bytes together"
                raise ExpressionError(f"{len(execution.workflow.outputs)} values", problem, reason=VALUE_TOO_LARGE)
        data = b"{" + b",".join(parts) + b"}"
        outputs = data if len(data) <= INLINE_LIMIT_BYTES else self._stored(to_store(data, JSON))
        if isinstance(outputs, Stored):
            digests.append(outputs.digest)
        self.artifacts.extend(digest for digest in digests if digest)
        return outputs

    def _stored(self, value: Stored) -> Stored:
        """A reference to a value that the artifact store has. Raises NotStored."""
        if value.data and value.digest:
            self.shelf.require(self.execution.tenant, value)
            return Stored(content_type=value.content_type, digest=value.digest, size_bytes=value.size_bytes)
        return value
