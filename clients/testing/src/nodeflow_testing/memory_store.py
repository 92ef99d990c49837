"""The state-manager's store and artifact files in memory, for runs on virtual time; they pass tests/contract/store.

They keep what they keep for as long as the object lives: a state-manager that is built anew on the same objects finds
everything that was acknowledged, as after a restart. Nothing here waits, apart from handing the loop to others once.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import IllegalState, NotFound, QuotaExceeded, StaleLease
from nodeflow_state_manager.domain.append import (
    Behind,
    ChunkRow,
    LogHeads,
    Placement,
    ShardHead,
    by_shard,
    last_sequence,
    stale_holding,
)
from nodeflow_state_manager.domain.filters import Term, matches
from nodeflow_state_manager.domain.names import check_digest, check_tenant, invalid
from nodeflow_state_manager.domain.paging import Page, Position, cut
from nodeflow_state_manager.domain.values import (
    FINAL_STATES,
    AppendBatch,
    ArtifactRecord,
    Chunk,
    ExecutionRecord,
    ExecutionSlice,
    HeldShard,
    Refusal,
    ShardAppend,
    ShardLease,
    Snapshot,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)
from nodeflow_state_manager.ports import StoreFull

CHUNKS_PER_SLICE = 256
PIECE_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class _Execution:
    record: ExecutionRecord
    chunks: list[Chunk] = field(default_factory=list)
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class _Lease:
    holder: str | None = None
    expire_time_ms: int = 0


@dataclass(slots=True)
class _Worker:
    record: WorkerRecord
    live: list[str] = field(default_factory=list)


class MemoryStore:
    """See nodeflow_state_manager.ports.Store. `failing` makes every write fail, as a full disk does."""

    def __init__(self, shard_count: int, clock: Clock) -> None:
        self.failing = False
        self._clock = clock
        self._heads = LogHeads(next_key=1)
        self._heads.shards = {
            shard: ShardHead(shard=shard, leased=False, fencing_token=0, next_offset=0) for shard in range(shard_count)
        }
        self._leases = {shard: _Lease() for shard in range(shard_count)}
        self._rows: dict[int, list[ChunkRow]] = {shard: [] for shard in range(shard_count)}
        self._executions: dict[int, _Execution] = {}
        self._workflows: list[WorkflowRecord] = []
        self._workers: dict[str, _Worker] = {}
        self._sessions: dict[str, tuple[str, bool]] = {}
        self._artifacts: dict[tuple[str, str], ArtifactRecord] = {}

    @property
    def shard_count(self) -> int:
        return len(self._leases)

    async def acquire_shards(self, holder: str, shards: Sequence[int], lease_timeout_ms: int) -> list[ShardLease]:
        await self._write()
        now = self._clock.now_ms()
        granted = []
        for shard in sorted(set(shards) or set(self._leases)):
            lease, head = self._leases[shard], self._heads.shards[shard]
            if lease.holder not in (None, holder) and lease.expire_time_ms > now:
                continue
            lease.holder, lease.expire_time_ms = holder, now + lease_timeout_ms
            head.leased, head.fencing_token = True, head.fencing_token + 1
            granted.append(
                ShardLease(
                    shard=shard,
                    fencing_token=head.fencing_token,
                    next_offset=head.next_offset,
                    expire_time_ms=lease.expire_time_ms,
                )
            )
        return granted

    async def renew_shards(self, holder: str, shards: Sequence[HeldShard], lease_timeout_ms: int) -> list[int]:
        await self._write()
        expire_time_ms = self._clock.now_ms() + lease_timeout_ms
        lost = []
        for held in shards:
            if self._is_held(holder, held):
                self._leases[held.shard].expire_time_ms = expire_time_ms
            else:
                lost.append(held.shard)
        return sorted(set(lost))

    async def release_shards(self, holder: str, shards: Sequence[HeldShard]) -> None:
        await self._write()
        for held in shards:
            if self._is_held(holder, held):
                self._leases[held.shard] = _Lease()
                self._heads.shards[held.shard].leased = False

    async def append(self, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        await self._write()
        refusals: list[list[Refusal]] = [[] for _ in batches]
        for number, part in by_shard([batch.parts for batch in batches]):
            refusal = self._append(part)
            if refusal is not None:
                refusals[number].append(refusal)
        return refusals

    async def check_writable(self, room_bytes: int) -> None:
        await self._write()

    async def read_open(self, shards: Sequence[HeldShard]) -> AsyncIterator[Sequence[ExecutionSlice]]:
        self._check_leases(shards)
        for held in shards:
            for execution in list(self._executions.values()):
                if execution.record.shard == held.shard and execution.record.state not in FINAL_STATES:
                    after = execution.snapshot.sequence if execution.snapshot else 0
                    for piece in _slices(execution, execution.snapshot, after):
                        yield [piece]
                        self._check_leases(shards)

    async def read_execution(
        self, execution_id: str, after_sequence: int, *, allow_snapshot: bool
    ) -> AsyncIterator[ExecutionSlice]:
        head = self._heads.executions.get(execution_id)
        if head is None:
            raise NotFound(f"there is no execution {execution_id}", reason="EXECUTION_NOT_FOUND")
        execution = self._executions[head.key]
        snapshot = execution.snapshot if allow_snapshot else None
        if snapshot is not None and snapshot.sequence <= after_sequence:
            snapshot = None
        for piece in _slices(execution, snapshot, snapshot.sequence if snapshot else after_sequence):
            yield piece

    async def get_executions(self, execution_ids: Sequence[str]) -> list[ExecutionRecord]:
        heads = [self._heads.executions.get(each) for each in execution_ids]
        return [self._executions[head.key].record for head in heads if head is not None]

    async def list_executions(
        self, tenant: str, terms: Sequence[Term], after: Position | None, limit: int
    ) -> Page[ExecutionRecord]:
        found = [(position, record) for position, record in self._newest(tenant) if matches(record, terms)]
        if after is not None:
            found = [(position, record) for position, record in found if position < after]
        return cut([record for _, record in found], [position for position, _ in found], limit)

    async def find_executions(self, tenant: str, prefix: str, limit: int) -> list[ExecutionRecord]:
        return [record for _, record in self._newest(tenant) if record.execution_id.startswith(prefix)][:limit]

    async def create_workflow(self, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        await self._write()
        same = (workflow.tenant, workflow.name, workflow.revision)
        for known in self._workflows:
            if (known.tenant, known.name, known.revision) == same:
                return known, False
        self._workflows.append(replace(workflow, create_time_ms=self._clock.now_ms()))
        return self._workflows[-1], True

    async def get_workflow(self, tenant: str, name: str, revision: str) -> WorkflowRecord:
        for known in reversed(self._workflows):
            if known.tenant == tenant and name in ("", known.name) and revision in ("", known.revision):
                return known
        raise NotFound(f"there is no workflow {name} {revision}", reason="WORKFLOW_NOT_FOUND")

    async def list_workflows(self, tenant: str, name: str, after: Position | None, limit: int) -> Page[WorkflowRecord]:
        numbered = [(key, each) for key, each in enumerate(self._workflows) if each.tenant == tenant]
        found: list[tuple[Position, WorkflowRecord]]
        if name:
            found = [((key,), each) for key, each in reversed(numbered) if each.name == name]
            found = [(position, each) for position, each in found if after is None or position < after]
        else:
            newest = {each.name: each for _, each in numbered}
            found = [((each,), newest[each]) for each in sorted(newest)]
            found = [(position, each) for position, each in found if after is None or position > after]
        return cut([replace(each, document=b"") for _, each in found], [position for position, _ in found], limit)

    async def register_session(self, session: WorkerSession) -> tuple[WorkerRecord, bool]:
        await self._write()
        known = self._sessions.get(session.session_id)
        if known is not None and known != (session.worker_id, True):
            raise IllegalState(f"session {session.session_id} has ended", reason="SESSION_ENDED")
        for replaced in session.replaced_session_ids:
            owner, _ = self._sessions.get(replaced, (session.worker_id, False))
            if replaced != session.session_id and owner == session.worker_id:
                self._end(replaced)
                self._sessions[replaced] = (owner, False)
        created = session.worker_id not in self._workers
        if known is None:
            self._begin(session)
        return self._worker(session.worker_id), created

    async def end_sessions(self, session_ids: Sequence[str]) -> None:
        await self._write()
        for session_id in session_ids:
            self._end(session_id)

    async def list_workers(self, after: Position | None, limit: int, *, live_only: bool) -> Page[WorkerRecord]:
        names = [name for name in sorted(self._workers) if after is None or (name,) > after]
        names = [name for name in names if self._workers[name].live or not live_only]
        return cut([self._worker(name) for name in names], [(name,) for name in names], limit)

    async def put_artifact(self, artifact: ArtifactRecord) -> None:
        await self._write()
        self._artifacts.setdefault((artifact.tenant, artifact.digest), artifact)

    async def get_artifacts(self, tenant: str, digests: Sequence[str]) -> list[ArtifactRecord]:
        found = [self._artifacts.get((tenant, digest)) for digest in digests]
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """Keep everything: the next state-manager on this object is the same one restarted."""

    async def _write(self) -> None:
        """A write lets others run before it happens, as one on a thread does."""
        await asyncio.sleep(0)
        if self.failing:
            raise StoreFull("the database refuses: disk is full", retry_after_s=1.0)

    def _append(self, part: ShardAppend) -> Refusal | None:
        missing = [use for use in part.artifacts if (use.tenant, use.digest) not in self._artifacts]
        match self._heads.judge(part, missing):
            case Placement() as placement:
                self._keep(part, placement)
                return None
            case Behind() as behind:
                rows = [row for row in self._rows[part.shard] if row[1] >= part.expected_offset]
                same = self._heads.same_as_log(part, rows[: len(part.chunks)])
                return None if same else behind.refusal
            case Refusal() as refusal:
                return refusal

    def _keep(self, part: ShardAppend, placement: Placement) -> None:
        for key, record in placement.records:
            known = self._executions.get(key)
            if known is None:
                self._executions[key] = _Execution(record=record)
            else:
                known.record = record
        for row, chunk in zip(placement.rows, part.chunks, strict=True):
            self._rows[part.shard].append(row)
            self._executions[row[2]].chunks.append(chunk._replace(first_offset=row[1]))
        for key, snapshot in placement.snapshots:
            known_snapshot = self._executions[key].snapshot
            if known_snapshot is None or snapshot.sequence >= known_snapshot.sequence:
                self._executions[key].snapshot = snapshot

    def _is_held(self, holder: str, held: HeldShard) -> bool:
        token = self._heads.shards[held.shard].fencing_token
        return self._leases[held.shard].holder == holder and token == held.fencing_token

    def _check_leases(self, shards: Iterable[HeldShard]) -> None:
        for held in shards:
            fault = stale_holding(held, self._heads.shards[held.shard])
            if fault is not None:
                raise StaleLease(fault)

    def _newest(self, tenant: str) -> list[tuple[Position, ExecutionRecord]]:
        found: list[tuple[Position, ExecutionRecord]] = [
            ((execution.record.create_time_ms, key), execution.record)
            for key, execution in self._executions.items()
            if execution.record.tenant == tenant
        ]
        return sorted(found, key=lambda each: each[0], reverse=True)

    def _begin(self, session: WorkerSession) -> None:
        now = self._clock.now_ms()
        known = self._workers.get(session.worker_id)
        record = WorkerRecord(
            worker_id=session.worker_id,
            live_session_ids=(),
            labels=session.labels,
            version=session.version,
            register_time_ms=known.record.register_time_ms if known else now,
            last_session_time_ms=now,
        )
        live = known.live if known else []
        self._workers[session.worker_id] = _Worker(record=record, live=[*live, session.session_id])
        self._sessions[session.session_id] = (session.worker_id, True)

    def _end(self, session_id: str) -> None:
        owner, live = self._sessions.get(session_id, ("", False))
        if live:
            self._sessions[session_id] = (owner, False)
            self._workers[owner].live.remove(session_id)

    def _worker(self, worker_id: str) -> WorkerRecord:
        worker = self._workers[worker_id]
        return replace(worker.record, live_session_ids=list(worker.live))


class MemoryArtifactFiles:
    """See nodeflow_state_manager.ports.ArtifactFiles. `failing` makes every upload fail, as a full disk does."""

    def __init__(self, *, max_bytes: int = 1 << 30) -> None:
        self.failing = False
        self._max_bytes = max_bytes
        self._bytes: dict[tuple[str, str], bytes] = {}

    async def receive(self, tenant: str, pieces: AsyncIterator[bytes], expected_digest: str) -> tuple[str, int]:
        data = bytearray()
        async for piece in pieces:
            data += piece
            if len(data) > self._max_bytes:
                raise QuotaExceeded(f"the artifact is larger than {self._max_bytes} bytes, the limit")
        await self.check_writable(0)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if expected_digest not in ("", digest):
            raise invalid("header.digest", f"the bytes have digest {digest}, not {expected_digest}")
        self._bytes[check_tenant(tenant), digest] = bytes(data)
        return digest, len(data)

    async def check_writable(self, room_bytes: int) -> None:
        if self.failing:
            raise StoreFull("the artifact directory refuses: disk is full", retry_after_s=1.0)

    async def read(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        data = self._bytes.get((check_tenant(tenant), check_digest(digest)))
        if data is None:
            raise NotFound(f"there is no artifact {digest}", reason="ARTIFACT_NOT_FOUND")
        for start in range(0, len(data), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES]

    async def close(self) -> None:
        """Keep everything, as a directory does."""


def _slices(execution: _Execution, snapshot: Snapshot | None, after_sequence: int) -> list[ExecutionSlice]:
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
