"""What the driver and the servicers need from outside, on one page: the stores, and the files of artifacts.

Every adapter passes the suite in tests/contract/store. Writes that cannot be made durable raise StoreFailed, and then
nothing of the call is written.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeVar

from nodeflow_shared.errors import Unavailable
from nodeflow_state_manager.domain.filters import Term
from nodeflow_state_manager.domain.paging import Page, Position
from nodeflow_state_manager.domain.values import (
    AppendBatch,
    ArtifactRecord,
    ExecutionRecord,
    ExecutionSlice,
    HeldShard,
    LogChunk,
    Refusal,
    ShardLease,
    StoredLogChunk,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)

B_contra = TypeVar("B_contra", contravariant=True)


class StoreFailed(Unavailable):
    """The store cannot write or read now: the disk is full, the database is locked or damaged."""

    reason = "STORE_FAILED"


class StoreFull(StoreFailed):
    """The store has no room for what was to be written; reads go on, and so do writes once there is room."""

    reason = "DISK_FULL"


class Appends(Protocol[B_contra]):
    """What a group commit needs of a store."""

    async def append(self, batches: Sequence[B_contra]) -> list[list[Refusal]]:
        """Commit batches in one transaction; return the refused parts of each."""
        ...

    async def check_writable(self, room_bytes: int) -> None:
        """Commit something small, and see that there is room for so many bytes more; raises StoreFailed if not."""
        ...


class Store(Protocol):
    """The durable truth. Whatever returns from a write survives the death of the process and of the machine."""

    @property
    def shard_count(self) -> int:
        """How many shards there are; fixed when the database was created."""
        ...

    async def acquire_shards(self, holder: str, shards: Sequence[int], lease_timeout_ms: int) -> list[ShardLease]:
        """Lease those of `shards` (empty: all) that are free, ended, or held by `holder`, each with a higher token."""
        ...

    async def renew_shards(self, holder: str, shards: Sequence[HeldShard], lease_timeout_ms: int) -> list[int]:
        """Extend leases from now on; return the shards that the holder does not hold with that token any more."""
        ...

    async def release_shards(self, holder: str, shards: Sequence[HeldShard]) -> None:
        """Free the shards that the holder holds with these tokens."""
        ...

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        """Commit batches in one transaction; return the refused parts of each. `domain.append` has the rules."""
        ...

    async def check_writable(self, room_bytes: int) -> None:
        """Commit something small, and see that there is room for so many bytes more; raises StoreFailed if not."""
        ...

    def read_open(self, shards: Sequence[HeldShard]) -> AsyncIterator[Sequence[ExecutionSlice]]:
        """Yield all executions of the shards that are not final, in groups of about 1 MiB of slices.

        An execution begins with its record and latest snapshot and goes on with the chunks after it. Raises StaleLease.
        """
        ...

    def read_execution(
        self, execution_id: str, after_sequence: int, *, allow_snapshot: bool
    ) -> AsyncIterator[ExecutionSlice]:
        """Yield the chunks from the one with the event after `after_sequence` on, in one or more slices of about 1 MiB.

        With `allow_snapshot`, a snapshot that is later takes the place of the chunks it covers. Raises NotFound.
        """
        ...

    async def get_executions(self, execution_ids: Sequence[str]) -> list[ExecutionRecord]:
        """Return the entries that exist, in any order."""
        ...

    async def list_executions(
        self, tenant: str, terms: Sequence[Term], after: Position | None, limit: int
    ) -> Page[ExecutionRecord]:
        """Return entries that satisfy all terms, newest first. A position is (create_time_ms, a number)."""
        ...

    async def find_executions(self, tenant: str, prefix: str, limit: int) -> list[ExecutionRecord]:
        """Return entries whose id begins with `prefix` (any, if empty), newest first."""
        ...

    async def create_workflow(self, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        """Store a revision unless it is there; return what is stored, and whether it is new."""
        ...

    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        """Return a revision (of any name, if `name` is empty), or the newest of the name. Raises NotFound."""
        ...

    async def list_workflows(self, tenant: str, name: str, after: Position | None, limit: int) -> Page[WorkflowRecord]:
        """Return the newest revision of each name, by name; or all of one name, newest first.

        A position is (name,), or (a number,).
        """
        ...

    async def register_session(self, session: WorkerSession) -> tuple[WorkerRecord, bool]:
        """Record a session and end those it replaces; return the worker and whether it is new. Raises IllegalState."""
        ...

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """Record that sessions ended."""
        ...

    async def list_workers(self, after: Position | None, limit: int, *, live_only: bool) -> Page[WorkerRecord]:
        """Return workers by id, at position (worker_id,)."""
        ...

    async def put_artifact(self, artifact: ArtifactRecord) -> None:
        """Record that an artifact's bytes are stored durably; one that is known stays as it is."""
        ...

    async def get_artifacts(self, tenant: str, digests: Sequence[str]) -> list[ArtifactRecord]:
        """Return those that are stored, in any order."""
        ...

    async def close(self) -> None:
        """Release everything; nothing may be called any more."""
        ...


class LogStore(Protocol):
    """The output of attempts. Per execution, chunks have positions 1, 2, 3, … in the order of their commits."""

    async def append(self, batches: Sequence[Sequence[LogChunk]]) -> list[list[Refusal]]:
        """Commit chunks in one transaction; nothing is refused.

        A chunk that does not begin after the last stored line of its attempt is there already, and is left out.
        """
        ...

    async def check_writable(self, room_bytes: int) -> None:
        """Commit something small, and see that there is room for so many bytes more; raises StoreFailed if not."""
        ...

    async def last_position(self, tenant: str, execution_id: str) -> int:
        """Return the position of an execution's last chunk, 0 if it has none."""
        ...

    async def read(
        self,
        tenant: str,
        execution_id: str,
        after_position: int,
        *,
        task_number: int | None = None,
        attempt_number: int | None = None,
    ) -> list[StoredLogChunk]:
        """Return about the next MiB of chunks by position, of a task or an attempt if they are given; none at the end.

        All that was committed with a lower position is seen, too: whoever goes on behind the last one misses nothing.
        """
        ...

    async def close(self) -> None:
        """Release everything; nothing may be called any more."""
        ...


class ArtifactFiles(Protocol):
    """The bytes of artifacts, by tenant and digest."""

    async def receive(self, tenant: str, pieces: AsyncIterator[bytes], expected_digest: str) -> tuple[str, int]:
        """Store bytes durably; return their digest and size.

        Raises InvalidInput if the digest is not the expected one (empty: any), QuotaExceeded if there are too many,
        StoreFull if there is no room, and whatever `pieces` raises; nothing stays behind then.
        """
        ...

    async def check_writable(self, room_bytes: int) -> None:
        """See that there is room for so many bytes; raises StoreFailed if not."""
        ...

    def read(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of at most 1 MiB. Raises NotFound."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...
