"""The state-manager's store in memory, on a simulated disk, for runs on virtual time; it passes tests/contract/store.

Owns the port, and when a transaction counts. What is stored is the tables'; what survives a crash is the disk's.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError, NotFound, StaleLease
from nodeflow_state_manager.domain.append import last_sequence, stale_holding
from nodeflow_state_manager.domain.filters import Term, matches
from nodeflow_state_manager.domain.paging import Page, Position, cut
from nodeflow_state_manager.domain.values import (
    FINAL_STATES,
    AppendBatch,
    ArtifactRecord,
    ExecutionRecord,
    ExecutionSlice,
    HeldShard,
    Refusal,
    ShardLease,
    Snapshot,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)
from nodeflow_state_manager.ports import StoreFull
from nodeflow_testing.memory_tables import Execution, Tables
from nodeflow_testing.simulated_disk import Disk, DiskFull, Journal

P = ParamSpec("P")
T = TypeVar("T")

# Any: the arguments of a method of Tables.
Transaction = tuple[str, int, tuple[Any, ...]]
"""A method of Tables, the database's time in Unix milliseconds, and its further arguments."""

CHUNKS_PER_SLICE: Final = 256


class MemoryStore:
    """See nodeflow_state_manager.ports.Store. Built on a disk that has one already, it finds what recovery finds."""

    def __init__(self, shard_count: int, clock: Clock, *, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.tables = Tables(shard_count)
        self._clock = clock
        self._journal: Journal[Transaction] = self.disk.open("events")
        for transaction in self._journal.recover():
            with suppress(NodeflowError):  # what was refused then is refused again
                self._act(transaction)

    @property
    def shard_count(self) -> int:
        return len(self.tables.leases)

    async def acquire_shards(self, holder: str, shards: Sequence[int], lease_timeout_ms: int) -> list[ShardLease]:
        return await self._commit(Tables.acquire_shards, holder, shards, lease_timeout_ms)

    async def renew_shards(self, holder: str, shards: Sequence[HeldShard], lease_timeout_ms: int) -> list[int]:
        return await self._commit(Tables.renew_shards, holder, shards, lease_timeout_ms)

    async def release_shards(self, holder: str, shards: Sequence[HeldShard]) -> None:
        await self._commit(Tables.release_shards, holder, shards)

    def seize_shards(self, shards: Sequence[int]) -> bool:
        """End the leases of shards, whoever has them: the next to ask gets them, with a higher token.

        Comes to nothing, and says so, while a transaction is under way or the disk is full.
        """
        name = Tables.seize_shards.__name__
        return self._journal.commit_at_once(lambda: (name, self._clock.now_ms(), (shards,)), self._act)

    def shards_of(self, holder: str) -> list[int]:
        """Return the shards whose lease a holder had last."""
        return [shard for shard, lease in self.tables.leases.items() if lease.holder == holder]

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        return await self._commit(Tables.append, batches)

    async def create_workflow(self, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        return await self._commit(Tables.create_workflow, workflow)

    async def register_session(self, session: WorkerSession) -> tuple[WorkerRecord, bool]:
        return await self._commit(Tables.register_session, session)

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        await self._commit(Tables.end_sessions, session_ids)

    async def put_artifact(self, artifact: ArtifactRecord) -> None:
        await self._commit(Tables.put_artifact, artifact)

    async def check_writable(self, room_bytes: int) -> None:
        try:
            await self._journal.require_room()
        except DiskFull:
            raise _full() from None

    async def read_open(self, shards: Sequence[HeldShard]) -> AsyncIterator[Sequence[ExecutionSlice]]:
        self._check_leases(shards)
        for held in shards:
            for execution in list(self.tables.executions.values()):
                if execution.record.shard == held.shard and execution.record.state not in FINAL_STATES:
                    after = execution.snapshot.sequence if execution.snapshot else 0
                    for piece in _slices(execution, execution.snapshot, after):
                        yield [piece]
                        self._check_leases(shards)

    async def read_execution(
        self, execution_id: str, after_sequence: int, *, allow_snapshot: bool
    ) -> AsyncIterator[ExecutionSlice]:
        head = self.tables.heads.executions.get(execution_id)
        if head is None:
            raise NotFound(f"there is no execution {execution_id}", reason="EXECUTION_NOT_FOUND")
        execution = self.tables.executions[head.key]
        snapshot = execution.snapshot if allow_snapshot else None
        if snapshot is not None and snapshot.sequence <= after_sequence:
            snapshot = None
        for piece in _slices(execution, snapshot, snapshot.sequence if snapshot else after_sequence):
            yield piece

    async def get_executions(self, execution_ids: Sequence[str]) -> list[ExecutionRecord]:
        heads = [self.tables.heads.executions.get(each) for each in execution_ids]
        return [self.tables.executions[head.key].record for head in heads if head is not None]

    async def list_executions(
        self, tenant: str, terms: Sequence[Term], after: Position | None, limit: int
    ) -> Page[ExecutionRecord]:
        found = [(position, record) for position, record in self._newest(tenant) if matches(record, terms)]
        if after is not None:
            found = [(position, record) for position, record in found if position < after]
        return cut([record for _, record in found], [position for position, _ in found], limit)

    async def find_executions(self, tenant: str, prefix: str, limit: int) -> list[ExecutionRecord]:
        return [record for _, record in self._newest(tenant) if record.execution_id.startswith(prefix)][:limit]

    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        for known in reversed(self.tables.workflows):
            if known.tenant == tenant and name in ("", known.name) and revision in ("", known.revision):
                return known
        raise NotFound(f"there is no workflow {name} {revision}", reason="WORKFLOW_NOT_FOUND")

    async def list_workflows(self, tenant: str, name: str, after: Position | None, limit: int) -> Page[WorkflowRecord]:
        numbered = [(key, each) for key, each in enumerate(self.tables.workflows) if each.tenant == tenant]
        found: list[tuple[Position, WorkflowRecord]]
        if name:
            found = [((key,), each) for key, each in reversed(numbered) if each.name == name]
            found = [(position, each) for position, each in found if after is None or position < after]
        else:
            newest = {each.name: each for _, each in numbered}
            found = [((each,), newest[each]) for each in sorted(newest)]
            found = [(position, each) for position, each in found if after is None or position > after]
        return cut([replace(each, document=b"") for _, each in found], [position for position, _ in found], limit)

    async def list_workers(self, after: Position | None, limit: int, *, live_only: bool) -> Page[WorkerRecord]:
        names = [name for name in sorted(self.tables.workers) if after is None or (name,) > after]
        names = [name for name in names if self.tables.workers[name].live or not live_only]
        return cut([self.tables.worker(name) for name in names], [(name,) for name in names], limit)

    async def get_artifacts(self, tenant: str, digests: Sequence[str]) -> list[ArtifactRecord]:
        found = [self.tables.artifacts.get((tenant, digest)) for digest in digests]
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """Keep everything: the next state-manager on this object is the same one restarted."""

    def _check_leases(self, shards: Iterable[HeldShard]) -> None:
        for held in shards:
            fault = stale_holding(held, self.tables.heads.shards[held.shard])
            if fault is not None:
                raise StaleLease(fault)

    def _newest(self, tenant: str) -> list[tuple[Position, ExecutionRecord]]:
        found: list[tuple[Position, ExecutionRecord]] = [
            ((execution.record.create_time_ms, key), execution.record)
            for key, execution in self.tables.executions.items()
            if execution.record.tenant == tenant
        ]
        return sorted(found, key=lambda each: each[0], reverse=True)

    async def _commit(
        self, operation: Callable[Concatenate[Tables, int, P], T], *arguments: P.args, **_: P.kwargs
    ) -> T:
        """Do something in a transaction, durable when this returns. Raises StoreFull, and what the tables raise."""
        name = operation.__name__
        try:
            # The time is the transaction's, which may have waited for others.
            answer: T = await self._journal.commit(lambda: (name, self._clock.now_ms(), arguments), self._act)
        except DiskFull:
            raise _full() from None
        return answer

    def _act(self, transaction: Transaction) -> Any:  # noqa: ANN401  # whatever the operation returns
        name, now_ms, arguments = transaction
        return getattr(self.tables, name)(now_ms, *arguments)


def _full() -> StoreFull:
    return StoreFull("the database refuses: database or disk is full", retry_after_s=1.0)


def _slices(execution: Execution, snapshot: Snapshot | None, after_sequence: int) -> list[ExecutionSlice]:
    chunks = [chunk for chunk in execution.chunks if last_sequence(chunk) > after_sequence]
    groups = [chunks[start : start + CHUNKS_PER_SLICE] for start in range(0, len(chunks), CHUNKS_PER_SLICE)] or [[]]
    return [
        ExecutionSlice(
            execution_id=execution.record.execution_id,
            chunks=group,
            record=execution.record if number == 0 else None,
            snapshot=snapshot if number == 0 else None,
            last=number == len(groups) - 1,
        )
        for number, group in enumerate(groups)
    ]
