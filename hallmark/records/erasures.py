"""Erased subjects: rows of them that are still on their way do not come in any more."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hallmark.files import digest_text
from hallmark.records.tables import erasures

KEPT = timedelta(days=30)
"""How long an erasure is remembered: a spool that lay longer on a machine that was off must be deleted by hand."""


def digest_of(subject_id: str) -> str:
    """Return what an erasure remembers instead of the id."""
    return digest_text(subject_id)


def read_erasures(connection: sa.Connection) -> dict[str, datetime]:
    """Return the digests of erased subjects, and when each was erased."""
    return {row.owner_sha256: as_utc(row.at) for row in connection.execute(sa.select(erasures))}


def is_erased(row: Mapping[str, Any], known: Mapping[str, datetime]) -> bool:
    """Tell whether a row is about a subject that was erased after the row was made; later rows are new ones."""
    if not known or "owner_id" not in row:
        return False
    at = known.get(digest_of(row["owner_id"]))
    made = row.get("asked_at") or row.get("recorded_at") or row.get("created_at")
    if at is None or made is None:
        return at is not None
    return as_utc(made if isinstance(made, datetime) else datetime.fromisoformat(made)) <= at


def as_utc(time: datetime) -> datetime:
    """Return a time of the records with its zone, which SQLite does not keep."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
