"""The first schema of logs.db: executions that have output, and its chunks."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "log_executions",
        sa.Column("key", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("execution_id", sa.Text, nullable=False),
        sa.Column("next_position", sa.Integer, nullable=False),
        sa.UniqueConstraint("tenant", "execution_id", name="uq_log_executions_tenant_execution_id"),
    )
    op.create_table(
        "log_chunks",
        sa.Column("execution_key", sa.Integer, sa.ForeignKey("log_executions.key"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("task_number", sa.Integer, nullable=False),
        sa.Column("attempt_number", sa.Integer, nullable=False),
        sa.Column("fencing_token", sa.Integer, nullable=False),
        sa.Column("first_line", sa.Integer, nullable=False),
        sa.Column("line_count", sa.Integer, nullable=False),
        sa.Column("runs", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("execution_key", "position"),
        sa.UniqueConstraint(
            "execution_key", "task_number", "attempt_number", "fencing_token", "first_line", name="uq_log_chunks_lines"
        ),
    )
