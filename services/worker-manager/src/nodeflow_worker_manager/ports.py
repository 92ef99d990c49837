"""What the driver needs from outside, as protocols.

Owns the shape of these needs. Must not know who meets them. Methods raise NodeflowError.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nodeflow.common.v1 import log_chunk_pb2

from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.workers import KnownWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPage:
    """Known workers by id; an empty token means that there are no more."""

    workers: Sequence[KnownWorker]
    next_page_token: str


class Registry(Protocol):
    """The durable registry of workers and their sessions."""

    async def register_session(self, hello: Hello, timeout_s: float) -> bool:
        """Record a session and the end of those it replaces; say whether the worker is new.

        Repeats itself while nobody answers. Raises IllegalState if the session has ended, Unavailable when time is up.
        """
        ...

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        """Record that sessions ended; repeats itself until it succeeds."""
        ...

    async def live_workers(self) -> list[KnownWorker]:
        """Return all workers with live sessions; repeats itself until it succeeds."""
        ...

    async def list_workers(self, page_size: int, page_token: str, *, live_only: bool, timeout_s: float) -> WorkerPage:
        """Return a page of known workers; InvalidInput for a bad token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactHeader:
    """What is uploaded."""

    tenant: str
    digest: str
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """Where it is."""

    digest: str
    size_bytes: int


class Artifacts(Protocol):
    """The artifact store. Nothing is kept here: bytes pass through."""

    async def upload(
        self, header: ArtifactHeader, data: AsyncIterator[bytes], timeout_s: float | None
    ) -> StoredArtifact:
        """Store bytes; return once they are durable. An error of `data` breaks the upload off."""
        ...

    def download(self, tenant: str, digest: str, timeout_s: float | None) -> AsyncGenerator[bytes, None]:
        """Read bytes in order; NotFound if there are none. To be closed by whoever leaves early."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBatch:
    """Output of attempts. Chunks pass through as they are: taking them apart would only copy them."""

    batch_id: int
    chunks: Sequence[log_chunk_pb2.LogChunk]


class LogStore(Protocol):
    """Where output is kept."""

    def append(self, batches: AsyncGenerator[LogBatch, None]) -> AsyncGenerator[int, None]:
        """Pass batches on; yields the number of each once it is durable, in order, and ends after `batches`."""
        ...
