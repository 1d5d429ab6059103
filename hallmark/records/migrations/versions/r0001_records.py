"""Create the tables of the records; on PostgreSQL with row-level security, on both with an audit that only grows.

Roles, `auth.uid()` and their grants are Supabase's own; elsewhere `prelude.sql` makes them before this runs.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID, SHA256, WHO, TIME = sa.String(36), sa.String(64), sa.String(200), sa.DateTime(timezone=True)
OWNED = ("predictions", "outcomes", "training_jobs", "user_datasets")
SHARED = ("machines", "model_versions")
TABLES = (*OWNED, *SHARED, "audit_log")


def column(name: str, kind: Any, nullable: bool = False) -> "sa.Column[Any]":
    """Make a column without a default."""
    return sa.Column(name, kind, nullable=nullable)


def upgrade() -> None:
    """Create tables, indexes, policies and triggers."""
    op.create_table(
        "predictions",
        sa.Column("id", ID, primary_key=True),
        *(column(name, WHO) for name in ("owner_id", "client_id")),
        column("task", sa.String(100)),
        column("model_version", sa.String(32)),
        *(column(name, SHA256) for name in ("hallmark_sha256", "base_sha256", "adapter_sha256", "history_sha256")),
        column("status", sa.String(32)),
        column("served_by", sa.String(16)),
        column("reason", sa.Text()),
        column("asked_at", TIME),
        column("latency_ms", sa.Float()),
        column("batch_rows", sa.Integer()),
        column("machine_sha256", SHA256),
        column("request", sa.Text(), nullable=True),
        column("response", sa.Text()),
    )
    op.create_index("ix_predictions_owner_id", "predictions", ["owner_id", "asked_at"])
    op.create_index("ix_predictions_client", "predictions", ["client_id", "asked_at"])
    op.create_index("ix_predictions_time", "predictions", ["asked_at"])
    op.create_table(
        "outcomes",
        sa.Column("id", ID, primary_key=True),
        *(column(name, WHO) for name in ("owner_id", "client_id")),
        column("prediction_id", ID),
        column("horizon", sa.String(32)),
        column("value", sa.Text()),
        *(column(name, TIME) for name in ("observed_at", "recorded_at")),
        sa.UniqueConstraint("prediction_id", "horizon", name="uq_outcomes_prediction_id"),
    )
    op.create_table("machines", sa.Column("sha256", SHA256, primary_key=True), column("description", sa.Text()))
    op.create_table(
        "model_versions",
        sa.Column("hallmark_sha256", SHA256, primary_key=True),
        column("task", sa.String(100)),
        column("version", sa.String(32)),
        *(column(name, sa.Text()) for name in ("metrics", "verdicts")),
        column("first_served_at", TIME),
    )
    op.create_table(
        "training_jobs",
        sa.Column("id", ID, primary_key=True),
        *(column(name, WHO) for name in ("owner_id", "client_id")),
        column("task", sa.String(100)),
        column("status", sa.String(32)),
        column("reason", sa.Text()),
        column("created_at", TIME),
        column("finished_at", TIME, nullable=True),
    )
    op.create_table(
        "user_datasets",
        sa.Column("id", ID, primary_key=True),
        *(column(name, WHO) for name in ("owner_id", "client_id")),
        column("name", sa.String(200)),
        column("sha256", SHA256),
        column("rows", sa.Integer()),
        column("created_at", TIME),
    )
    for table in ("outcomes", "training_jobs", "user_datasets"):
        op.create_index(f"ix_{table}_owner_id", table, ["owner_id"])
        op.create_index(f"ix_{table}_client", table, ["client_id"])
    op.create_table(
        "audit_log",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        column("at", TIME),
        column("actor", WHO),
        column("action", sa.String(64)),
        column("object", WHO),
        column("detail", sa.Text()),
        *(column(name, SHA256) for name in ("previous_sha256", "sha256")),
    )
    if op.get_context().dialect.name == "postgresql":
        _secure_postgresql()
    else:
        for verb in ("update", "delete"):
            op.execute(
                f"create trigger audit_log_no_{verb} before {verb} on audit_log "
                "begin select raise(abort, 'the audit log only grows'); end"
            )


def _secure_postgresql() -> None:
    """Let a token see the rows of its own subject, of the subjects it lists, and those that it asked for itself.

    `hallmark_service` writes rows of every owner. `app_metadata` of a Supabase token is set by the server, not by the
    user.
    """
    op.execute("create schema if not exists hallmark")
    op.execute(
        "create or replace function hallmark.subjects() returns text[] language sql stable set search_path = '' as $$ "
        "select coalesce(array(select pg_catalog.jsonb_array_elements_text(coalesce("
        "nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb "
        "#> '{app_metadata,subjects}', '[]'::jsonb))), '{}') || coalesce((select auth.uid())::text, '') $$"
    )
    op.execute(
        "create or replace function hallmark.caller() returns text language sql stable set search_path = '' as $$ "
        "select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb ->> 'client_id' $$"
    )
    op.execute("grant usage on schema hallmark to authenticated, hallmark_service")
    for table in TABLES:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"alter table {table} force row level security")
        op.execute(f"revoke all on {table} from anon, authenticated, public")
        op.execute(f"grant select, insert on {table} to hallmark_service")
        op.execute(f"create policy service_reads on {table} for select to hallmark_service using (true)")
        op.execute(f"create policy service_writes on {table} for insert to hallmark_service with check (true)")
    for table in OWNED:
        op.execute(f"grant select on {table} to authenticated")
        op.execute(
            f"create policy own_rows on {table} for select to authenticated using ("
            "owner_id = any ((select hallmark.subjects())::text[]) or client_id = (select hallmark.caller()))"
        )
    op.execute("grant update (request) on predictions to hallmark_service")
    op.execute(
        "create policy service_forgets on predictions for update to hallmark_service "
        "using (true) with check (request is null)"
    )
    for table in SHARED:
        op.execute(f"grant select on {table} to authenticated")
        op.execute(f"create policy tokens_read on {table} for select to authenticated using (true)")
    op.execute(
        "create or replace function hallmark.refuse() returns trigger language plpgsql set search_path = '' as $$ "
        "begin raise exception 'the audit log only grows'; end $$"
    )
    op.execute(
        "create trigger audit_log_only_grows before update or delete on audit_log "
        "for each row execute function hallmark.refuse()"
    )
    op.execute("create trigger audit_log_no_truncate before truncate on audit_log execute function hallmark.refuse()")
