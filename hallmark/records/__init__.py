"""Records: what was answered and what happened, in SQLite or PostgreSQL; by SQLAlchemy and Alembic (extra `repo`)."""

DEFAULT_URL = "sqlite:///.records/records.sqlite"
"""Database of the service and of the commands where `HALLMARK_RECORDS__URL` names none."""
