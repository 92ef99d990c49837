"""What the core is told: one value per thing that can happen.

Owns the vocabulary of input. `connection` numbers a worker's stream, `stream` a scheduler's; no number is used twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeflow_worker_manager.domain.reports import Assignments, Held, Updates
from nodeflow_worker_manager.domain.sessions import Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """How a worker introduces itself."""

    worker_id: str
    session_id: str
    capacity: Capacity
    replaced_session_ids: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A session that the state-manager knew at our start."""

    worker_id: str
    session_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsLoaded:
    """We started; these sessions may still hold attempts."""

    sessions: tuple[LiveSession, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReceived:
    """A worker opened a stream."""

    connection: int
    hello: Hello


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRegistered:
    """The state-manager recorded a session."""

    session_id: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationFailed:
    """The state-manager did not record a session: it has ended, or nobody answered in time."""

    session_id: str
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class EndsRecorded:
    """The state-manager recorded that sessions ended."""

    session_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A worker's stream is over."""

    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReceived:
    """A sign of life."""

    connection: int
    beat: int
    capacity: Capacity
    draining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldReceived:
    """A worker reported all that it holds."""

    connection: int
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatesReceived:
    """A worker reported what became of attempts."""

    connection: int
    updates: Updates


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodbyeReceived:
    """A worker leaves."""

    connection: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerAttached:
    """A scheduler opened a stream."""

    stream: int
    scheduler_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsClaimed:
    """A scheduler owns shards: fencing tokens by shard."""

    stream: int
    tokens: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsReleased:
    """A scheduler owns shards no longer."""

    stream: int
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentsReceived:
    """A scheduler hands attempts to a session; `generation` is that of the last report which it has read."""

    stream: int
    session_id: str
    generation: int
    batch: Assignments


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgementReceived:
    """A scheduler committed results; `acknowledgement` is passed on unread."""

    session_id: str
    acknowledgement: object


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationReceived:
    """A scheduler stops attempts; `cancellation` is passed on unread."""

    session_id: str
    cancellation: object


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLost:
    """A scheduler's stream is over."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAsked:
    """A worker asks the owner of a shard about an attempt; `request` is passed on unread. No number is used twice."""

    question: int
    session_id: str
    shard: int
    request: object


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionAnswered:
    """A scheduler answers a question; `answer` is passed on unread."""

    stream: int
    question: int
    answer: object


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionDropped:
    """Nobody waits for an answer any more."""

    question: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested:
    """Someone wants a worker to finish and leave."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time went on."""


Event = (
    SessionsLoaded
    | HelloReceived
    | SessionRegistered
    | RegistrationFailed
    | EndsRecorded
    | WorkerLost
    | HeartbeatReceived
    | HeldReceived
    | UpdatesReceived
    | GoodbyeReceived
    | SchedulerAttached
    | ShardsClaimed
    | ShardsReleased
    | AssignmentsReceived
    | AcknowledgementReceived
    | CancellationReceived
    | SchedulerLost
    | QuestionAsked
    | QuestionAnswered
    | QuestionDropped
    | DrainRequested
    | Tick
)
