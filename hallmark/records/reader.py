"""Read records: one prediction, the outcomes of it, everything about a subject, a sample to replay."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from hallmark.records.database import Database, Viewer, visible
from hallmark.records.tables import OWNED, ledgers, machines, outcomes, predictions, subject_days, training_jobs

Row = Mapping[str, Any]
EVERYTHING = Viewer(None, None)
"""Viewer of commands that run beside the database."""


def prediction(database: Database, viewer: Viewer, key: str) -> Row | None:
    """Return a prediction that the viewer may see; None if there is none, or the viewer may not."""
    return _one(database, viewer, predictions, key)


def outcomes_of(database: Database, viewer: Viewer, key: str) -> Sequence[Row]:
    """Return the outcomes of a prediction, by horizon."""
    query = sa.select(outcomes).where(outcomes.c.prediction_id == key, visible(outcomes, viewer))
    with database.reading(viewer) as connection:
        return [dict(row) for row in connection.execute(query.order_by(outcomes.c.horizon)).mappings()]


def training_job(database: Database, viewer: Viewer, key: str) -> Row | None:
    """Return a training job that the viewer may see; None if there is none, or the viewer may not."""
    return _one(database, viewer, training_jobs, key)


def training_jobs_of(database: Database, viewer: Viewer, subject_id: str, most: int) -> Sequence[Row]:
    """Return the newest training jobs of a subject that the viewer may see, the newest first."""
    query = sa.select(training_jobs).where(training_jobs.c.owner_id == subject_id, visible(training_jobs, viewer))
    with database.reading(viewer) as connection:
        newest = query.order_by(training_jobs.c.created_at.desc()).limit(most)
        return [dict(row) for row in connection.execute(newest).mappings()]


def known_outcomes(database: Database, keys: Sequence[str]) -> set[str]:
    """Return those of some ids that are ids of recorded outcomes."""
    with database.reading(EVERYTHING) as connection:
        return set(connection.execute(sa.select(outcomes.c.id).where(outcomes.c.id.in_(keys))).scalars())


def export(database: Database, viewer: Viewer, subject_id: str) -> Iterator[tuple[str, Row]]:
    """Yield everything that is recorded about a subject, as (table, row), without holding it in memory.

    The monitor's figures are visible to no token in PostgreSQL: they are read for a viewer who sees the subject's rows.
    """
    for table in OWNED:
        query = sa.select(table).where(table.c.owner_id == subject_id, visible(table, viewer))
        with database.reading(viewer) as connection:
            rows = connection.execution_options(yield_per=500).execute(query.order_by(table.c.id))
            for row in rows.mappings():
                yield table.name, dict(row)
    if viewer.subjects is not None and subject_id not in viewer.subjects:
        return
    for table, order in ((subject_days, subject_days.c.day), (ledgers, ledgers.c.last_day)):
        query = sa.select(table).where(table.c.owner_id == subject_id).order_by(order)
        with database.reading(EVERYTHING) as connection:
            for row in connection.execution_options(yield_per=500).execute(query).mappings():
                yield table.name, dict(row)


def sample(database: Database, count: int, digests: Sequence[str]) -> Sequence[Row]:
    """Return the newest predictions whose request is kept, by the bundles with these digests."""
    query = sa.select(predictions).where(predictions.c.request.is_not(None))
    query = query.where(predictions.c.hallmark_sha256.in_(digests))
    with database.reading(EVERYTHING) as connection:
        newest = query.order_by(predictions.c.asked_at.desc()).limit(count)
        return [dict(row) for row in connection.execute(newest).mappings()]


def machine(database: Database, digest: str) -> str | None:
    """Return the description of a machine, JSON."""
    query = sa.select(machines.c.description).where(machines.c.sha256 == digest)
    with database.reading(EVERYTHING) as connection:
        return connection.execute(query).scalar()


def forget_requests(database: Database, before: datetime) -> int:
    """Remove the requests of predictions before some time; returns their number. They can no longer be replayed."""
    statement = sa.update(predictions).where(predictions.c.asked_at < before, predictions.c.request.is_not(None))
    with database.writing() as connection:
        return connection.execute(statement.values(request=None)).rowcount


def _one(database: Database, viewer: Viewer, table: sa.Table, key: str) -> Row | None:
    query = sa.select(table).where(table.c.id == key, visible(table, viewer))
    with database.reading(viewer) as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)
