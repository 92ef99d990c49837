"""What a scheduler takes on: how much is open, and what was let in and is not decided yet.

Owns the counts and the limits. A submission is let in as a whole before anything of it is decided, or it is refused and
nothing of it ever was: so a refusal can be repeated without harm. What is open already is never refused anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeflow_shared.errors import NodeflowError, Overloaded

RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the core holds at most."""

    open_executions: int = 200_000
    """Beyond this, submissions are refused with Overloaded."""
    open_tasks: int = 4_000_000
    """Tasks of open executions, items included: the same. About 150 bytes each, and their results."""
    waiting_submissions: int = 20_000
    """Submissions that are let in and not decided yet, because the log does not keep up: the same."""
    waiting_bytes: int = 64 * 1024 * 1024
    """And what they take."""
    finished_executions: int = 2_000
    """How many that are over stay in memory for readers."""
    finished_tasks: int = 400_000
    """And how many tasks of theirs; the last one stays however large it is."""
    snapshot_every: int = 5_000
    """How many events may follow a snapshot before the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: executions that are not known yet, their tasks at the beginning, and what waits until then."""

    executions: int = 0
    tasks: int = 0
    size_bytes: int = 0


NOTHING = Request()


class Admission:
    """Counts what is open by execution, and lets in what there is room for. One alone gets in, however large it is."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: dict[str, int] = {}
        self.open_tasks = 0
        """Tasks of open executions."""
        self._waiting = NOTHING

    @property
    def open_executions(self) -> int:
        """How many executions are not over."""
        return len(self._tasks)

    def let_in(self, request: Request) -> None:
        """Take a request in, to be taken out again by `decided`; raises Overloaded, and then nothing of it is."""
        waiting, limits = self._waiting, self._limits
        executions = len(self._tasks) + waiting.executions
        tasks = self.open_tasks + waiting.tasks
        if executions and executions + request.executions > limits.open_executions:
            raise overloaded(f"{executions:,} executions are open, and {limits.open_executions:,} at most may be")
        if tasks and tasks + request.tasks > limits.open_tasks:
            raise overloaded(f"open executions have {tasks:,} tasks, and {limits.open_tasks:,} at most may be open")
        if waiting.executions and (
            waiting.executions + request.executions > limits.waiting_submissions
            or waiting.size_bytes + request.size_bytes > limits.waiting_bytes
        ):
            raise overloaded(f"{waiting.executions:,} submissions wait to be stored")
        self._waiting = _sum(waiting, request, 1)

    def decided(self, request: Request) -> None:
        """Part of what was let in is decided: it is open now, or was refused."""
        self._waiting = _sum(self._waiting, request, -1)

    def count(self, execution_id: str, tasks: int) -> None:
        """An open execution has so many tasks now."""
        self.open_tasks += tasks - self._tasks.get(execution_id, 0)
        self._tasks[execution_id] = tasks

    def forget(self, execution_id: str) -> None:
        """An execution is not open any more, or not ours."""
        self.open_tasks -= self._tasks.pop(execution_id, 0)


def overloaded(what: str) -> NodeflowError:
    """The scheduler holds all that it may."""
    return Overloaded(f"{what}; try again when some have finished", retry_after_s=RETRY_AFTER_S)


def _sum(one: Request, other: Request, sign: int) -> Request:
    return Request(
        executions=one.executions + sign * other.executions,
        tasks=one.tasks + sign * other.tasks,
        size_bytes=one.size_bytes + sign * other.size_bytes,
    )
