"""Audit log: a chain of decisions, each with the digest of the one before; a changed or missing entry breaks it."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import audit_log

START = "0" * 64
LOCK = 1_635_083_369  # key of PostgreSQL's advisory lock


def append(database: Database, actor: str, action: str, what: str, detail: str = "") -> None:
    """Append a decision: one writer at a time.

    Args:
        database: the records.
        actor: client that decided, or the name of a command.
        action: verb and object, such as `subject_exported`.
        what: id of the thing.
        detail: one sentence, without inputs.
    """
    with database.writing() as connection:
        if database.is_postgresql:
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
        else:
            connection.exec_driver_sql("update alembic_version set version_num = version_num")  # takes the write lock
        last = connection.execute(sa.select(audit_log).order_by(audit_log.c.number.desc()).limit(1)).mappings().first()
        entry = {
            "number": 1 if last is None else last["number"] + 1,
            "at": datetime.now(UTC),
            "actor": actor,
            "action": action,
            "object": what,
            "detail": detail,
            "previous_sha256": START if last is None else last["sha256"],
        }
        connection.execute(audit_log.insert().values(**entry, sha256=_digest(entry)))


def check(database: Database) -> int | None:
    """Return the number of the first entry that was changed, or follows a missing one; None if the chain holds."""
    previous, expected = START, 1
    with database.reading(EVERYTHING) as connection:
        for row in connection.execute(sa.select(audit_log).order_by(audit_log.c.number)).mappings():
            entry = {name: value for name, value in row.items() if name != "sha256"}
            if entry["number"] != expected or entry["previous_sha256"] != previous or _digest(entry) != row["sha256"]:
                return int(entry["number"])
            previous, expected = row["sha256"], expected + 1
    return None


def _digest(entry: Mapping[str, Any]) -> str:
    at: datetime = entry["at"]
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)  # SQLite gives times without their zone
    plain = {**entry, "at": at.isoformat(timespec="microseconds")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
