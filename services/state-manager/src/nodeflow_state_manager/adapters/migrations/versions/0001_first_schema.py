"""The first schema: shards, log, index, workflows, workers, artifacts."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Create every table."""
    _create_shards()
    _create_chunks()
    _create_executions()
    _create_execution_labels()
    _create_snapshots()
    _create_workflows()
    _create_workers()
    _create_worker_sessions()
    _create_artifacts()


def _create_shards() -> None:
    op.create_table(
        "shards",
        sa.Column("shard", sa.Integer, primary_key=True),
        sa.Column("holder", sa.Text),
        sa.Column("fencing_token", sa.Integer, nullable=False),
        sa.Column("expire_time_ms", sa.Integer, nullable=False),
        sa.Column("next_offset", sa.Integer, nullable=False),
    )


def _create_chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("first_offset", sa.Integer, nullable=False),
        sa.Column("execution_key", sa.Integer, nullable=False),
        sa.Column("first_sequence", sa.Integer, nullable=False),
        sa.Column("event_count", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("shard", "first_offset"),
        sa.UniqueConstraint("execution_key", "first_sequence", name="uq_chunks_execution_key_first_sequence"),
    )


def _create_executions() -> None:
    op.create_table(
        "executions",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("create_time_ms", sa.Integer, nullable=False),
        sa.Column("finish_time_ms", sa.Integer),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("request_digest", sa.LargeBinary, nullable=False),
        sa.Column("task_count", sa.Integer, nullable=False),
        sa.Column("finished_task_count", sa.Integer, nullable=False),
        sa.UniqueConstraint("execution_id", name="uq_executions_execution_id"),
    )
    op.create_index("ix_executions_newest", "executions", ["tenant", "create_time_ms"])
    op.create_index("ix_executions_state", "executions", ["tenant", "state", "create_time_ms"])
    op.create_index("ix_executions_workflow", "executions", ["tenant", "workflow", "create_time_ms"])
    op.create_index("ix_executions_open", "executions", ["shard"], sqlite_where=sa.text("state NOT IN (4, 5, 6)"))


def _create_execution_labels() -> None:
    op.create_table(
        "execution_labels",
        sa.Column("execution_key", sa.Integer, sa.ForeignKey("executions.key"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("execution_key", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_execution_labels_value", "execution_labels", ["name", "value", "execution_key"])


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("execution_key", sa.Integer, sa.ForeignKey("executions.key"), primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def _create_workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("directory", sa.Text, nullable=False),
        sa.Column("create_time_ms", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant", "name", "revision", name="uq_workflows_tenant_name_revision"),
    )
    op.create_index("ix_workflows_revision", "workflows", ["tenant", "revision"])


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Text, primary_key=True),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("register_time_ms", sa.Integer, nullable=False),
        sa.Column("last_session_time_ms", sa.Integer, nullable=False),
    )


def _create_worker_sessions() -> None:
    op.create_table(
        "worker_sessions",
        sa.Column("session_id", sa.Text, primary_key=True),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("begin_time_ms", sa.Integer, nullable=False),
        sa.Column("end_time_ms", sa.Integer),
    )
    op.create_index(
        "ix_worker_sessions_live", "worker_sessions", ["worker_id"], sqlite_where=sa.text("end_time_ms IS NULL")
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("content_type", sa.Text, nullable=False),
        sa.Column("create_time_ms", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "digest"),
    )
