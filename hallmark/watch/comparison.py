"""Evidently's comparison of the last days with the reference days, one row per subject and day."""

import json
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import subject_days
from hallmark.watch.monitor import Found

LAST_DAYS = 14
MOST_ROWS = 100_000


def write_comparison(database: Database, found: Found, path: Path) -> dict[str, float]:
    """Write Evidently's page on the figures that the drift alarm watches.

    Args:
        database: of the records.
        found: of a run whose reference is frozen.
        path: the HTML file; it is not written while there is no day after the reference.

    Returns:
        Figure → drift score of Evidently (a distance); empty if nothing was written. Whether it is drift, the alarm
        says: a distance alone does not know how days vary.
    """
    from hallmark.judge.drift import write_data_report

    reference = found.reference
    if reference is None or found.days.index[-1] <= reference.last:
        return {}
    last = found.days.index[-1]
    first = max(reference.last + timedelta(days=1), last - timedelta(days=LAST_DAYS - 1))
    names = list(reference.features)
    usual = _rows(database, found.task, names, reference.first, reference.last)
    return write_data_report(usual, _rows(database, found.task, names, first, last), names, [], path)


def _rows(database: Database, task: str, names: list[str], first: date, last: date) -> pd.DataFrame:
    """Return the figures of subjects and days, at most `MOST_ROWS`, spread evenly over them."""
    chosen = (subject_days.c.task == task, subject_days.c.day >= first, subject_days.c.day <= last)
    query = sa.select(subject_days.c.figures).where(*chosen).order_by(subject_days.c.day, subject_days.c.owner_id)
    with database.reading(EVERYTHING) as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(subject_days).where(*chosen)).scalar_one()
        step = -(-int(count) // MOST_ROWS) or 1
        streamed = connection.execution_options(yield_per=1000).execute(query)
        rows = [_means(text, names) for number, text in enumerate(streamed.scalars()) if number % step == 0]
    return pd.DataFrame(rows, columns=names)


def _means(text: str, names: list[str]) -> list[float]:
    figures = json.loads(text)
    return [figures[name][1] / figures[name][0] if name in figures else float("nan") for name in names]
