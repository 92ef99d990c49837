"""What an execution tells: one update for each change of a task or of the whole, one line for each that a task wrote.

Owns the form in which Python users see events. Must not know where events come from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
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
class Attempt:
    """A try of a task."""

    node: str
    item: int | None = None
    """For an item of a mapped node, its place in the list."""
    number: int
    """From 1."""
    state: State
    began: datetime
    """When it was ready for a worker, or on one, whichever was told last."""
    ended: datetime | None = None
    message: str = ""
    """Why it failed, was cancelled, or was lost with its worker."""

    def __str__(self) -> str:
        place = f"{self.node}[{self.item}]" if self.item is not None else self.node
        return f"{place} #{self.number} {self.state}{f': {self.message}' if self.message else ''}"


def attempts_of(updates: Iterable[Update]) -> list[Attempt]:
    """Return the tries that updates tell of, in the order in which they began."""
    found: dict[tuple[str, int | None, int], Attempt] = {}
    for update in updates:
        if not update.attempt:
            continue
        key = (update.node, update.item, update.attempt)
        known = found.get(key)
        if known is None:
            _end_lost(found, update)
            found[key] = Attempt(
                node=update.node, item=update.item, number=update.attempt, state=update.state, began=update.time
            )
            known = found[key]
        if update.state is State.RUNNING:
            found[key] = replace(known, state=State.RUNNING, began=update.time)
        elif update.state.is_final or update.message:
            # Back in the queue with a word why: this try has failed, and the next one comes after its backoff.
            state = update.state if update.state.is_final else State.FAILED
            found[key] = replace(known, state=state, ended=update.time, message=update.message)
    return list(found.values())


def _end_lost(found: dict[tuple[str, int | None, int], Attempt], next_try: Update) -> None:
    """A task that begins its next try without a word on the one before has lost that."""
    key = (next_try.node, next_try.item, next_try.attempt - 1)
    before = found.get(key)
    if before is not None and before.ended is None:
        found[key] = replace(before, state=State.FAILED, ended=next_try.time, message=next_try.message or "lost")


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
