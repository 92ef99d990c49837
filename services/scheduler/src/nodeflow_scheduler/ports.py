"""What the scheduler needs from outside, on one page. The adapters are in `adapters/`; `bootstrap.py` picks them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.state_manager.v1 import log_pb2 as store_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2

from nodeflow_scheduler.domain.events import Event, ExecutionFinished
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.expressions import Rendered
from nodeflow_scheduler.domain.messages import AttemptRef, Lease, ShardWrite
from nodeflow_scheduler.domain.placement import Grant
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.domain.workflow import Workflow

# Records of the store are passed from the index to readers as they are; making dataclasses of them would only copy
# them.
ExecutionRecord = store_pb2.ExecutionRecord
WorkflowRecord = store_pb2.WorkflowRecord


Prepared = tuple[Grant, Rendered]
"""An attempt with its arguments, ready to be handed out. One is made for each task: a named tuple costs seven times."""


class EventLog(Protocol):
    """The one truth."""

    def append(self, writes: Sequence[ShardWrite]) -> Awaitable[frozenset[int]]:
        """Hands a batch to the log, and returns at once; batches are committed in the order of the calls.

        The awaitable gives the shards whose part was refused, once all others are durable. A batch is resent until it
        is answered, over any outage.
        """
        ...

    def forget(self, shards: frozenset[int]) -> None:
        """Stops resending parts of shards that are not ours any more; they count as refused."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a request for shards got."""

    leases: list[Lease]
    shard_count: int
    timeout_s: float
    """How long the leases last, from before the request."""


class ShardLeases(Protocol):
    """The right to write to shards."""

    async def acquire(self, shards: Sequence[int]) -> Granted:
        """Asks for shards; for all that can be had, if none are named."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> tuple[frozenset[int], float]:
        """Renews leases; returns the shards that were lost, and how long the others last, in seconds."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Gives leases back."""
        ...


class Compiled(Protocol):
    """Compiled workflows, by revision."""

    async def workflow(self, tenant: str, revision: str) -> Workflow:
        """The workflow at a revision. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChunk:
    """A committed chunk: what happened to an execution in one turn."""

    first_sequence: int
    last_sequence: int
    time_ms: int
    events: Sequence[Event]

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return isinstance(self.events[-1], ExecutionFinished)


class Journal(Protocol):
    """Executions, read back from the log."""

    def open_executions(self, leases: Sequence[Lease], compiled: Compiled) -> AsyncIterator[Execution]:
        """Each execution of the shards that is not in a final state, replayed."""
        ...

    async def execution(self, execution_id: str, compiled: Compiled) -> Execution:
        """One execution, replayed to the end of what is committed. Raises NotFound."""
        ...

    def chunks(self, execution_id: str, after_sequence: int) -> AsyncIterator[LoggedChunk]:
        """The committed chunks of an execution from the one that holds the event after a sequence. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSlice:
    """The next part of an execution's log, as it is stored; `wire/export.py` opens it."""

    record: ExecutionRecord | None
    """Its entry in the index, with the first part."""
    chunks: Sequence[store_pb2.Chunk]


class Archive(Protocol):
    """Executions as they are stored, for those who want no more than that."""

    def slices(self, execution_id: str, after_sequence: int) -> AsyncIterator[StoredSlice]:
        """The committed log of an execution after a sequence. Raises NotFound."""
        ...


class Catalogue(Protocol):
    """The index of executions, and the store of workflow revisions."""

    async def records(self, execution_ids: Sequence[str]) -> Mapping[str, ExecutionRecord]:
        """Entries of the index by id; unknown ids are left out."""
        ...

    async def find(self, tenant: str, prefix: str) -> list[ExecutionRecord]:
        """Executions whose id begins with a prefix, or the newest for `@latest`."""
        ...

    async def list_executions(
        self, tenant: str, page_size: int, page_token: str, filter_text: str
    ) -> tuple[list[ExecutionRecord], str]:
        """A page of the index, newest first, and the token of the next."""
        ...

    async def create_workflow(self, record: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        """Stores a revision; tells whether it is new."""
        ...

    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        """A revision, or the newest of a name. Raises NotFound."""
        ...

    async def list_workflows(
        self, tenant: str, page_size: int, page_token: str, name: str
    ) -> tuple[list[WorkflowRecord], str]:
        """A page of workflows, and the token of the next."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a caller says of the bytes that follow; both may be empty."""

    digest: str
    content_type: str


class Artifacts(Protocol):
    """Bytes by digest."""

    async def keep(self, tenant: str, value: Stored) -> None:
        """Stores the bytes of a value under its digest."""
        ...

    async def fetch(self, tenant: str, digest: str, limit_bytes: int) -> bytes:
        """The bytes of an artifact. Raises NotFound, or InvalidInput when there are more than the limit."""
        ...

    async def missing(self, tenant: str, digests: Collection[str]) -> set[str]:
        """Which of some artifacts are not stored. The digests are well formed."""
        ...

    def stream(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        """The bytes of an artifact, piece by piece. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSelection:
    """Which output to read."""

    tenant: str
    execution_id: str
    after_position: int = 0
    from_end: bool = False
    """Begin behind what is stored now, instead."""
    task_number: int | None = None
    attempt_number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogs:
    """Chunks of output with their positions, and where to go on. They are as they travel; `wire/logs.py` opens them."""

    chunks: Sequence[tuple[int, log_chunk_pb2.LogChunk]]
    last_position: int


class Logs(Protocol):
    """What attempts wrote."""

    def read(self, selection: LogSelection, *, follow: bool) -> AsyncGenerator[StoredLogs, None]:
        """What is stored, in order, each once; with `follow` also what is stored later, without end.

        What comes first tells where the reading begins. A store that is away for a moment is waited for.
        """
        ...

    async def flush(self, timeout_s: float) -> bool:
        """Waits until all that attempts have written by now is stored; False if that was not so in time."""
        ...


class Uploads(Protocol):
    """Bytes that callers store."""

    async def upload(self, tenant: str, upload: Upload, data: AsyncIterator[bytes], timeout_s: float | None) -> Stored:
        """Stores bytes as they come. Raises InvalidInput when they do not fit their digest."""
        ...

    async def missing(self, tenant: str, digests: Collection[str]) -> set[str]:
        """Those of some artifacts that are not stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a worker asks, and the worker-manager that passed it on. It is as it travels; `answering.py` reads it."""

    manager: str
    attachment: int
    """Over which of our streams to that one: its numbers are its own, and begin anew when it does."""
    message: manager_pb2.DependencyQuestion


class Workers(Protocol):
    """The worker-managers, and through them the workers.

    Nothing here waits: what cannot be delivered is learned from the next report.
    """

    def claim(self, leases: Sequence[Lease]) -> None:
        """Tells every worker-manager anew which shards are ours, and so asks for all that workers hold."""
        ...

    def assign(self, manager: str, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        """Hands out attempts."""
        ...

    def acknowledge(self, manager: str, acks: Mapping[str, list[int]]) -> None:
        """Tells sessions which results are committed."""
        ...

    def stop(self, manager: str, stops: Mapping[str, list[AttemptRef]]) -> None:
        """Tells sessions which attempts to stop."""
        ...

    def answer(self, question: Question, answer: manager_pb2.DependencyAnswer) -> None:
        """Answers a question. One that came over an earlier stream is nobody's any more, and the answer is dropped."""
        ...
