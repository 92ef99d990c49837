"""Alembic's scripts: each brings a database from one revision of the schema to the next."""
