"""Records: what was answered and what happened, in SQLite or PostgreSQL; by SQLAlchemy and Alembic (extra `repo`)."""
