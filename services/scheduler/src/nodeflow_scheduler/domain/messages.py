"""What goes into the core and what comes out of it: plain values.

The driver makes the first and carries out the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from nodeflow_scheduler.domain.admission import NOTHING, Request
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.failures import Failure
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.placement import Key
from nodeflow_scheduler.domain.progress import Draft
from nodeflow_scheduler.domain.values import Artifacts, Stored, Value
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_shared.errors import NodeflowError


class Stopped(NamedTuple):
    """The outcome of an attempt that was stopped on request."""


class Produced(NamedTuple):
    """The outcome of an attempt that leaves files beside its result."""

    output: Value
    artifacts: Artifacts


Outcome = Value | Failure | Stopped | Produced


class Report(NamedTuple):
    """The end of an attempt, as a worker reports it. A tuple because one is made for each task."""

    execution_id: str
    task: int
    attempt: int
    shard: int
    token: int
    result_id: int
    outcome: Outcome


class AttemptRef(NamedTuple):
    """An attempt that a worker names."""

    execution_id: str
    task: int
    attempt: int
    shard: int
    token: int


class Handle(Protocol):
    """Who waits for an answer. The core passes it through; the driver gives the answer."""

    def answer(self, answer: Execution | NodeflowError) -> None:
        """Takes the answer."""


# ------------------------------------------------------------------------- in


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """A submission, checked and compiled."""

    execution_id: str
    shard: int
    tenant: str
    workflow: Workflow
    inputs: bytes
    labels: Mapping[str, str]
    request_id: str
    request_digest: bytes
    handle: Handle
    admitted: Request = NOTHING
    """What was let in for it; nothing, if its execution was known already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """A wish to cancel an execution that is in memory."""

    execution_id: str
    shard: int
    tenant: str
    reason: str
    handle: Handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """What a worker session reports."""

    session_id: str
    started: list[AttemptRef]
    results: list[Report]
    refused: list[AttemptRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """All that a worker session holds."""

    session_id: str
    generation: int
    live: list[AttemptRef]
    results: list[Report]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """A worker session is known from now on."""

    manager: str
    session_id: str
    worker_id: str
    slots: int
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityChanged:
    """The standing bid of a session changed."""

    session_id: str
    slots: int
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed:
    """A session ended, and with it all that it held."""

    session_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerAttached:
    """A worker-manager has named all its sessions."""

    manager: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerLost:
    """A worker-manager is out of reach."""

    manager: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsAcquired:
    """Leases were granted, and what is open in their shards was loaded."""

    leases: list[Lease]
    executions: list[Execution]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsLost:
    """Leases are somebody else's now, or their time is up."""

    shards: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFetched:
    """The bytes of an artifact that a decision waits for; or why they cannot be had."""

    tenant: str
    digest: str
    data: bytes | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactKept:
    """An artifact is in the store now; or why it cannot be."""

    tenant: str
    digest: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentsFailed:
    """The arguments of an attempt could not be computed."""

    execution_id: str
    task: int
    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: something may be due."""


Input = (
    Submit
    | Cancel
    | Updates
    | Held
    | SessionOpened
    | CapacityChanged
    | SessionClosed
    | ManagerAttached
    | ManagerLost
    | ShardsAcquired
    | ShardsLost
    | ArtifactFetched
    | ArtifactKept
    | ArgumentsFailed
    | Tick
)


# ------------------------------------------------------------------------ out


@dataclass(slots=True)
class Lease:
    """A shard that is ours to write to. Changes with each append."""

    shard: int
    token: int
    next_offset: int
    time_ms: int = 0
    """The shard's clock: the time of its last event. It never runs backwards."""


class Reply(NamedTuple):
    """An answer that is given once what it says is committed."""

    shard: int
    handle: Handle
    answer: Execution | NodeflowError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A wish for the bytes of an artifact."""

    tenant: str
    value: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """A wish to have bytes in the artifact store."""

    tenant: str
    value: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """What the index shall know of an execution."""

    execution: Execution
    state: ExecutionState
    task_count: int
    finished_task_count: int


@dataclass(slots=True)
class ShardWrite:
    """What one turn writes to one shard."""

    shard: int
    token: int
    expected_offset: int
    time_ms: int
    drafts: list[Draft] = field(default_factory=list)
    entries: list[IndexEntry] = field(default_factory=list)
    snapshots: list[Execution] = field(default_factory=list)


@dataclass(slots=True)
class Turn:
    """All that one turn of the loop decided. `writes` are appended; the rest takes effect when they are committed.

    Turns are numbered in the order of their decisions.
    """

    number: int
    now_ms: int
    writes: list[ShardWrite] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    acks: list[tuple[str, int, int]] = field(default_factory=list)
    """Session, result id, shard."""
    drafts: dict[str, Draft] = field(default_factory=dict)
    stops: list[AttemptRef] = field(default_factory=list)
    """Attempts that workers hold and that nobody wants."""
    fetches: list[Fetch] = field(default_factory=list)
    """Asked for at once: reading changes nothing."""
    keeps: list[Keep] = field(default_factory=list)
    """Asked for at once: the bytes are addressed by their content."""
    shards_lost: bool = False
    """Told at once: who follows executions of these shards must go on elsewhere."""


@dataclass(slots=True)
class Outgoing:
    """What may be told, now that it is committed."""

    refused: frozenset[int] = frozenset()
    """Shards for which the turn never happened."""
    replies: list[Reply] = field(default_factory=list)
    """Answers to callers."""

    acks: dict[str, list[int]] = field(default_factory=dict)
    """Result ids by session."""
    stops: dict[str, list[AttemptRef]] = field(default_factory=dict)
    """Attempts to stop, by session."""


def key_of(ref: AttemptRef | Report) -> Key:
    """The attempt's name."""
    return (ref[0], ref[1], ref[2])
