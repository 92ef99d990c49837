"""States in words, signs and colours; times as people read them.

Owns wording only.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState

FINAL_TASK_STATES: Final = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELLED,
        TaskState.TASK_STATE_SKIPPED,
    }
)
FINAL_EXECUTION_STATES: Final = frozenset(
    {
        ExecutionState.EXECUTION_STATE_COMPLETED,
        ExecutionState.EXECUTION_STATE_FAILED,
        ExecutionState.EXECUTION_STATE_CANCELLED,
    }
)
ICONS: Final[Mapping[str, str]] = {
    "PENDING": "·",
    "QUEUED": "○",
    "RUNNING": "▶",
    "COMPLETED": "✓",
    "FAILED": "✗",
    "CANCELLED": "⊘",
    "SKIPPED": "↷",
    "PAUSED": "‖",
}
STYLES: Final[Mapping[str, str]] = {
    "PENDING": "dim",
    "QUEUED": "yellow",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "magenta",
    "SKIPPED": "dim",
    "PAUSED": "yellow",
    "CONNECTED": "green",
    "DISCONNECTED": "yellow",
    "DRAINING": "yellow",
    "OFFLINE": "dim",
}


def task_state(state: TaskState.ValueType) -> str:
    """Return the state's word, `RUNNING`; tolerates states that this version does not know."""
    return _word(TaskState.Name(state), "TASK_STATE_") if state in TaskState.values() else f"STATE_{state}"


def execution_state(state: ExecutionState.ValueType) -> str:
    """Return the state's word, `RUNNING`; tolerates states that this version does not know."""
    known = state in ExecutionState.values()
    return _word(ExecutionState.Name(state), "EXECUTION_STATE_") if known else f"STATE_{state}"


def seconds(time: Timestamp) -> float:
    """Return a timestamp in seconds since the epoch."""
    return time.seconds + time.nanos / 1e9


def clock_time(time: Timestamp) -> str:
    """Return the local time of day, to the millisecond."""
    return datetime.fromtimestamp(seconds(time)).astimezone().strftime("%H:%M:%S.%f")[:-3]


def span(duration_s: float) -> str:
    """Return a duration for people: `340ms`, `3.2s`, `2m05s`, `1h02m`."""
    duration_s = max(duration_s, 0.0)
    if duration_s < 0.9995:
        return f"{duration_s * 1000:.0f}ms"
    if duration_s < 59.95:
        return f"{duration_s:.1f}s"
    minutes, rest = divmod(round(duration_s), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def failure_line(failure: Failure) -> str:
    """Return what failed in one line: the exception if there was one, the reason otherwise."""
    message = " ".join(failure.message.split())
    named = failure.error_type or failure.reason
    if not message or message == named:
        return named
    return message if message.startswith(named) or not named else f"{named}: {message}"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)
