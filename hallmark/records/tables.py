"""Tables of the records, for SQLite and PostgreSQL; `migrations/` creates them.

`owner_id` is the subject that a row is about, or the client that asked where it is not personal. In PostgreSQL,
row-level security compares it with the subject of the token (the convention of Supabase: `auth.uid()`).
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
)

ID = String(36)
SHA256 = String(64)
WHO = String(200)
TIME = DateTime(timezone=True)


def _owned(name: str, *columns: "Column[Any] | UniqueConstraint", then: tuple[str, ...] = ()) -> Table:
    """Declare a table whose rows belong to a subject or a client; its indexes go on with the columns `then`."""
    return Table(
        name,
        metadata,
        Column("id", ID, primary_key=True),
        Column("owner_id", WHO, nullable=False),
        Column("client_id", WHO, nullable=False),
        *columns,
        Index(None, "owner_id", *then),
        Index(f"ix_{name}_client", "client_id", *then),
    )


predictions = _owned(
    "predictions",
    Column("task", String(100), nullable=False),
    Column("model_version", String(32), nullable=False),
    Column("hallmark_sha256", SHA256, nullable=False),
    Column("base_sha256", SHA256, nullable=False),
    Column("adapter_sha256", String(64), nullable=False),  # empty if no adapter was multiplied
    Column("history_sha256", String(64), nullable=False),
    Column("status", String(32), nullable=False),
    Column("served_by", String(16), nullable=False),
    Column("reason", Text, nullable=False),  # why there is no answer, or why a simpler model gave it
    Column("asked_at", TIME, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("batch_rows", Integer, nullable=False),
    Column("machine_sha256", SHA256, nullable=False),
    Column("request", Text, nullable=True),  # JSON; null after its retention has passed, or if it is not kept
    Column("response", Text, nullable=False),  # JSON, byte for byte as it was sent
    then=("asked_at",),
)
Index("ix_predictions_time", predictions.c.asked_at)

outcomes = _owned(
    "outcomes",
    Column("prediction_id", ID, nullable=False),
    Column("horizon", String(32), nullable=False),  # of a forecast; empty for other tasks
    Column("value", Text, nullable=False),  # JSON: a number in the task's unit, or a label
    Column("observed_at", TIME, nullable=False),
    Column("recorded_at", TIME, nullable=False),
    UniqueConstraint("prediction_id", "horizon"),
)

machines = Table(
    "machines",
    metadata,
    Column("sha256", SHA256, primary_key=True),
    Column("description", Text, nullable=False),  # JSON: torch build, kernels, CPU
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("hallmark_sha256", SHA256, primary_key=True),
    Column("task", String(100), nullable=False),
    Column("version", String(32), nullable=False),
    Column("metrics", Text, nullable=False),
    Column("verdicts", Text, nullable=False),
    Column("first_served_at", TIME, nullable=False),
)

training_jobs = _owned(
    "training_jobs",
    Column("task", String(100), nullable=False),
    Column("status", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", TIME, nullable=False),
    Column("finished_at", TIME, nullable=True),
)

user_datasets = _owned(
    "user_datasets",
    Column("name", String(200), nullable=False),
    Column("sha256", SHA256, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("created_at", TIME, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", TIME, nullable=False),
    Column("actor", WHO, nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", String(200), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_sha256", SHA256, nullable=False),
    Column("sha256", SHA256, nullable=False),
)

arrivals = Table(
    "arrivals",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("kind", String(16), nullable=False),  # predictions or outcomes
    Column("id", ID, nullable=False),
)
"""Rows that the monitor has not read yet; triggers add them, the monitor takes them away."""

subject_days = Table(
    "subject_days",
    metadata,
    Column("task", String(100), primary_key=True),
    Column("day", Date, primary_key=True),  # of the predictions, UTC
    Column("hallmark_sha256", SHA256, primary_key=True),
    Column("owner_id", WHO, primary_key=True),
    Column("figures", Text, nullable=False),  # JSON: name → [count, sum]
)

days = Table(
    "days",
    metadata,
    Column("task", String(100), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("figures", Text, nullable=False),  # JSON: name → mean over subjects of their means
)

references = Table(
    "watch_references",
    metadata,
    Column("task", String(100), primary_key=True),
    Column("reference", Text, nullable=False),  # JSON: what is usual, and the rule by which it was frozen
    Column("frozen_at", TIME, nullable=False),
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", ID, primary_key=True),
    Column("task", String(100), nullable=False),
    Column("kind", String(32), nullable=False),  # drift or bound
    Column("figure", String(200), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("day", Date, nullable=False),
    Column("since", Date, nullable=False),
    Column("message", Text, nullable=False),
    Column("raised_at", TIME, nullable=False),
    Column("told_at", TIME, nullable=True),  # when every sink had it
)
Index("ix_alarms_task", alarms.c.task, alarms.c.day)

ledgers = Table(
    "ledgers",
    metadata,
    Column("task", String(100), primary_key=True),
    Column("hallmark_sha256", SHA256, primary_key=True),
    Column("owner_id", WHO, primary_key=True),
    Column("state", String(16), nullable=False),  # serving or stopped
    Column("reason", Text, nullable=False),
    Column("last_day", Date, nullable=False),  # of the predictions that were compared
    Column("ledger", Text, nullable=False),  # JSON: see `hallmark.watch.never_worse.Ledger`
)

pseudonyms = Table(
    "pseudonyms",
    metadata,
    Column("owner_id", WHO, primary_key=True),
    Column("pseudonym", ID, nullable=False),
)
"""What a subject is called in the audit log; without its row, nothing leads from the log to the subject."""

erasures = Table(
    "erasures",
    metadata,
    Column("owner_sha256", SHA256, primary_key=True),
    Column("at", TIME, nullable=False),
)
"""Subjects whose rows of before are not inserted any more, should some still lie in a spool."""

OWNED = (predictions, outcomes, training_jobs, user_datasets)
"""Tables under row-level security: each row belongs to a subject or a client."""
