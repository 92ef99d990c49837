"""The tables of the store.

Owns names, types, constraints and indexes; migrations bring a database here, and a test compares both. Times are Unix
milliseconds. Must not know queries.
"""

from typing import Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA: Final = MetaData()

# One row per shard, made with the database: their number is fixed then. A free shard has no holder.
SHARDS: Final = Table(
    "shards",
    METADATA,
    Column("shard", Integer, primary_key=True),
    Column("holder", Text),
    Column("fencing_token", Integer, nullable=False),
    Column("expire_time_ms", Integer, nullable=False),
    Column("next_offset", Integer, nullable=False),
    Column("last_event_time_ms", Integer, nullable=False, server_default=text("0")),
)

# The log. Rows lie in the order of their commits; an execution is named by its key in `executions`, because an index
# over random ids would dirty a page per chunk (measured: 30 % of the cost of an append).
CHUNKS: Final = Table(
    "chunks",
    METADATA,
    Column("shard", Integer, nullable=False),
    Column("first_offset", Integer, nullable=False),
    Column("execution_key", Integer, nullable=False),
    Column("first_sequence", Integer, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("shard", "first_offset"),
    UniqueConstraint("execution_key", "first_sequence", name="uq_chunks_execution_key_first_sequence"),
)

# The index. `key` grows in the order of creation, and breaks ties of `create_time_ms`.
EXECUTIONS: Final = Table(
    "executions",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("execution_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("labels", Text, nullable=False),
    Column("create_time_ms", Integer, nullable=False),
    Column("finish_time_ms", Integer),
    Column("request_id", Text, nullable=False),
    Column("request_digest", LargeBinary, nullable=False),
    Column("task_count", Integer, nullable=False),
    Column("finished_task_count", Integer, nullable=False),
    UniqueConstraint("execution_id", name="uq_executions_execution_id"),
    Index("ix_executions_newest", "tenant", "create_time_ms"),
    Index("ix_executions_state", "tenant", "state", "create_time_ms"),
    Index("ix_executions_workflow", "tenant", "workflow", "create_time_ms"),
    # COMPLETED, FAILED, CANCELLED are 4, 5, 6: an index of what is open stays small however long the history is.
    Index("ix_executions_open", "shard", sqlite_where=text("state NOT IN (4, 5, 6)")),
)

EXECUTION_LABELS: Final = Table(
    "execution_labels",
    METADATA,
    Column("execution_key", Integer, ForeignKey("executions.key"), nullable=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("execution_key", "name"),
    Index("ix_execution_labels_value", "name", "value", "execution_key"),
    sqlite_with_rowid=False,
)

SNAPSHOTS: Final = Table(
    "snapshots",
    METADATA,
    Column("execution_key", Integer, ForeignKey("executions.key"), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# `key` grows in the order of registration: the newest revision of a name has the highest.
WORKFLOWS: Final = Table(
    "workflows",
    METADATA,
    Column("key", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("directory", Text, nullable=False),
    Column("create_time_ms", Integer, nullable=False),
    UniqueConstraint("tenant", "name", "revision", name="uq_workflows_tenant_name_revision"),
    Index("ix_workflows_revision", "tenant", "revision"),
)

WORKERS: Final = Table(
    "workers",
    METADATA,
    Column("worker_id", Text, primary_key=True),
    Column("labels", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("register_time_ms", Integer, nullable=False),
    Column("last_session_time_ms", Integer, nullable=False),
)

WORKER_SESSIONS: Final = Table(
    "worker_sessions",
    METADATA,
    Column("session_id", Text, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("begin_time_ms", Integer, nullable=False),
    Column("end_time_ms", Integer),
    Index("ix_worker_sessions_live", "worker_id", sqlite_where=text("end_time_ms IS NULL")),
)

ARTIFACTS: Final = Table(
    "artifacts",
    METADATA,
    Column("tenant", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("create_time_ms", Integer, nullable=False),
    PrimaryKeyConstraint("tenant", "digest"),
)
