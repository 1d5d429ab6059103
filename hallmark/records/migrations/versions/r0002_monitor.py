"""Create what the monitor keeps: rows that it has not read, figures of subjects and days, references, alarms.

Triggers note every prediction and outcome as it arrives, so that the monitor reads each of them once, however late it
came; predictions themselves stay unchanged.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID, SHA256, WHO, TIME = sa.String(36), sa.String(64), sa.String(200), sa.DateTime(timezone=True)
TASK = sa.String(100)
TABLES = ("arrivals", "subject_days", "days", "watch_references", "alarms")
SOURCES = ("predictions", "outcomes")


def column(name: str, kind: Any, key: bool = False, nullable: bool = False) -> "sa.Column[Any]":
    """Make a column without a default."""
    return sa.Column(name, kind, primary_key=key, nullable=nullable)


def upgrade() -> None:
    """Create tables, triggers and policies, and let what is recorded already arrive."""
    op.create_table(
        "arrivals",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        column("kind", sa.String(16)),
        column("id", ID),
    )
    op.create_table(
        "subject_days",
        column("task", TASK, key=True),
        column("day", sa.Date(), key=True),
        column("hallmark_sha256", SHA256, key=True),
        column("owner_id", WHO, key=True),
        column("figures", sa.Text()),
    )
    op.create_table(
        "days", column("task", TASK, key=True), column("day", sa.Date(), key=True), column("figures", sa.Text())
    )
    op.create_table(
        "watch_references", column("task", TASK, key=True), column("reference", sa.Text()), column("frozen_at", TIME)
    )
    op.create_table(
        "alarms",
        column("id", ID, key=True),
        column("task", TASK),
        column("kind", sa.String(32)),
        column("figure", WHO),
        column("severity", sa.String(16)),
        *(column(name, sa.Date()) for name in ("day", "since")),
        column("message", sa.Text()),
        column("raised_at", TIME),
        column("told_at", TIME, nullable=True),
    )
    op.create_index("ix_alarms_task", "alarms", ["task", "day"])
    if op.get_context().dialect.name == "postgresql":
        secure(TABLES)
        _note_arrivals()
    else:
        for table in SOURCES:
            op.execute(
                f"create trigger {table}_arrive after insert on {table} "
                f"begin insert into arrivals (kind, id) values ('{table}', new.id); end"
            )
    for table in SOURCES:
        order = "asked_at" if table == "predictions" else "recorded_at"
        op.execute(f"insert into arrivals (kind, id) select '{table}', id from {table} order by {order}")


def secure(tables: Sequence[str]) -> None:
    """Keep tables of PostgreSQL from every token; `hallmark_service` alone reads and writes them."""
    for table in tables:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(f"revoke all on {table} from anon, authenticated, public")
        op.execute(f"grant select, insert, update, delete on {table} to hallmark_service")
        op.execute(f"create policy service_all on {table} for all to hallmark_service using (true) with check (true)")


def _note_arrivals() -> None:
    """Create PostgreSQL's triggers."""
    op.execute("grant usage on sequence arrivals_number_seq to hallmark_service")
    op.execute(
        "create or replace function hallmark.arrive() returns trigger language plpgsql set search_path = '' as $$ "
        "begin insert into public.arrivals (kind, id) values (tg_table_name, new.id); return null; end $$"
    )
    for table in SOURCES:
        op.execute(
            f"create trigger {table}_arrive after insert on {table} for each row execute function hallmark.arrive()"
        )
