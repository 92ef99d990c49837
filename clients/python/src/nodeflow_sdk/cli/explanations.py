"""Explanations of tasks in words: what is waited for, since when, until when.

Owns the words. Must not know how a task is chosen, nor decide anything about it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.scheduler.v1.explanation_pb2 import NodeProgress, TaskExplanation, TaskReason
from rich.text import Text

from nodeflow_sdk.cli.outcome import task_label
from nodeflow_sdk.progress.symbols import ICONS, STYLES, failure_line, seconds, span, task_state

NODES_SHOWN: Final = 8


def explanation_lines(told: TaskExplanation, now_s: float) -> list[Text]:
    """Return the task with its state, why it is there, and what else helps."""
    state = task_state(told.task.state)
    icon = (ICONS.get(state, "?"), STYLES.get(state, ""))
    reason = f" {state}: {reason_text(told, now_s)}"
    lines = [Text.assemble(icon, " ", (task_label(told.task), "bold"), reason)]
    if told.task.HasField("failure"):
        attempts = f"attempt {told.failed_count} of {told.attempt_limit}" if told.attempt_limit > 1 else "failure"
        lines.append(Text.assemble(f"    {attempts}: ", (failure_line(told.task.failure), "red")))
    hint = _HINTS.get(told.reason)
    if hint is not None:
        lines.append(Text.assemble(("    try: ", "bold"), hint))
    return lines


def reason_text(told: TaskExplanation, now_s: float) -> str:
    """Return why a task is where it is; tolerates reasons that this version does not know."""
    words = _WORDS.get(told.reason)
    return words(told, now_s) if words is not None else f"reason {told.reason}"


def reason_word(told: TaskExplanation) -> str:
    """Return the reason's name, `NO_WORKER`."""
    known = told.reason in TaskReason.values()
    return TaskReason.Name(told.reason).removeprefix("TASK_REASON_") if known else f"REASON_{told.reason}"


def _nodes(nodes: Iterable[NodeProgress]) -> str:
    listed = list(nodes)
    shown = [_node(each) for each in listed[:NODES_SHOWN]]
    return ", ".join(shown) + (f" and {len(listed) - NODES_SHOWN} more" if len(listed) > NODES_SHOWN else "")


def _node(node: NodeProgress) -> str:
    items = f", {node.open_item_count} of {node.item_count} items open" if node.item_count else ""
    return f"{node.node} ({task_state(node.state)}{items})"


def _names(nodes: Iterable[NodeProgress]) -> str:
    return ", ".join(each.node for each in nodes)


def _on(told: TaskExplanation) -> str:
    return f" on {told.worker_id}" if told.worker_id else ""


def _backoff(told: TaskExplanation, now_s: float) -> str:
    left = seconds(told.task.retry_time) - now_s
    due = f"in {span(left)}" if left > 0 else "now"
    number = told.task.attempt_number + 1
    return f"waits for the end of its backoff: attempt {number} is due {due}{_at(told.task.retry_time)}"


def _at(time: Timestamp) -> str:
    return f" ({time.ToDatetime():%H:%M:%S} UTC)"


def _running(told: TaskExplanation, now_s: float) -> str:
    so_far = span(now_s - seconds(told.task.start_time)) if told.task.HasField("start_time") else "?"
    limit = f" of at most {span(told.attempt_timeout.ToTimedelta().total_seconds())}"
    limit = limit if told.HasField("attempt_timeout") else ", with no timeout"
    return f"runs{_on(told)}: attempt {told.task.attempt_number}, {so_far} so far{limit}"


def _handed_out(told: TaskExplanation, _now_s: float) -> str:
    if not told.worker_id:
        return "is ready, and about to be handed to a worker"
    return f"is handed to {told.worker_id}, which has not begun it yet: it waits there for a slot"


def _no_worker(told: TaskExplanation, _now_s: float) -> str:
    silent = told.workers.silent_count
    known = f" ({silent} known, which cannot be reached at the moment)" if silent else ""
    return f"is ready, and no worker is connected{known}; {told.workers.waiting_count} attempts wait"


def _no_free_slot(told: TaskExplanation, _now_s: float) -> str:
    workers = told.workers
    return (
        f"is ready, and waits for a free slot: {workers.connected_count} workers with {workers.slot_count} slots hold "
        f"{workers.held_count} attempts, {workers.waiting_count} more wait"
    )


def _uncertain(told: TaskExplanation, _now_s: float) -> str:
    return (
        f"may be held by one of {told.workers.silent_count} workers that cannot be reached: "
        "it goes on when they are back, or begins anew when their lease has ended"
    )


_Words = Callable[[TaskExplanation, float], str]
_WORDS: Final[Mapping[int, _Words]] = {
    TaskReason.TASK_REASON_DEPENDENCIES: lambda told, _: f"waits for {_nodes(told.nodes)}",
    TaskReason.TASK_REASON_ARTIFACT: lambda _told, _: "waits for the artifact store, which has a value that it needs",
    TaskReason.TASK_REASON_BACKOFF: _backoff,
    TaskReason.TASK_REASON_NO_WORKER: _no_worker,
    TaskReason.TASK_REASON_NO_FREE_SLOT: _no_free_slot,
    TaskReason.TASK_REASON_HANDED_OUT: _handed_out,
    TaskReason.TASK_REASON_UNCERTAIN_ATTEMPT: _uncertain,
    TaskReason.TASK_REASON_RUNNING: _running,
    TaskReason.TASK_REASON_ITEMS: lambda told, _: f"waits for its items: {_nodes(told.nodes)}",
    TaskReason.TASK_REASON_COMPLETED: lambda _told, _: "it has a result",
    TaskReason.TASK_REASON_FAILED: lambda _told, _: "it failed, and no further attempt follows",
    TaskReason.TASK_REASON_PARENT_FAILED: lambda told, _: f"it never ran, because {_names(told.nodes)} failed",
    TaskReason.TASK_REASON_CONDITION_FALSE: lambda told, _: f"it never ran: its condition was false: {told.condition}",
    TaskReason.TASK_REASON_CANCEL_REQUESTED: lambda _told, _: "it was cancelled with its execution, on request",
    TaskReason.TASK_REASON_EXECUTION_TIMEOUT: lambda _told, _: "it was cancelled: the time of its execution was up",
    TaskReason.TASK_REASON_FAIL_FAST: lambda told, _: (
        f"it was cancelled, because {_names(told.nodes)} failed and the workflow fails fast"
    ),
    TaskReason.TASK_REASON_OUTPUTS: lambda _told, _: "it is over; the outputs of the execution are being stored",
}
_HINTS: Final[Mapping[int, str]] = {
    TaskReason.TASK_REASON_NO_WORKER: "nodeflow worker, which starts one here",
    TaskReason.TASK_REASON_NO_FREE_SLOT: "nodeflow workers, which shows them; nodeflow worker starts one more",
}
