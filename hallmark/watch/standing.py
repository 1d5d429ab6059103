"""Read what `hallmark.watch.retraining` decides on: ledgers, requests to fit again, alarms, errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa

from hallmark.records.database import Database
from hallmark.records.erasures import as_utc
from hallmark.records.reader import EVERYTHING
from hallmark.records.rows import DEPLOYED, REQUESTED
from hallmark.records.tables import alarms, model_versions, training_jobs
from hallmark.watch.adapters import read_ledgers
from hallmark.watch.breakdown import ERRORS
from hallmark.watch.monitor import first_regular, read_days
from hallmark.watch.never_worse import Ledger
from hallmark.watch.retraining import Population


@dataclass(frozen=True)
class Job:
    """The last decision about a subject.

    Attributes:
        status: `requested`, `skipped`, `rejected`, `failed` or `deployed`.
        reason: code and sentence.
        client_id: who decided or asked.
        at: when.
    """

    status: str
    reason: str
    client_id: str
    at: datetime


def last_jobs(database: Database, task: str) -> dict[str, Job]:
    """Return the last decision about every subject."""
    t = training_jobs.c
    query = sa.select(t.owner_id, t.status, t.reason, t.client_id, t.created_at).where(t.task == task)
    with database.reading(EVERYTHING) as connection:
        rows = connection.execute(query.order_by(t.created_at, t.id)).all()
    return {row.owner_id: Job(row.status, row.reason, row.client_id, as_utc(row.created_at)) for row in rows}


def open_requests(database: Database, task: str) -> dict[str, set[str]]:
    """Return who has asked for each subject since the last decision about it."""
    t = training_jobs.c
    query = sa.select(t.owner_id, t.status, t.client_id).where(t.task == task).order_by(t.created_at, t.id)
    found: dict[str, set[str]] = {}
    with database.reading(EVERYTHING) as connection:
        for owner, status, client in connection.execute(query):
            if status == REQUESTED:
                found.setdefault(owner, set()).add(client)
            else:
                found.pop(owner, None)
    return found


def evidence_of(ledger: Ledger) -> float:
    """Return the e-value against "as good as the base model, and covers enough", from a ledger's e-detectors.

    An e-detector sums one bet for every day on which an adapter may have become worse: divided by the days, it is an
    e-value, and so is the mean of two.
    """
    found = ledger.evidence
    return (found["no_worse"] + found["covers"]) / 2 / max(ledger.days, 1)


def ledgers_of(database: Database, task: str, digest: str) -> Mapping[str, Ledger]:
    """Return the ledgers of a version, by subject."""
    return {account["owner_id"]: account["ledger"] for account in read_ledgers(database, task, digest)}


def population(
    database: Database,
    task: str,
    digests: Sequence[str],
    promoted: datetime | None,
    personal: bool,
    reference_days: int,
    now: datetime,
) -> Population:
    """Read what is known about all subjects together.

    Args:
        database: of the records.
        task: name of the task.
        digests: of all versions with the base model that serves.
        promoted: when the version that serves was promoted: none of `digests` may have answered yet.
        personal: whether the version has adapters.
        reference_days: so many first days tell what errors are usual.
        now: UTC, with a zone.
    """
    a, v = alarms.c, model_versions.c
    with database.reading(EVERYTHING) as connection:
        first_served = sa.select(sa.func.min(v.first_served_at)).where(v.hallmark_sha256.in_(digests))
        served = connection.execute(first_served).scalar()
        query = sa.select(a.kind, a.figure, a.day, a.since).where(a.task == task)
        found = connection.execute(query.order_by(a.day)).all()
    began = as_utc(served) if served else promoted
    first = began.date() if began else date(1970, 1, 1)
    moving = [x for x in found if x.day >= first and (x.kind == "drift" or (x.kind == "bound" and _is_error(x.figure)))]
    moved: date | None = moving[0].since if moving else None
    t = training_jobs.c
    deployed = sa.select(sa.func.min(t.created_at)).where(t.task == task, t.status == DEPLOYED)
    if moved is not None:
        deployed = deployed.where(t.created_at >= datetime.combine(moved, time(), UTC))
    with database.reading(EVERYTHING) as connection:
        first_refit = connection.execute(deployed).scalar()
    refitted = as_utc(first_refit).date() if first_refit else None
    begin = moved if refitted is None else refitted
    usual, lately = _errors(database, task, reference_days, begin, now)
    return Population(moved, refitted, personal, usual, lately)


def _is_error(figure: str) -> bool:
    return figure.startswith("score.")


def _errors(
    database: Database, task: str, reference_days: int, begin: date | None, now: datetime
) -> tuple[float | None, float | None]:
    """Return the mean error of the reference days, and that since some day."""
    table = read_days(database, task, now.astimezone(UTC).date() - timedelta(days=1))
    error = next((name for name in ERRORS if name in table.columns), None)
    if error is None:
        return None, None
    values: Any = table[error].dropna()
    regular = values.loc[first_regular(table, reference_days) :]
    usual, lately = regular.iloc[:reference_days], values[values.index >= begin] if begin else values[:0]
    return (float(usual.mean()) if len(usual) else None, float(lately.mean()) if len(lately) else None)
