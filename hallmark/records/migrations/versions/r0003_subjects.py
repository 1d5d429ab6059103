"""Create what operation keeps about single subjects, and let the service delete the rows of one who is erased.

A ledger says whether a subject's adapter may serve; a pseudonym stands for a subject in the audit log, which cannot be
deleted; an erasure keeps rows that are still on their way out of the tables.
"""

import sqlalchemy as sa
from alembic import op

from hallmark.records.migrations.versions.r0002_monitor import ID, SHA256, TASK, TIME, WHO, column, secure

revision = "0003"
down_revision = "0002"

OWNED = ("predictions", "outcomes", "training_jobs", "user_datasets")


def upgrade() -> None:
    """Create tables and policies."""
    op.create_table(
        "ledgers",
        column("task", TASK, key=True),
        column("hallmark_sha256", SHA256, key=True),
        column("owner_id", WHO, key=True),
        column("state", sa.String(16)),
        column("reason", sa.Text()),
        column("last_day", sa.Date()),
        column("ledger", sa.Text()),
    )
    op.create_table("pseudonyms", column("owner_id", WHO, key=True), column("pseudonym", ID))
    op.create_table("erasures", column("owner_sha256", SHA256, key=True), column("at", TIME))
    if op.get_context().dialect.name == "postgresql":
        secure(("ledgers", "pseudonyms", "erasures"))
        for table in OWNED:
            op.execute(f"grant delete on {table} to hallmark_service")
            op.execute(f"create policy service_erases on {table} for delete to hallmark_service using (true)")
