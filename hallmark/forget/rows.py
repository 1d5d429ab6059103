"""Delete rows from the records: those about one subject, or those that are older than their retention."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from hallmark.errors import RecordsError
from hallmark.forget.search import Canary
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.erasures import KEPT, digest_of, read_erasures
from hallmark.records.pseudonyms import pseudonym
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import (
    OWNED,
    arrivals,
    erasures,
    ledgers,
    metadata,
    outcomes,
    predictions,
    pseudonyms,
    subject_days,
)
from hallmark.watch.intake import alone, write_days

OF_SUBJECTS = (*OWNED, subject_days, ledgers)


@dataclass(frozen=True)
class Deleted:
    """What was deleted.

    Attributes:
        rows: number by table; tables without any are left out.
        entry: number and digest of the entry in the audit log.
    """

    rows: Mapping[str, int]
    entry: tuple[int, str]


def delete_subject(database: Database, subject_id: str, now: datetime, actor: str, why: str) -> Deleted:
    """Delete every row about a subject, in one transaction with the entry in the audit log.

    The entry names a pseudonym, whose row is deleted as well: nothing leads from the log to the subject. Figures of
    days are computed anew without it. Rows that are still in a spool do not come in any more.

    Args:
        database: of the records.
        subject_id: whose.
        now: rows that are made later stay; UTC, with a zone.
        actor: who decided.
        why: the reason; it must not name the subject.

    Raises:
        RecordsError: the database cannot be written; nothing was deleted.
    """
    with database.writing() as connection:
        _overwrite(database, connection)
        alone(database, connection)
        rows = _delete(database, connection, [(t, t.c.owner_id == subject_id) for t in OF_SUBJECTS])
        who = pseudonym(database, connection, subject_id)
        total = sum(rows.values())
        entry = audit.add(
            database, connection, actor, "subject_erased", who, f"{total} rows{f': {why}' if why else ''}"
        )
        connection.execute(sa.delete(pseudonyms).where(pseudonyms.c.owner_id == subject_id))
        connection.execute(sa.delete(erasures).where(erasures.c.at < now - KEPT))
        database.replace(connection, erasures, [{"owner_sha256": digest_of(subject_id), "at": now}])
    compact(database)
    return Deleted(rows, entry)


def delete_again(database: Database, subject_id: str, now: datetime) -> Mapping[str, int]:
    """Delete what was recorded of an erased subject meanwhile: an old bundle answers until a service has let it go.

    Raises:
        RecordsError: the database cannot be written.
    """
    with database.writing() as connection:
        _overwrite(database, connection)
        alone(database, connection)
        database.replace(connection, erasures, [{"owner_sha256": digest_of(subject_id), "at": now}])
        rows = _delete(database, connection, [(t, t.c.owner_id == subject_id) for t in OF_SUBJECTS])
    compact(database)
    return rows


def erased_at(database: Database, subject_id: str) -> datetime | None:
    """Return when a subject was erased lately; None if it was not."""
    with database.reading(EVERYTHING) as connection:
        return read_erasures(connection).get(digest_of(subject_id))


def owned_rows(database: Database, subject_id: str) -> int:
    """Count the rows about a subject."""
    with database.reading(EVERYTHING) as connection:
        counts = (sa.select(sa.func.count()).where(table.c.owner_id == subject_id) for table in OF_SUBJECTS)
        return sum(int(connection.execute(count).scalar_one()) for count in counts)


def delete_before(database: Database, before: datetime) -> Mapping[str, int]:
    """Delete the answers of before some time, their outcomes, and the subjects' figures of these days.

    The figures of the days, which are means over subjects, stay.

    Raises:
        RecordsError: the database cannot be written; nothing was deleted.
    """
    old = sa.select(predictions.c.id).where(predictions.c.asked_at < before)
    with database.writing() as connection:
        _overwrite(database, connection)
        alone(database, connection)
        chosen: list[Any] = [
            (outcomes, outcomes.c.prediction_id.in_(old)),
            (predictions, predictions.c.asked_at < before),
            (subject_days, subject_days.c.day < before.astimezone(UTC).date()),
        ]
        return _delete(database, connection, chosen, keep_days=True)


def compact(database: Database) -> bool:
    """Give the space of deleted rows back, so that their bytes are gone; returns whether the database did.

    SQLite refuses while another process reads: what was deleted is overwritten already, but may be in the log still.
    """
    try:
        with database.failing("compact"), database.engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            if database.is_postgresql:
                connection.exec_driver_sql("vacuum")
                return True
            connection.exec_driver_sql("vacuum")
            busy = connection.exec_driver_sql("pragma wal_checkpoint(truncate)").scalar_one()
            return not busy
    except RecordsError:
        return False


def rows_with(database: Database, subject_id: str) -> dict[str, int]:
    """Count by table the rows that still hold a subject's id anywhere; tables without any are left out."""
    canary, found = Canary(subject_id), {}
    for table in metadata.tables.values():
        texts = [column for column in table.columns if isinstance(column.type, sa.String | sa.Text)]
        if not texts:
            continue
        with database.reading(EVERYTHING) as connection:
            possible = sa.select(*texts).where(
                sa.or_(*(column.contains(subject_id, autoescape=True) for column in texts))
            )
            count = sum(any(canary.in_value(v) for v in row) for row in connection.execute(possible))
        if count:
            found[table.name] = count
    return found


def _delete(database: Database, connection: sa.Connection, chosen: Any, keep_days: bool = False) -> dict[str, int]:
    """Delete rows of some tables; what waits for the monitor of them goes as well."""
    found = {}
    of_days: list[tuple[str, Any]] = []
    for table, condition in chosen:
        if table in (predictions, outcomes):
            connection.execute(sa.delete(arrivals).where(arrivals.c.id.in_(sa.select(table.c.id).where(condition))))
        if table is subject_days and not keep_days:
            pairs = sa.select(subject_days.c.task, subject_days.c.day).where(condition).distinct()
            of_days = [(row.task, row.day) for row in connection.execute(pairs)]
        count = connection.execute(sa.delete(table).where(condition)).rowcount
        if count:
            found[table.name] = count
    for task in sorted({task for task, _ in of_days}):
        write_days(database, connection, task, [day for name, day in of_days if name == task])
    return found


def _overwrite(database: Database, connection: sa.Connection) -> None:
    """Let SQLite overwrite what is deleted."""
    if not database.is_postgresql:
        connection.exec_driver_sql("pragma secure_delete = on")
