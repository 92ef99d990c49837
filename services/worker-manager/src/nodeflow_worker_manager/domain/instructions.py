"""What the core wants done: frames for workers, frames for schedulers, and calls to the registry.

Owns the vocabulary of output. Instructions are carried out in the order in which they were given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.reports import Assignments, Held, Updates
from nodeflow_worker_manager.domain.sessions import Capacity, EndReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """To a worker: it is registered."""

    connection: int
    newly_registered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyToHeartbeat:
    """To a worker: its heartbeat was seen."""

    connection: int
    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """To a worker: new attempts."""

    connection: int
    batch: Assignments


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """To a worker: results are committed."""

    connection: int
    acknowledgement: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """To a worker: attempts to stop."""

    connection: int
    cancellation: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeld:
    """To a worker: say what you hold."""

    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """To a worker: finish and leave."""

    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    """A session as a scheduler is told of it."""

    session_id: str
    worker_id: str
    capacity: Capacity
    labels: Mapping[str, str]
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOpened:
    """To a scheduler: these sessions are known."""

    stream: int
    sessions: tuple[OpenedSession, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendHeld:
    """To a scheduler: what a session holds of its shards."""

    stream: int
    session_id: str
    generation: int
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class SendUpdates:
    """To a scheduler: reports of a session."""

    stream: int
    session_id: str
    updates: Updates


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCapacity:
    """To a scheduler: a session's bid changed."""

    stream: int
    session_id: str
    capacity: Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class SendClosed:
    """To a scheduler: a session ended."""

    stream: int
    session_id: str
    reason: EndReason


@dataclass(frozen=True, slots=True, kw_only=True)
class SendAttached:
    """To a scheduler: every session that could hold attempts was named."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendQuestion:
    """To a scheduler: a worker asks about an attempt."""

    stream: int
    question: int
    request: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To whoever asked: what the scheduler says."""

    question: int
    answer: object


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseQuestion:
    """To whoever asked: why there is no answer."""

    question: int
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseConnection:
    """End a worker's stream: with an error, or well (None)."""

    connection: int
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseStream:
    """End a scheduler's stream with an error."""

    stream: int
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Have a session recorded; SessionRegistered or RegistrationFailed answers."""

    hello: Hello


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordEnds:
    """Have ends of sessions recorded, however long it takes; EndsRecorded answers."""

    session_ids: tuple[str, ...]


ToWorker = Welcome | ReplyToHeartbeat | Assign | Acknowledge | Cancel | ReportHeld | Drain
ToScheduler = SendOpened | SendHeld | SendUpdates | SendCapacity | SendClosed | SendAttached | SendQuestion
Instruction = ToWorker | ToScheduler | Answer | RefuseQuestion | CloseConnection | CloseStream | Register | RecordEnds


def size_of(frame: ToScheduler) -> int:
    """Return about what a frame takes on the wire, where it can be much."""
    match frame:
        case SendUpdates():
            return frame.updates.size_bytes
        case SendHeld():
            return frame.held.size_bytes
        case _:
            return 0
