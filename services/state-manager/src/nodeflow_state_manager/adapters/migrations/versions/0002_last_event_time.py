"""Shards know the time of their last event."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Add the time. What is known of earlier events is when executions were accepted, and when they were over."""
    op.add_column("shards", sa.Column("last_event_time_ms", sa.Integer, nullable=False, server_default=sa.text("0")))
    latest = "SELECT max(max(create_time_ms, coalesce(finish_time_ms, 0))) FROM executions"
    op.execute(
        f"UPDATE shards SET last_event_time_ms = coalesce(({latest} WHERE executions.shard = shards.shard), 0)"  # noqa: S608
    )
