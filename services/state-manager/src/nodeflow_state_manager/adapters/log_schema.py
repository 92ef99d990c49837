"""The tables of logs.db, the output of attempts.

Owns names, types, constraints and indexes; migrations bring a database here, and a test compares both. Must not know
queries. It is a file of its own, so that a flood of output never holds the write lock of the event log.
"""

from typing import Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

LOG_METADATA: Final = MetaData()

# One row per execution that has output.
LOG_EXECUTIONS: Final = Table(
    "log_executions",
    LOG_METADATA,
    Column("key", Integer, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("execution_id", Text, nullable=False),
    Column("next_position", Integer, nullable=False),
    UniqueConstraint("tenant", "execution_id", name="uq_log_executions_tenant_execution_id"),
)

# Consecutive lines of one attempt, never a row per line. The second key guards that no line is stored twice.
LOG_CHUNKS: Final = Table(
    "log_chunks",
    LOG_METADATA,
    Column("execution_key", Integer, ForeignKey("log_executions.key"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("task_number", Integer, nullable=False),
    Column("attempt_number", Integer, nullable=False),
    Column("fencing_token", Integer, nullable=False),
    Column("first_line", Integer, nullable=False),
    Column("line_count", Integer, nullable=False),
    Column("runs", LargeBinary, nullable=False),
    PrimaryKeyConstraint("execution_key", "position"),
    UniqueConstraint(
        "execution_key", "task_number", "attempt_number", "fencing_token", "first_line", name="uq_log_chunks_lines"
    ),
)
