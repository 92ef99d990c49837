"""The SQL of the SQLite store, each statement with what it does.

Owns text only. Written out, not built: these run per batch, and what they cost is in their text.
"""

# ruff: noqa: S608  -- text is composed of constants of this file only; values are parameters

from typing import Final

# The database's clock, in Unix milliseconds. (unixepoch('subsec') needs SQLite 3.42; julianday is in all of them.)
NOW_MS: Final = "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"

READ_CLOCK: Final = f"SELECT {NOW_MS}"

# Shards and leases.
COUNT_SHARDS: Final = "SELECT count(*) FROM shards"
CREATE_SHARD: Final = (
    "INSERT INTO shards (shard, holder, fencing_token, expire_time_ms, next_offset) VALUES (?, NULL, 0, 0, 0)"
)
READ_SHARDS: Final = (
    "SELECT shard, holder, fencing_token, expire_time_ms, next_offset, last_event_time_ms FROM shards ORDER BY shard"
)
GRANT_SHARD: Final = "UPDATE shards SET holder = ?, fencing_token = ?, expire_time_ms = ? WHERE shard = ?"
FREE_SHARD: Final = "UPDATE shards SET holder = NULL, expire_time_ms = 0 WHERE shard = ?"
ADVANCE_SHARD: Final = "UPDATE shards SET next_offset = ?, last_event_time_ms = ? WHERE shard = ?"
# A write that changes nothing but the file: what a full disk refuses too.
TOUCH: Final = "UPDATE shards SET expire_time_ms = expire_time_ms WHERE shard = 0"

# The hot path.
APPEND_CHUNK: Final = (
    "INSERT INTO chunks (shard, first_offset, execution_key, first_sequence, event_count, data)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
READ_LOG_FROM: Final = (
    "SELECT shard, first_offset, execution_key, first_sequence, event_count, data FROM chunks"
    " WHERE shard = ? AND first_offset >= ? ORDER BY first_offset LIMIT ?"
)
NEXT_EXECUTION_KEY: Final = "SELECT coalesce(max(key), 0) + 1 FROM executions"
# The ends of executions; {marks} takes as many marks as there are ids.
READ_HEADS: Final = (
    "SELECT execution_id, key, shard, coalesce((SELECT first_sequence + event_count - 1 FROM chunks"
    " WHERE execution_key = key ORDER BY first_sequence DESC LIMIT 1), 0)"
    " FROM executions WHERE execution_id IN ({marks})"
)
PUT_EXECUTION: Final = (
    "INSERT INTO executions (key, execution_id, tenant, shard, workflow, revision, state, labels, create_time_ms,"
    " finish_time_ms, request_id, request_digest, task_count, finished_task_count)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET workflow = excluded.workflow, revision = excluded.revision,"
    " state = excluded.state, labels = excluded.labels, create_time_ms = excluded.create_time_ms,"
    " finish_time_ms = excluded.finish_time_ms, request_id = excluded.request_id,"
    " request_digest = excluded.request_digest, task_count = excluded.task_count,"
    " finished_task_count = excluded.finished_task_count"
)
DROP_LABELS: Final = "DELETE FROM execution_labels WHERE execution_key = ?"
PUT_LABEL: Final = (
    "INSERT INTO execution_labels (execution_key, name, value) VALUES (?, ?, ?)"
    " ON CONFLICT (execution_key, name) DO UPDATE SET value = excluded.value"
)
PUT_SNAPSHOT: Final = (
    "INSERT INTO snapshots (execution_key, sequence, data) VALUES (?, ?, ?)"
    " ON CONFLICT (execution_key) DO UPDATE SET sequence = excluded.sequence, data = excluded.data"
    " WHERE excluded.sequence >= sequence"
)

# Reading executions. Every list of columns ends with the key: it is part of positions.
_RECORD: Final = (
    "execution_id, tenant, shard, workflow, revision, state, labels, create_time_ms, finish_time_ms, request_id,"
    " request_digest, task_count, finished_task_count, key"
)
READ_OPEN: Final = (
    f"SELECT {_RECORD} FROM executions WHERE shard = ? AND state NOT IN (4, 5, 6) AND key > ? ORDER BY key LIMIT ?"
)
READ_EXECUTION: Final = f"SELECT {_RECORD} FROM executions WHERE execution_id = ?"
READ_EXECUTIONS: Final = f"SELECT {_RECORD} FROM executions WHERE execution_id IN ({{marks}})"
# {where} takes further conditions.
LIST_EXECUTIONS: Final = (
    f"SELECT {_RECORD} FROM executions WHERE tenant = ?{{where}} ORDER BY create_time_ms DESC, key DESC LIMIT ?"
)
AFTER_POSITION: Final = "(create_time_ms, key) < (?, ?)"
HAS_LABEL: Final = (
    "EXISTS (SELECT 1 FROM execution_labels WHERE name = ? AND value = ? AND execution_key = executions.key)"
)
BEGINS_WITH: Final = "execution_id >= ? AND execution_id < ?"
READ_SNAPSHOT: Final = "SELECT sequence, data FROM snapshots WHERE execution_key = ?"
# From the chunk that holds the event after a sequence: the last one that begins at or before it, and all that follow.
READ_CHUNKS: Final = (
    "SELECT first_sequence, event_count, data, first_offset FROM chunks WHERE execution_key = ?"
    " AND first_sequence >= coalesce((SELECT max(first_sequence) FROM chunks"
    " WHERE execution_key = ? AND first_sequence <= ? + 1), 0)"
    " AND first_sequence + event_count > ? + 1 ORDER BY first_sequence LIMIT ?"
)

# Workflows.
_WORKFLOW: Final = "tenant, name, revision, document, content_type, directory, create_time_ms"
CREATE_WORKFLOW: Final = (
    f"INSERT INTO workflows ({_WORKFLOW}) VALUES (?, ?, ?, ?, ?, ?, {NOW_MS})"
    " ON CONFLICT (tenant, name, revision) DO NOTHING"
)
READ_REVISION: Final = f"SELECT {_WORKFLOW} FROM workflows WHERE tenant = ? AND name = ? AND revision = ?"
READ_REVISION_OF_ANY: Final = (
    f"SELECT {_WORKFLOW} FROM workflows WHERE tenant = ? AND revision = ? ORDER BY key DESC LIMIT 1"
)
READ_NEWEST_REVISION: Final = (
    f"SELECT {_WORKFLOW} FROM workflows WHERE tenant = ? AND name = ? ORDER BY key DESC LIMIT 1"
)
_LISTED_WORKFLOW: Final = "tenant, name, revision, x'', content_type, directory, create_time_ms, key"
LIST_NEWEST_REVISIONS: Final = (
    f"SELECT {_LISTED_WORKFLOW} FROM workflows WHERE key IN"
    " (SELECT max(key) FROM workflows WHERE tenant = ? AND name > ? GROUP BY name ORDER BY name LIMIT ?)"
    " ORDER BY name"
)
LIST_REVISIONS: Final = (
    f"SELECT {_LISTED_WORKFLOW} FROM workflows WHERE tenant = ? AND name = ? AND key < ? ORDER BY key DESC LIMIT ?"
)

# Workers.
READ_SESSION: Final = "SELECT worker_id, end_time_ms FROM worker_sessions WHERE session_id = ?"
BEGIN_SESSION: Final = f"INSERT INTO worker_sessions (session_id, worker_id, begin_time_ms) VALUES (?, ?, {NOW_MS})"
# Also for a session that never arrived here: if its registration is still under way, it must not come to life.
REPLACE_SESSION: Final = (
    f"INSERT INTO worker_sessions (session_id, worker_id, begin_time_ms, end_time_ms)"
    f" VALUES (?, ?, {NOW_MS}, {NOW_MS}) ON CONFLICT (session_id) DO UPDATE SET end_time_ms = excluded.end_time_ms"
    " WHERE end_time_ms IS NULL AND worker_id = excluded.worker_id"
)
END_SESSION: Final = f"UPDATE worker_sessions SET end_time_ms = {NOW_MS} WHERE session_id = ? AND end_time_ms IS NULL"
PUT_WORKER: Final = (
    "INSERT INTO workers (worker_id, labels, version, register_time_ms, last_session_time_ms)"
    f" VALUES (?, ?, ?, {NOW_MS}, {NOW_MS}) ON CONFLICT (worker_id) DO UPDATE SET labels = excluded.labels,"
    " version = excluded.version, last_session_time_ms = excluded.last_session_time_ms"
)
_WORKER: Final = "worker_id, labels, version, register_time_ms, last_session_time_ms"
READ_WORKER: Final = f"SELECT {_WORKER} FROM workers WHERE worker_id = ?"
LIST_WORKERS: Final = f"SELECT {_WORKER} FROM workers WHERE worker_id > ? ORDER BY worker_id LIMIT ?"
LIST_LIVE_WORKERS: Final = (
    f"SELECT {_WORKER} FROM workers WHERE worker_id > ? AND EXISTS (SELECT 1 FROM worker_sessions"
    " WHERE worker_sessions.worker_id = workers.worker_id AND end_time_ms IS NULL) ORDER BY worker_id LIMIT ?"
)
READ_LIVE_SESSIONS: Final = (
    "SELECT worker_id, session_id FROM worker_sessions WHERE end_time_ms IS NULL AND worker_id IN ({marks})"
    " ORDER BY begin_time_ms, session_id"
)

# Artifacts.
PUT_ARTIFACT: Final = (
    f"INSERT INTO artifacts (tenant, digest, size_bytes, content_type, create_time_ms) VALUES (?, ?, ?, ?, {NOW_MS})"
    " ON CONFLICT (tenant, digest) DO NOTHING"
)
READ_ARTIFACTS: Final = (
    "SELECT tenant, digest, size_bytes, content_type FROM artifacts WHERE tenant = ? AND digest IN ({marks})"
)
HAS_ARTIFACT: Final = "SELECT 1 FROM artifacts WHERE tenant = ? AND digest = ?"


def with_marks(statement: str, count: int) -> str:
    """Return the statement with `count` parameter marks in the place of {marks}."""
    return statement.format(marks=", ".join("?" * count))
