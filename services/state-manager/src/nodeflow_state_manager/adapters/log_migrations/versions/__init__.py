"""Revisions of the schema of logs.db, oldest first."""
