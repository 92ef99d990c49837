"""Leases, workflows, workers and artifacts on SQLite: everything beside the log and the index.

Owns their statements and what they mean together. Must not know threads, nor who begins and commits.
"""

import json
from collections.abc import Sequence

from sqlalchemy import Connection

from nodeflow_shared.errors import IllegalState, NotFound
from nodeflow_state_manager.adapters import statements as sql
from nodeflow_state_manager.adapters.sqlite_append import MAX_MARKS
from nodeflow_state_manager.adapters.sqlite_reads import Row
from nodeflow_state_manager.domain.paging import Page, Position, cut
from nodeflow_state_manager.domain.values import (
    ArtifactRecord,
    HeldShard,
    ShardLease,
    WorkerRecord,
    WorkerSession,
    WorkflowRecord,
)

# Above every key: lists that go down begin here.
MAX_KEY = (1 << 63) - 1


def create_shards(connection: Connection, count: int) -> int:
    """Make the shards of a new database; return how many there are, which in an old one may be another number."""
    found = int(connection.exec_driver_sql(sql.COUNT_SHARDS).scalar_one())
    if not found:
        connection.exec_driver_sql(sql.CREATE_SHARD, [(shard,) for shard in range(count)])
    return found or count


def acquire_shards(connection: Connection, holder: str, shards: Sequence[int], timeout_ms: int) -> list[ShardLease]:
    """Grant what can be granted by the database's clock."""
    now = _now_ms(connection)
    wanted = frozenset(shards)
    leases = [
        ShardLease(
            shard=shard,
            fencing_token=token + 1,
            next_offset=offset,
            expire_time_ms=now + timeout_ms,
            last_event_time_ms=time_ms,
        )
        for shard, held_by, token, expire, offset, time_ms in connection.exec_driver_sql(sql.READ_SHARDS)
        if (not wanted or shard in wanted) and (held_by is None or held_by == holder or expire <= now)
    ]
    _grant(connection, holder, leases)
    return leases


def renew_shards(connection: Connection, holder: str, held: Sequence[HeldShard], timeout_ms: int) -> list[int]:
    """Extend what is still the holder's, even if it has just ended; return the rest."""
    expire = _now_ms(connection) + timeout_ms
    current = {row[0]: row for row in connection.exec_driver_sql(sql.READ_SHARDS)}
    kept = [each for each in held if _is_held(current[each.shard], holder, each)]
    leases = [
        ShardLease(shard=each.shard, fencing_token=each.fencing_token, next_offset=0, expire_time_ms=expire)
        for each in kept
    ]
    _grant(connection, holder, leases)
    return sorted({each.shard for each in held} - {each.shard for each in kept})


def release_shards(connection: Connection, holder: str, held: Sequence[HeldShard]) -> None:
    """Free what is still the holder's."""
    current = {row[0]: row for row in connection.exec_driver_sql(sql.READ_SHARDS)}
    freed = [(each.shard,) for each in held if _is_held(current[each.shard], holder, each)]
    if freed:
        connection.exec_driver_sql(sql.FREE_SHARD, freed)


def create_workflow(connection: Connection, workflow: WorkflowRecord) -> tuple[WorkflowRecord, bool]:
    """Store a revision unless it is there."""
    arguments = (
        workflow.tenant,
        workflow.name,
        workflow.revision,
        workflow.document,
        workflow.content_type,
        workflow.directory,
    )
    created = connection.exec_driver_sql(sql.CREATE_WORKFLOW, arguments).rowcount == 1
    return get_workflow(connection, workflow.tenant, workflow.name, workflow.revision), created


def get_workflow(connection: Connection, tenant: str, name: str, revision: str) -> WorkflowRecord:
    """Return a revision, or the newest of a name; raises NotFound."""
    if not revision:
        row = connection.exec_driver_sql(sql.READ_NEWEST_REVISION, (tenant, name)).first()
    elif name:
        row = connection.exec_driver_sql(sql.READ_REVISION, (tenant, name, revision)).first()
    else:
        row = connection.exec_driver_sql(sql.READ_REVISION_OF_ANY, (tenant, revision)).first()
    if row is None:
        what = " ".join(part for part in (name, f"revision {revision}" if revision else "") if part)
        raise NotFound(f"there is no workflow {what}", reason="WORKFLOW_NOT_FOUND")
    return _workflow(row)


def list_workflows(
    connection: Connection, tenant: str, name: str, after: Position | None, limit: int
) -> Page[WorkflowRecord]:
    """Return the newest revision of each name, or all of one name."""
    if name:
        before = after[0] if after else MAX_KEY
        rows = connection.exec_driver_sql(sql.LIST_REVISIONS, (tenant, name, before, limit + 1)).all()
        return cut([_workflow(row) for row in rows], [(row[-1],) for row in rows], limit)
    begin = after[0] if after else ""
    rows = connection.exec_driver_sql(sql.LIST_NEWEST_REVISIONS, (tenant, begin, limit + 1)).all()
    return cut([_workflow(row) for row in rows], [(row[1],) for row in rows], limit)


def register_session(connection: Connection, session: WorkerSession) -> tuple[WorkerRecord, bool]:
    """Record a session and end those it replaces; raises IllegalState if it has ended already."""
    run = connection.exec_driver_sql
    known = run(sql.READ_SESSION, (session.session_id,)).first()
    if known is not None and (known[0] != session.worker_id or known[1] is not None):
        fault = "has ended" if known[0] == session.worker_id else f"belongs to worker {known[0]}"
        raise IllegalState(f"session {session.session_id} {fault}; begin a new one", reason="SESSION_ENDED")
    replaced = [(each, session.worker_id) for each in session.replaced_session_ids if each != session.session_id]
    if replaced:
        run(sql.REPLACE_SESSION, replaced)
    created = run(sql.READ_WORKER, (session.worker_id,)).first() is None
    if known is None:
        run(sql.PUT_WORKER, (session.worker_id, json.dumps(dict(session.labels)), session.version))
        run(sql.BEGIN_SESSION, (session.session_id, session.worker_id))
    row = run(sql.READ_WORKER, (session.worker_id,)).one()
    return _workers(connection, [row])[0], created


def end_sessions(connection: Connection, session_ids: Sequence[str]) -> None:
    """Record that sessions ended."""
    if session_ids:
        connection.exec_driver_sql(sql.END_SESSION, [(each,) for each in session_ids])


def list_workers(connection: Connection, after: Position | None, limit: int, *, live_only: bool) -> Page[WorkerRecord]:
    """Return a page of workers by id."""
    statement = sql.LIST_LIVE_WORKERS if live_only else sql.LIST_WORKERS
    rows = connection.exec_driver_sql(statement, (after[0] if after else "", limit + 1)).all()
    return cut(_workers(connection, rows), [(row[0],) for row in rows], limit)


def put_artifact(connection: Connection, artifact: ArtifactRecord) -> None:
    """Record an artifact unless it is known."""
    arguments = (artifact.tenant, artifact.digest, artifact.size_bytes, artifact.content_type)
    connection.exec_driver_sql(sql.PUT_ARTIFACT, arguments)


def get_artifacts(connection: Connection, tenant: str, digests: Sequence[str]) -> list[ArtifactRecord]:
    """Return those that are stored."""
    found: list[ArtifactRecord] = []
    for start in range(0, len(digests), MAX_MARKS):
        some = digests[start : start + MAX_MARKS]
        rows = connection.exec_driver_sql(sql.with_marks(sql.READ_ARTIFACTS, len(some)), (tenant, *some))
        found.extend(
            ArtifactRecord(tenant=row[0], digest=row[1], size_bytes=row[2], content_type=row[3]) for row in rows
        )
    return found


def _now_ms(connection: Connection) -> int:
    return int(connection.exec_driver_sql(sql.READ_CLOCK).scalar_one())


def _is_held(row: Row, holder: str, held: HeldShard) -> bool:
    return bool(row[1] == holder and row[2] == held.fencing_token)


def _grant(connection: Connection, holder: str, leases: Sequence[ShardLease]) -> None:
    rows = [(holder, lease.fencing_token, lease.expire_time_ms, lease.shard) for lease in leases]
    if rows:
        connection.exec_driver_sql(sql.GRANT_SHARD, rows)


def _workflow(row: Row) -> WorkflowRecord:
    return WorkflowRecord(
        tenant=row[0],
        name=row[1],
        revision=row[2],
        document=row[3],
        content_type=row[4],
        directory=row[5],
        create_time_ms=row[6],
    )


def _workers(connection: Connection, rows: Sequence[Row]) -> list[WorkerRecord]:
    sessions: dict[str, list[str]] = {row[0]: [] for row in rows}
    names = tuple(sessions)
    for start in range(0, len(names), MAX_MARKS):
        some = names[start : start + MAX_MARKS]
        statement = sql.with_marks(sql.READ_LIVE_SESSIONS, len(some))
        for worker_id, session_id in connection.exec_driver_sql(statement, some):
            sessions[worker_id].append(session_id)
    return [
        WorkerRecord(
            worker_id=row[0],
            live_session_ids=sessions[row[0]],
            labels=json.loads(row[1]),
            version=row[2],
            register_time_ms=row[3],
            last_session_time_ms=row[4],
        )
        for row in rows
    ]
