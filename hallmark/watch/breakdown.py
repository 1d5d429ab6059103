"""Figures of the last weeks by version of the model and by subject."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import model_versions, subject_days
from hallmark.watch.figures import Figures, mean_over_subjects, merge

LAST_DAYS = 28
MOST_SUBJECTS = 10
FEWEST_OUTCOMES = 10
ERRORS = ("score.absolute_error", "score.error", "score.brier")
"""The first of these that a task has is the one that subjects are ordered by."""


@dataclass(frozen=True)
class Breakdown:
    """Figures of the last weeks.

    Attributes:
        first: day.
        last: day.
        versions: version and digest → subjects that it answered, and the means over them, by figure.
        error: name of the error by which `subjects` are ordered; empty if no outcome is known.
        subjects: subject → mean error and number of outcomes, the largest error first; those with few are left out.
    """

    first: date
    last: date
    versions: Mapping[tuple[str, str], tuple[int, Mapping[str, float]]]
    error: str
    subjects: Mapping[str, tuple[float, int]]


def break_down(database: Database, task: str, first: date, last: date) -> Breakdown:
    """Add up the figures of subjects and days.

    Raises:
        RecordsError: the database cannot be read.
    """
    chosen = (subject_days.c.task == task, subject_days.c.day >= first, subject_days.c.day <= last)
    of_versions: dict[str, dict[str, Figures]] = {}
    of_subjects: dict[str, Figures] = {}
    with database.reading(EVERYTHING) as connection:
        rows = connection.execution_options(yield_per=1000).execute(sa.select(subject_days).where(*chosen))
        for row in rows:
            figures = json.loads(row.figures)
            merge(of_versions.setdefault(row.hallmark_sha256, {}).setdefault(row.owner_id, {}), figures)
            scores = {name: pair for name, pair in figures.items() if name in ERRORS}
            merge(of_subjects.setdefault(row.owner_id, {}), scores)
        known = sa.select(model_versions.c.hallmark_sha256, model_versions.c.version)
        names = {row.hallmark_sha256: row.version for row in connection.execute(known)}
    versions = {
        (names.get(digest, ""), digest): (len(people), mean_over_subjects(people.values()))
        for digest, people in sorted(of_versions.items(), key=lambda item: names.get(item[0], ""))
    }
    error = next((name for name in ERRORS if any(name in figures for figures in of_subjects.values())), "")
    means = {
        subject: (figures[error][1] / figures[error][0], int(figures[error][0]))
        for subject, figures in of_subjects.items()
        if error in figures and figures[error][0] >= FEWEST_OUTCOMES
    }
    ordered = sorted(means.items(), key=lambda item: -item[1][0])[:MOST_SUBJECTS]
    return Breakdown(first, last, versions, error, dict(ordered))
