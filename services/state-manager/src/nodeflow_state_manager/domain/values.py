"""The values that the state-manager keeps and returns.

Owns their shapes only. Must not know how they travel or where they are stored. Times are Unix milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple


class ExecutionState(IntEnum):
    """Where an execution is in its lifecycle; the numbers are those of `nodeflow.common.v1.ExecutionState`."""

    PENDING = 1
    QUEUED = 2
    RUNNING = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6
    PAUSED = 7


FINAL_STATES: Final = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED})

ENTRY_BYTES: Final = 512
"""About what an entry of a list takes in a message beside what is counted."""


class Chunk(NamedTuple):
    """Consecutive events of one execution from one batch.

    A tuple, because hundreds of thousands pass each minute: it is made once from the message and unpacked into a row.
    """

    execution_id: str
    first_sequence: int
    event_count: int
    data: bytes
    first_offset: int = 0
    """The place of the first event in its shard; set by the log, ignored in an append."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of an execution after the event `sequence`, in the words of its owner."""

    execution_id: str
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """What the index knows of an execution."""

    execution_id: str
    tenant: str
    shard: int
    workflow: str
    revision: str
    state: ExecutionState
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time_ms: int
    finish_time_ms: int | None = None
    request_id: str = ""
    request_digest: bytes = b""
    task_count: int = 0
    finished_task_count: int = 0

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        return ENTRY_BYTES + _size_of(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactUse:
    """An artifact that an event refers to."""

    tenant: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardAppend:
    """What is written to one shard, whole or not at all."""

    shard: int
    fencing_token: int
    expected_offset: int
    chunks: Sequence[Chunk] = ()
    records: Sequence[ExecutionRecord] = ()
    snapshots: Sequence[Snapshot] = ()
    artifacts: Sequence[ArtifactUse] = ()
    last_event_time_ms: int = 0


class RefusalReason(IntEnum):
    """Why the log refuses a part; the numbers are those of the wire."""

    STALE_TOKEN = 1
    WRONG_OFFSET = 2
    WRONG_SEQUENCE = 3
    MISSING_ARTIFACT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A part that was not written."""

    shard: int
    reason: RefusalReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendBatch:
    """What one request appends: at most one part per shard."""

    parts: Sequence[ShardAppend]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShard:
    """A lease as its holder knows it."""

    shard: int
    fencing_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLease:
    """The right to write to a shard, until `expire_time_ms` by the database's clock.

    `last_event_time_ms` is the latest that anybody gave an event of the shard.
    """

    shard: int
    fencing_token: int
    next_offset: int
    expire_time_ms: int
    last_event_time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSlice:
    """Some chunks of one execution, in the order of their sequences.

    `record` and `snapshot` are set in the first slice only; `last` says that no slice follows.
    """

    execution_id: str
    chunks: Sequence[Chunk]
    record: ExecutionRecord | None = None
    snapshot: Snapshot | None = None
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRecord:
    """A revision of a workflow; `create_time_ms` is set by the store, `document` is empty in lists."""

    tenant: str
    name: str
    revision: str
    document: bytes
    content_type: str
    directory: str
    create_time_ms: int = 0

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        return ENTRY_BYTES + len(self.document) + len(self.directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSession:
    """A session that begins, and those of the same worker that it replaces."""

    worker_id: str
    session_id: str
    replaced_session_ids: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A known worker with its sessions that have not ended, oldest first."""

    worker_id: str
    live_session_ids: Sequence[str]
    labels: Mapping[str, str]
    version: str
    register_time_ms: int
    last_session_time_ms: int

    @property
    def size_bytes(self) -> int:
        """About what it takes in a message."""
        return ENTRY_BYTES + _size_of(self.labels) + 40 * len(self.live_session_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecord:
    """A stored artifact; `digest` is `sha256:` and 64 hexadecimal digits."""

    tenant: str
    digest: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Consecutive lines of one attempt; `runs` are theirs, compressed. What they say is not looked at here."""

    tenant: str
    execution_id: str
    task_number: int
    attempt_number: int
    fencing_token: int
    first_line: int
    line_count: int
    runs: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogChunk:
    """A chunk, and its place among all of its execution, from 1."""

    position: int
    chunk: LogChunk


def _size_of(labels: Mapping[str, str]) -> int:
    return sum(len(key) + len(value.encode()) for key, value in labels.items())
