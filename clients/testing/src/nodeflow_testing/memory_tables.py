"""What the state-manager's store in memory holds: the tables, and what each transaction does to them.

Owns the rules of each write, all deterministic: recovery repeats them. Must not know when they are durable, nor time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nodeflow_shared.errors import IllegalState
from nodeflow_state_manager.domain.append import (
    Behind,
    ChunkRow,
    LogHeads,
    Placement,
    ShardHead,
    by_shard,
)
from nodeflow_state_manager.domain.values import (
    AppendBatch,
    ArtifactRecord,
    Chunk,
    ExecutionRecord,
    HeldShard,
    Refusal,
    ShardAppend,
    ShardLease,
    Snapshot,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)

CHUNKS_PER_SLICE = 256
PIECE_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class Execution:
    """An execution, with all its events."""

    record: ExecutionRecord
    chunks: list[Chunk] = field(default_factory=list)
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class Lease:
    """Who may write to a shard, and until when."""

    holder: str | None = None
    expire_time_ms: int = 0


@dataclass(slots=True)
class Worker:
    """A known worker, with its live sessions."""

    record: WorkerRecord
    live: list[str] = field(default_factory=list)


class Tables:
    """What is stored. Whatever changes it is a method that is given the database's time, in Unix milliseconds.

    See nodeflow_state_manager.ports.Store for what each does.
    """

    def __init__(self, shard_count: int) -> None:
        self.heads = LogHeads(next_key=1)
        self.heads.shards = {
            shard: ShardHead(shard=shard, leased=False, fencing_token=0, next_offset=0) for shard in range(shard_count)
        }
        self.executions: dict[int, Execution] = {}
        self.workflows: list[WorkflowRecord] = []
        self.workers: dict[str, Worker] = {}
        self.artifacts: dict[tuple[str, str], ArtifactRecord] = {}
        self.leases = {shard: Lease() for shard in range(shard_count)}
        self._rows: dict[int, list[ChunkRow]] = {shard: [] for shard in range(shard_count)}
        self._sessions: dict[str, tuple[str, bool]] = {}

    def acquire_shards(
        self, now_ms: int, holder: str, shards: Sequence[int], lease_timeout_ms: int
    ) -> list[ShardLease]:
        granted = []
        for shard in sorted(set(shards) or set(self.leases)):
            lease, head = self.leases[shard], self.heads.shards[shard]
            if lease.holder not in (None, holder) and lease.expire_time_ms > now_ms:
                continue
            lease.holder, lease.expire_time_ms = holder, now_ms + lease_timeout_ms
            head.leased, head.fencing_token = True, head.fencing_token + 1
            granted.append(
                ShardLease(
                    shard=shard,
                    fencing_token=head.fencing_token,
                    next_offset=head.next_offset,
                    expire_time_ms=lease.expire_time_ms,
                    last_event_time_ms=head.last_event_time_ms,
                )
            )
        return granted

    def renew_shards(self, now_ms: int, holder: str, shards: Sequence[HeldShard], lease_timeout_ms: int) -> list[int]:
        expire_time_ms = now_ms + lease_timeout_ms
        lost = []
        for held in shards:
            if self._is_held(holder, held):
                self.leases[held.shard].expire_time_ms = expire_time_ms
            else:
                lost.append(held.shard)
        return sorted(set(lost))

    def release_shards(self, now_ms: int, holder: str, shards: Sequence[HeldShard]) -> None:
        for held in shards:
            if self._is_held(holder, held):
                self.leases[held.shard] = Lease()
                self.heads.shards[held.shard].leased = False

    def seize_shards(self, now_ms: int, shards: Sequence[int]) -> None:
        """End the leases of shards, whoever has them."""
        for shard in shards:
            self.leases[shard] = Lease()
            self.heads.shards[shard].leased = False

    def append(self, now_ms: int, batches: Sequence[AppendBatch]) -> list[list[Refusal]]:
        refusals: list[list[Refusal]] = [[] for _ in batches]
        for number, part in by_shard([batch.parts for batch in batches]):
            refusal = self._append(part)
            if refusal is not None:
                refusals[number].append(refusal)
        return refusals

    def create_workflow(self, now_ms: int, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
        same = (workflow.tenant, workflow.name, workflow.revision)
        for known in self.workflows:
            if (known.tenant, known.name, known.revision) == same:
                return known, False
        self.workflows.append(replace(workflow, create_time_ms=now_ms))
        return self.workflows[-1], True

    def register_session(self, now_ms: int, session: WorkerSession) -> tuple[WorkerRecord, bool]:
        known = self._sessions.get(session.session_id)
        if known is not None and known != (session.worker_id, True):
            raise IllegalState(f"session {session.session_id} has ended", reason="SESSION_ENDED")
        for replaced in session.replaced_session_ids:
            owner, _ = self._sessions.get(replaced, (session.worker_id, False))
            if replaced != session.session_id and owner == session.worker_id:
                self._end(replaced)
                self._sessions[replaced] = (owner, False)
        created = session.worker_id not in self.workers
        if known is None:
            self._begin(now_ms, session)
        return self.worker(session.worker_id), created

    def end_sessions(self, now_ms: int, session_ids: Sequence[str]) -> None:
        for session_id in session_ids:
            self._end(session_id)

    def put_artifact(self, now_ms: int, artifact: ArtifactRecord) -> None:
        self.artifacts.setdefault((artifact.tenant, artifact.digest), artifact)

    def worker(self, worker_id: str) -> WorkerRecord:
        worker = self.workers[worker_id]
        return replace(worker.record, live_session_ids=list(worker.live))

    def _append(self, part: ShardAppend) -> Refusal | None:
        missing = [use for use in part.artifacts if (use.tenant, use.digest) not in self.artifacts]
        match self.heads.judge(part, missing):
            case Placement() as placement:
                self._keep(part, placement)
                return None
            case Behind() as behind:
                rows = [row for row in self._rows[part.shard] if row[1] >= part.expected_offset]
                same = self.heads.same_as_log(part, rows[: len(part.chunks)])
                return None if same else behind.refusal
            case Refusal() as refusal:
                return refusal

    def _keep(self, part: ShardAppend, placement: Placement) -> None:
        for key, record in placement.records:
            known = self.executions.get(key)
            if known is None:
                self.executions[key] = Execution(record=record)
            else:
                known.record = record
        for row, chunk in zip(placement.rows, part.chunks, strict=True):
            self._rows[part.shard].append(row)
            self.executions[row[2]].chunks.append(chunk._replace(first_offset=row[1]))
        for key, snapshot in placement.snapshots:
            known_snapshot = self.executions[key].snapshot
            if known_snapshot is None or snapshot.sequence >= known_snapshot.sequence:
                self.executions[key].snapshot = snapshot

    def _is_held(self, holder: str, held: HeldShard) -> bool:
        token = self.heads.shards[held.shard].fencing_token
        return self.leases[held.shard].holder == holder and token == held.fencing_token

    def _begin(self, now_ms: int, session: WorkerSession) -> None:
        known = self.workers.get(session.worker_id)
        record = WorkerRecord(
            worker_id=session.worker_id,
            live_session_ids=(),
            labels=session.labels,
            version=session.version,
            register_time_ms=known.record.register_time_ms if known else now_ms,
            last_session_time_ms=now_ms,
        )
        live = known.live if known else []
        self.workers[session.worker_id] = Worker(record=record, live=[*live, session.session_id])
        self._sessions[session.session_id] = (session.worker_id, True)

    def _end(self, session_id: str) -> None:
        owner, live = self._sessions.get(session_id, ("", False))
        if live:
            self._sessions[session_id] = (owner, False)
            self.workers[owner].live.remove(session_id)
