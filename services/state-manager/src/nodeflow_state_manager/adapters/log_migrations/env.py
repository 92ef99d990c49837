"""Alembic's entry: runs migrations on the connection that the store passes, inside the store's own transaction."""

from alembic import context
from sqlalchemy import Connection

from nodeflow_state_manager.adapters.log_schema import LOG_METADATA


def migrate(connection: Connection) -> None:
    """Run what is due. SQLite alters tables by copying them, hence the batch mode."""
    context.configure(connection=connection, target_metadata=LOG_METADATA, render_as_batch=True)
    context.run_migrations()


migrate(context.config.attributes["connection"])
