"""Plain lines: one for each change, with large maps condensed to their progress.

Owns what is worth a line. Must not know where lines go.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Self

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.event_pb2 import Event, EventType, ExecutionChange, TaskChange

from nodeflow_sdk.progress.symbols import clock_time, execution_state, failure_line, seconds, span, task_state
from nodeflow_sdk.progress.view import ExecutionView, NodeView

# Up to this many items, each change of each has a line of its own.
MAX_ITEMS_IN_FULL: Final = 20
# For larger maps: how many failures are told one by one.
MAX_FAILURES_IN_FULL: Final = 10
PROGRESS_INTERVAL_S: Final = 0.5
PROGRESS_STEPS: Final = 10


class PlainLines:
    """Turns events into lines; the view must have taken over an event before it is told here."""

    def __init__(self, view: ExecutionView) -> None:
        self._view = view
        self._last: dict[str, tuple[float, int]] = {}
        self._failures: Counter[str] = Counter()

    def lines(self, event: Event, now_s: float) -> list[str]:
        """Return the lines that an event is worth, often none; `now_s` is any clock that does not go back."""
        at = clock_time(event.event_time)
        match event.WhichOneof("detail"):
            case "execution":
                return [f"{at} {self._view.workflow} {self._execution(event, event.execution)}"]
            case "expansion":
                return [f"{at} {event.expansion.node} has {event.expansion.item_count} items"]
            case "task":
                return [f"{at} {text}" for text in self._task(event.task, now_s)]
            case _:
                return []

    def _execution(self, event: Event, change: ExecutionChange) -> str:
        if event.type == EventType.EVENT_TYPE_CANCEL_REQUESTED:
            return f"cancellation requested{_because(change.reason)}"
        text = execution_state(change.state)
        if event.sequence == 1:
            return f"{text} {self._view.execution_id}"
        if self._view.is_final:
            text = f"{text} in {span(seconds(event.event_time) - self._view.begin_s)}"
        if change.HasField("failure"):
            text = f"{text} {failure_line(change.failure)}"
        return f"{text}{_because(change.reason)}"

    def _task(self, change: TaskChange, now_s: float) -> list[str]:
        node = self._view.nodes[change.node]
        if not change.HasField("map_index"):
            return [_describe(change.node, change) + (_item_counts(node) if node.mapped and node.is_final else "")]
        if node.item_count <= MAX_ITEMS_IN_FULL:
            return [_describe(f"{change.node}[{change.map_index}]", change)]
        return self._condensed(node, change, now_s)

    def _condensed(self, node: NodeView, change: TaskChange, now_s: float) -> list[str]:
        lines = []
        if change.HasField("failure") and self._failures[node.name] < MAX_FAILURES_IN_FULL:
            self._failures[node.name] += 1
            lines.append(_describe(f"{change.node}[{change.map_index}]", change))
        done = node.finished_items
        last_s, last_done = self._last.setdefault(node.name, (now_s, 0))
        due = now_s - last_s >= PROGRESS_INTERVAL_S and done > last_done
        if due or (done - last_done) * PROGRESS_STEPS >= node.item_count:
            self._last[node.name] = (now_s, done)
            lines.append(f"{node.name} {done}/{node.item_count}{_item_counts(node)}")
        return lines


class PlainScreen:
    """Writes lines, as they come, to a function that takes one."""

    def __init__(self, view: ExecutionView, write: Callable[[str], None], notice: Callable[[str], None]) -> None:
        self.view = view
        self._lines = PlainLines(view)
        self._write = write
        self._notice = notice

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def refresh(self) -> None:
        """Nothing moves."""

    def show(self, events: Iterable[Event]) -> None:
        """Write what the events are worth."""
        for event in events:
            self.view.apply(event)
            for line in self._lines.lines(event, time.monotonic()):
                self._write(line)

    def notice(self, text: str) -> None:
        """Tell something that is not an event."""
        self._notice(text)


def _describe(label: str, change: TaskChange) -> str:
    parts = [label, task_state(change.state)]
    if change.attempt_number:
        parts.append(f"attempt {change.attempt_number}")
    if change.worker_id:
        parts.append(change.worker_id)
    if change.HasField("failure"):
        parts.append(failure_line(change.failure))
    if change.HasField("retry_time"):
        parts.append(f"(again at {clock_time(change.retry_time)})")
    return " ".join(parts) + _because(change.reason)


def _item_counts(node: NodeView) -> str:
    counted = (
        (node.counts[TaskState.TASK_STATE_RUNNING], "running"),
        (node.counts[TaskState.TASK_STATE_FAILED], "failed"),
        (node.counts[TaskState.TASK_STATE_CANCELLED], "cancelled"),
        (node.counts[TaskState.TASK_STATE_SKIPPED], "skipped"),
        (node.retry_count, "retries"),
    )
    said = [f"{count} {word}" for count, word in counted if count]
    return f", {', '.join(said)}" if said else ""


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
