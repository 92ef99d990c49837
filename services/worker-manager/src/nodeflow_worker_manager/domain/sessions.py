"""A session of a worker and its lifecycle, as one table.

Owns the states and what a session remembers. Must not know who is told of a change.

A session is recorded with the state-manager (REGISTERING) before its worker is welcomed (CONNECTED). A broken stream
leaves it DISCONNECTED: it may still execute attempts, so it lives on until its lease ends. CLOSED is final.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from nodeflow_worker_manager.domain.reports import Assignments


class SessionState(StrEnum):
    """Where a session stands."""

    REGISTERING = "REGISTERING"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    CLOSED = "CLOSED"


class SessionChange(StrEnum):
    """What can happen to a session."""

    WELCOMED = "WELCOMED"
    """It is recorded, and its worker is there."""
    RECORDED = "RECORDED"
    """It is recorded, but its worker has gone meanwhile."""
    STREAM_LOST = "STREAM_LOST"
    REFUSED = "REFUSED"
    """The state-manager did not record it."""
    ENDED = "ENDED"
    """Its lease ended, it was replaced, or its worker said goodbye."""


# A change that a state does not list is a fault of ours.
TRANSITIONS: Final[Mapping[tuple[SessionState, SessionChange], SessionState]] = {
    (SessionState.REGISTERING, SessionChange.WELCOMED): SessionState.CONNECTED,
    (SessionState.REGISTERING, SessionChange.RECORDED): SessionState.DISCONNECTED,
    (SessionState.REGISTERING, SessionChange.STREAM_LOST): SessionState.REGISTERING,
    (SessionState.REGISTERING, SessionChange.REFUSED): SessionState.CLOSED,
    (SessionState.REGISTERING, SessionChange.ENDED): SessionState.CLOSED,
    (SessionState.CONNECTED, SessionChange.STREAM_LOST): SessionState.DISCONNECTED,
    (SessionState.CONNECTED, SessionChange.ENDED): SessionState.CLOSED,
    (SessionState.DISCONNECTED, SessionChange.WELCOMED): SessionState.CONNECTED,
    (SessionState.DISCONNECTED, SessionChange.ENDED): SessionState.CLOSED,
}


class EndReason(StrEnum):
    """Why a session ended, as schedulers are told."""

    LEASE_ENDED = "LEASE_ENDED"
    REPLACED = "REPLACED"
    GOODBYE = "GOODBYE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """A standing bid: attempts that run at once, and how many more the worker holds ready."""

    slots: int = 0
    credits: int = 0


NO_CAPACITY: Final = Capacity()


@dataclass(slots=True, kw_only=True)
class Session:
    """One session. Times are monotonic seconds."""

    session_id: str
    worker_id: str
    state: SessionState
    lease_end: float
    last_seen: float
    due: float = 0.0
    """When to look whether its lease has ended."""
    connection: int | None = None
    """The stream of the worker, if it has one."""
    capacity: Capacity = NO_CAPACITY
    """What the worker last bid."""
    announced: Capacity = NO_CAPACITY
    """What schedulers were last told."""
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    replaces: tuple[str, ...] = ()
    """Sessions of earlier processes of the worker, which end when its first report comes."""
    replaced: bool = False
    """Whether its process is dead, and a successor is about to report what it has left."""
    draining: bool = False
    drain_requested: bool = False
    assigned_count: int = 0
    asked: bool = False
    """Whether a report of all that is held is under way on this connection."""
    awaiting: set[int] = field(default_factory=set)
    """Scheduler streams that get the report when it comes; until then they get no updates of this session."""
    generations: dict[int, int] = field(default_factory=dict)
    """How many reports each scheduler stream got, if any. Assignments that are based on another are dropped."""
    since_asked: list[Assignments] = field(default_factory=list)
    """What was handed over after the report was asked for, so that the report may not contain it, and is not over."""

    def change(self, change: SessionChange) -> None:
        """Go to the next state; a KeyError is a fault of ours."""
        self.state = TRANSITIONS[self.state, change]

    @property
    def bid(self) -> Capacity:
        """What schedulers may count on now."""
        open_for_work = self.state is SessionState.CONNECTED and not self.draining
        return self.capacity if open_for_work else NO_CAPACITY

    def drop_report(self) -> None:
        """Forget a report that cannot come any more."""
        self.asked = False
        self.awaiting.clear()
        self.since_asked.clear()
