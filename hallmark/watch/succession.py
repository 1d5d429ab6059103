"""Judge the version that serves against the one that it was promoted over, on outcomes that come late.

The version before answers the same recorded requests again, so that the losses are paired by subject and day; what has
no outcome counts for neither. The test may be looked at every day: see `hallmark.watch.canary`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import sqlalchemy as sa

from hallmark.build import Count, configuration
from hallmark.outcomes import HasOutcomes
from hallmark.records.database import Database
from hallmark.records.erasures import digest_of, read_erasures
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import alarms, subject_days
from hallmark.watch.adapters import stopped
from hallmark.watch.alarms import Raised
from hallmark.watch.canary import CanaryResult, CanaryRule, judge_canary
from hallmark.watch.figures import Figures
from hallmark.watch.intake import alone, keep_figures
from hallmark.watch.pairs import Compared, Serving, compare_again, compare_versions

OWN, BEFORE = "versus.own", "versus.before"


@configuration
class Succession:
    """How a new version is judged.

    Attributes:
        rule: when it is rolled back.
        days: for so many days after its promotion.
        settle_days: a day is judged when so many have passed after it; outcomes that come later do not count.
        most_a_day: answers of a subject's day that are compared.
    """

    rule: CanaryRule
    days: Count
    settle_days: Count
    most_a_day: Count


@dataclass(frozen=True)
class Successor:
    """The version that serves, and the one that it was promoted over.

    Attributes:
        serving: gave the answers.
        before: would answer after a rollback.
        promoted_at: when the first took the place of the second.
        would_answer: owner → whether the first, which answers nobody, would have answered; None if it did answer.
    """

    serving: Serving
    before: Serving
    promoted_at: datetime
    would_answer: Callable[[str], bool] | None = None

    @property
    def answering(self) -> Serving:
        """The version whose answers are recorded."""
        return self.serving if self.would_answer is None else self.before


def judge_successor(
    database: Database, versions: Successor, settings: Succession, now: datetime
) -> CanaryResult | None:
    """Compare the days that are settled and were not compared yet, and judge all of them.

    Returns:
        What they say; None if the version is not judged: it has served for longer, or its answers have no outcomes.

    Raises:
        RecordsError: the database cannot be read or written.
    """
    first = versions.promoted_at.astimezone(UTC).date()
    today = now.astimezone(UTC).date()
    if not isinstance(versions.serving.task, HasOutcomes) or (today - first).days > settings.days:
        return None
    for day in _uncompared(database, versions, first, today - timedelta(days=settings.settle_days)):
        compared = _compare(database, versions, day, settings.most_a_day)
        figures: dict[tuple[date, str, str], Figures] = {
            (day, versions.serving.hallmark_sha256, owner): {
                OWN: [sums.outcomes, sums.adapter],
                BEFORE: [sums.outcomes, sums.base],
            }
            for owner, sums in compared.items()
        }
        with database.writing() as connection:
            alone(database, connection)
            if day in _compared_days(connection, versions.serving, first):
                continue  # another monitor was faster
            erased = read_erasures(connection)  # meanwhile
            figures = {key: sums for key, sums in figures.items() if digest_of(key[2]) not in erased}
            keep_figures(database, connection, versions.serving.task.name, figures)
    return judge_canary(_losses(database, versions.serving, first), settings.rule)


def _compare(database: Database, versions: Successor, day: date, most: int) -> Mapping[str, Compared]:
    """Compare the answers of one day; of a version that answers nobody, both are computed again.

    Subjects whose adapter is stopped are then left out: a base model answers them in both versions.
    """
    if versions.would_answer is None:
        return compare_versions(database, versions.serving, versions.before.predictor, day, most)
    held_back = stopped(database, versions.before.hallmark_sha256)
    with database.reading(EVERYTHING) as connection:
        owners = {row.owner_id for row in connection.execute(_of_version(versions.before, day)) if row.day == day}
    drawn = [owner for owner in owners if versions.would_answer(owner) and owner not in held_back]
    return compare_again(database, versions.serving, versions.before, day, most, drawn)


def raise_rollback(
    database: Database,
    task: str,
    result: CanaryResult,
    promoted_at: datetime,
    now: datetime,
    what: str = "was rolled back",
) -> None:
    """Keep the alarm that a version serves no more, with what was done."""
    since, today = (time.astimezone(UTC).date() for time in (promoted_at, now))
    message = (
        f"The version that served since {since} {what}: {result.reason}. Compare both on recent data before "
        "you promote another one."
    )
    alarm = Raised("succession", "version", "critical", today, since, message)
    with database.writing() as connection:
        database.insert(connection, alarms, [alarm.row(task, now)])


def _of_version(serving: Serving, first: date) -> "sa.Select[tuple[date, str, str]]":
    columns = (subject_days.c.day, subject_days.c.owner_id, subject_days.c.figures)
    mine = (subject_days.c.task == serving.task.name, subject_days.c.hallmark_sha256 == serving.hallmark_sha256)
    return sa.select(*columns).where(*mine, subject_days.c.day >= first)


def _compared_days(connection: sa.Connection, serving: Serving, first: date) -> set[date]:
    return {row.day for row in connection.execute(_of_version(serving, first)) if f'"{OWN}"' in row.figures}


def _uncompared(database: Database, versions: Successor, first: date, last: date) -> list[date]:
    with database.reading(EVERYTHING) as connection:
        known = {row.day for row in connection.execute(_of_version(versions.answering, first)) if row.day <= last}
        return sorted(known - _compared_days(connection, versions.serving, first))


def _losses(database: Database, serving: Serving, first: date) -> pd.DataFrame:
    """Return mean losses of both versions by subject and day."""
    rows = []
    with database.reading(EVERYTHING) as connection:
        for row in connection.execute(_of_version(serving, first)):
            figures = json.loads(row.figures)
            if OWN in figures:
                own, before = (figures[name][1] / figures[name][0] for name in (OWN, BEFORE))
                rows.append((row.owner_id, own, before))
    return pd.DataFrame(rows, columns=["subject_id", "challenger", "champion"])
