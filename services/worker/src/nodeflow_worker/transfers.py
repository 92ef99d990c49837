"""Arguments fetched and large results stored, beside the main stream.

Owns retries and the bound on transfers at once. Decides nothing about attempts: it tells the core how a transfer ended.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import DeadlineExceeded, InvalidInput, NodeflowError, Overloaded, Unavailable
from nodeflow_shared.retry import reconnect_delays
from nodeflow_worker.domain import failures
from nodeflow_worker.domain.events import Prepared, Saved, TransferFailed
from nodeflow_worker.domain.values import (
    INLINE_LIMIT_BYTES,
    JSON,
    MANIFEST,
    Attempt,
    Extra,
    LeftFile,
    Reference,
    State,
    Stored,
)
from nodeflow_worker.ports import Artifacts

MAX_AT_ONCE: Final = 8
MAX_ARGUMENTS_BYTES: Final = 768 * 1024 * 1024
"""What one task can be passed in one frame, with room to spare."""
RETRY_FOR_S: Final = 60.0
"""How long a transfer is tried while its attempt is held."""

DISK_FULL: Final = "DISK_FULL"
"""The reason that the state-manager gives."""

T = TypeVar("T")


class Transfers:
    """Runs transfers as tasks of the driver's group."""

    def __init__(
        self, artifacts: Artifacts, clock: Clock, tell: Callable[[Prepared | Saved | TransferFailed], None]
    ) -> None:
        self._artifacts = artifacts
        self._clock = clock
        self._tell = tell
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def use(self, group: asyncio.TaskGroup) -> None:
        """Run in this group from now on."""
        self._group = group

    def cancel(self) -> None:
        """Stop all transfers."""
        for task in self._tasks:
            task.cancel()

    def fetch(self, attempt: Attempt) -> None:
        """Fetch an attempt's arguments; Prepared or TransferFailed follows."""
        self._begin(self._fetch(attempt), f"worker.fetch.{attempt.execution_id}.{attempt.task_number}")

    def save(self, attempt: Attempt, value: Stored) -> None:
        """Store an attempt's result; Saved or TransferFailed follows."""
        self._begin(self._save(attempt, value), f"worker.save.{attempt.execution_id}.{attempt.task_number}")

    def publish(self, attempt: Attempt, value: bytes | Stored, files: Sequence[LeftFile]) -> None:
        """Store the files that an attempt leaves, and its result if it is large; Saved or TransferFailed follows."""
        work = self._publish(attempt, value, files)
        self._begin(work, f"worker.publish.{attempt.execution_id}.{attempt.task_number}")

    def _begin(self, work: Awaitable[None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(_run(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, attempt: Attempt) -> None:
        extras: list[Extra] = []
        held = 0
        for reference in attempt.references:
            try:
                extra = await self._extra(attempt, reference, held)
                held += len(extra.data) + sum(len(data) for _, data in extra.parts)
                _check_size(held)  # Whoever stored them may have told less.
            except (NodeflowError, ValueError, KeyError, TypeError, RecursionError) as error:
                failure = failures.not_fetched(reference.parameter, str(error), retryable=_may_pass(error))
                self._tell(TransferFailed(attempt=attempt, failure=failure))
                return
            extras.append(extra)
        self._tell(Prepared(attempt=attempt, extras=tuple(extras)))

    async def _extra(self, attempt: Attempt, reference: Reference, held: int) -> Extra:
        """One argument, beside the bytes that are held already. What is too large is not fetched to find that out."""
        value = reference.value
        _check_size(held + (value.size_bytes if value.digest else len(value.data)))
        data = await self._download(attempt, value.digest) if value.digest else value.data
        parts: list[tuple[str, bytes]] = []
        if value.content_type == MANIFEST and b'"artifact"' in data:
            stored = [item["artifact"] for item in json.loads(data) if "artifact" in item]
            sizes: dict[str, int] = {each["digest"]: each.get("size_bytes", 0) for each in stored}
            _check_size(held + len(data) + sum(sizes.values()))
            parts = [(digest, await self._download(attempt, digest)) for digest in sorted(sizes)]
        return Extra(
            parameter=reference.parameter, content_type=value.content_type or JSON, data=data, parts=tuple(parts)
        )

    async def _download(self, attempt: Attempt, digest: str) -> bytes:
        return await self._persist(attempt, lambda: self._artifacts.download(attempt.spec.tenant, digest))

    async def _save(self, attempt: Attempt, value: Stored) -> None:
        try:
            stored = await self._persist(attempt, lambda: self._artifacts.upload(attempt.spec.tenant, value))
        except NodeflowError as error:
            failure = failures.not_stored(len(value.data), error.message, retryable=_may_pass(error))
            self._tell(TransferFailed(attempt=attempt, failure=failure))
        else:
            self._tell(Saved(attempt=attempt, value=stored))

    async def _publish(self, attempt: Attempt, value: bytes | Stored, files: Sequence[LeftFile]) -> None:
        tenant = attempt.spec.tenant
        artifacts: list[tuple[str, Stored]] = []
        name = "output"
        try:
            for file in files:
                name = file.name
                upload = partial(self._artifacts.upload_file, tenant, file.path, file.content_type)
                artifacts.append((name, await self._persist(attempt, upload)))
            if isinstance(value, bytes) and len(value) > INLINE_LIMIT_BYTES:
                stored = Stored(data=value)
                value = await self._persist(attempt, lambda: self._artifacts.upload(tenant, stored))
        except (NodeflowError, OSError) as error:
            failure = failures.artifact_not_stored(name, str(error), retryable=_may_pass(error))
            self._tell(TransferFailed(attempt=attempt, failure=failure))
        else:
            self._tell(Saved(attempt=attempt, value=value, artifacts=tuple(artifacts)))

    async def _persist(self, attempt: Attempt, transfer: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds, fails for good, takes too long, or nobody wants it any more."""
        gives_up_at = self._clock.monotonic() + RETRY_FOR_S
        for delay_s in reconnect_delays():
            try:
                async with self._turns:
                    return await transfer()
            except NodeflowError as error:
                wanted = attempt.state in (State.PREPARING, State.STORING)
                # A full disk holds up the log of events as well: whoever waits for that can wait for this.
                late = self._clock.monotonic() + delay_s > gives_up_at and error.reason != DISK_FULL
                if not _may_pass(error) or not wanted or late:
                    raise
                await asyncio.sleep(delay_s)
        raise AssertionError("delays have no end")


def _check_size(size: int) -> None:
    if size > MAX_ARGUMENTS_BYTES:
        raise InvalidInput(f"all by reference have {size:,} bytes, and {MAX_ARGUMENTS_BYTES:,} at most can be passed")


def _may_pass(error: Exception) -> bool:
    return isinstance(error, Unavailable | DeadlineExceeded | Overloaded)


async def _run(work: Awaitable[None]) -> None:
    await work
