"""Alembic migrations of the records; `hallmark.records.database.migrate` runs them."""
