"""Alembic's environment for logs.db."""
