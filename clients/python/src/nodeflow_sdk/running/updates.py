"""What an execution tells: one update for each change of a task or of the whole, one line for each that a task wrote.

Owns the form in which Python users see events. Must not know where events come from.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """Where a task or an execution is in its lifecycle; only executions are PAUSED, only tasks SKIPPED."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    PAUSED = "PAUSED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED, State.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A change of state."""

    sequence: int
    """Its place in the execution, from 1."""
    time: datetime
    state: State
    node: str = ""
    """Empty: the execution as a whole."""
    item: int | None = None
    """For an item of a mapped node, its place in the list."""
    attempt: int = 0
    message: str = ""
    """Why it failed, was cancelled or skipped."""

    def __str__(self) -> str:
        place = f"{self.node}[{self.item}]" if self.item is not None else self.node or "execution"
        tried = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return f"{place} {self.state}{tried}{f': {self.message}' if self.message else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a task wrote."""

    time: datetime
    """When the worker read it."""
    node: str
    item: int | None = None
    """For an item of a mapped node, its place in the list."""
    attempt: int
    stream: str
    """`stdout`, `stderr`, or `notice` for what the engine says where a limit cut."""
    text: str

    def __str__(self) -> str:
        return self.text
