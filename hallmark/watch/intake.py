"""Read what has arrived in the records since the last time, and add it to the figures of its subject's day.

A part of the arrivals is read, added and taken away in one transaction: what was read counts once, also when the
process is killed, and a row that came late is read when it comes.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from pydantic import ValidationError
from pydantic_core import from_json

from hallmark.contracts import Task
from hallmark.outcomes import Estimating, HasOutcomes
from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.rows import UNANSWERED
from hallmark.records.tables import arrivals, days, outcomes, predictions, subject_days
from hallmark.watch.figures import Figures, add, mean_over_subjects, merge, request_figures, response_figures

PART = 20_000  # rows of one transaction
JOINED = 500  # ids in one statement
WATCHING = 1_919_247_216  # key of the lock that keeps two monitors from reading the same rows

SERVICE = (
    "service.abstained",
    "service.fallback",
    "service.adapter",
    "service.latency_ms",
    "service.slow",
    "service.batch_rows",
)

ASKED_AT = sa.type_coerce(predictions.c.asked_at, sa.String).label("asked_at")
"""As the driver returns it, UTC: a text in SQLite. Parsing a million of them one by one takes seconds."""

KEYS = ("day", "hallmark_sha256", "owner_id")
Key = tuple[date, str, str]
"""Day, digest of the hallmark, owner."""


@dataclass
class Taken:
    """What one run has read.

    Attributes:
        predictions: how many.
        sampled: of how many of them requests and responses were read.
        outcomes: how many.
        unreadable: answers in the form of an earlier release, whose outcomes cannot be compared.
        days: whose figures have changed.
    """

    predictions: int = 0
    sampled: int = 0
    outcomes: int = 0
    unreadable: int = 0
    days: set[date] = field(default_factory=set)


@dataclass(frozen=True)
class Reading:
    """What is read of every answer.

    Attributes:
        task: of the answers.
        most_rows: of at most so many answers of one run, chosen by their ids, requests and responses are read.
        horizons: whose errors are kept apart as well; those of all horizons are kept together.
        slow_ms: answers that took longer count as slow.
        most_estimates: of at most so many answers of one run, the errors are estimated before their outcomes are known.
    """

    task: Task
    most_rows: int
    horizons: Sequence[str]
    slow_ms: float
    most_estimates: int = 0


def take(database: Database, reading: Reading) -> Taken:
    """Read all that has arrived.

    Raises:
        RecordsError: the database cannot be read or written; what was read before counts.
    """
    taken = Taken()
    waiting = max(1, _waiting(database))
    shares = (min(1.0, reading.most_rows / waiting), min(1.0, reading.most_estimates / waiting))
    for take_part in (partial(_take_predictions, shares=shares), _take_outcomes):
        after: int | None = 0
        while after is not None:
            after = take_part(database, reading, taken, after)
    return taken


def _waiting(database: Database) -> int:
    """Count the predictions that have arrived, of all tasks."""
    fresh = sa.select(sa.func.count()).where(arrivals.c.kind == predictions.name)
    with database.reading(EVERYTHING) as connection:
        return int(connection.execute(fresh).scalar_one())


def _arrived(
    database: Database, connection: sa.Connection, query: Any, table: sa.Table, after: int, most: int
) -> tuple[list[Any], int | None]:
    """Return the rows of a query that are the next to have arrived, and after which arrival to go on, None at the end.

    The first column of the query is the id. The number of the arrival is added as the last one.
    """
    fresh = (arrivals.c.kind == table.name, arrivals.c.number > after)
    part = sa.select(arrivals.c.id, arrivals.c.number).where(*fresh).order_by(arrivals.c.number).limit(most)
    if not database.is_postgresql:
        known = part.subquery()
        joined = query.add_columns(known.c.number).join(known, known.c.id == table.c.id)
        rows: list[Any] = list(connection.execute(joined).tuples().all())
        count, last = connection.execute(sa.select(sa.func.count(), sa.func.max(known.c.number))).one()
        return rows, last if count == most else None
    # PostgreSQL has no statistics of tables that have just grown: in a join it walks through all rows for each arrival.
    numbers: dict[str, int] = dict(connection.execute(part).tuples().all())
    found = connection.execute(query.where(table.c.id.in_(part.with_only_columns(arrivals.c.id)))).tuples().all()
    rows = [(*row, numbers[row[0]]) for row in found if row[0] in numbers]  # others arrived between the two queries
    return rows, max(numbers.values()) if len(numbers) == most else None


def by_id(connection: sa.Connection, query: Any, column: Any, ids: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows of a query whose column is one of many ids."""
    whole = list(ids)
    for start in range(0, len(whole), JOINED):
        yield from connection.execute(query.where(column.in_(whole[start : start + JOINED]))).all()


def _take_predictions(
    database: Database, reading: Reading, taken: Taken, after: int, shares: tuple[float, float]
) -> int | None:
    """Read the next predictions; returns after which arrival to go on, None at the end.

    Args:
        database: of the records.
        reading: what is read.
        taken: gets what was read.
        after: number of the last arrival that was read.
        shares: of answers whose content is read, and of those of them whose errors are estimated.
    """
    columns: list[Any] = [
        predictions.c[name] for name in ("id", "owner_id", "hallmark_sha256", "served_by", "latency_ms", "batch_rows")
    ]
    has_reason = (sa.func.coalesce(predictions.c.reason, "") != "").label("has_reason")
    columns += [ASKED_AT, has_reason]
    query = sa.select(*columns).where(predictions.c.task == reading.task.name)
    figures: dict[Key, Figures] = {}
    with database.writing() as connection:
        alone(database, connection)
        rows, following = _arrived(database, connection, query, predictions, after, PART)
        table = pd.DataFrame(rows, columns=[*(column.name for column in columns), "number"])
        table["day"] = pd.to_datetime(table["asked_at"], utc=True, format="ISO8601").dt.date
        figures |= _service_figures(table, reading.slow_ms)
        is_drawn = [int(row[0][:8], 16) < shares[0] * 2**32 for row in rows]
        drawn = table[np.asarray(is_drawn, dtype=bool)]
        keys = zip(drawn["day"], drawn["hallmark_sha256"], drawn["owner_id"], strict=True)
        chosen: dict[str, Key] = dict(zip(drawn["id"], keys, strict=True))
        texts = sa.select(predictions.c.id, predictions.c.request, predictions.c.response)
        for found in by_id(connection, texts, predictions.c.id, chosen):
            add(figures[chosen[found.id]], _content(found, getattr(reading.task, "labels", ())))
            if int(found.id[:8], 16) < shares[1] * 2**32:
                add(figures[chosen[found.id]], _estimates(reading, found.response))
        keep_figures(database, connection, reading.task.name, figures)
        _taken_away(connection, table["number"].tolist())
    taken.predictions += len(rows)
    taken.sampled += len(chosen)
    taken.days |= {key[0] for key in figures}
    return following


def _take_outcomes(database: Database, reading: Reading, taken: Taken, after: int) -> int | None:
    """Read the next outcomes whose predictions are there; returns as `_take_predictions` does."""
    joined = outcomes.join(predictions, predictions.c.id == outcomes.c.prediction_id)
    columns: list[Any] = [outcomes.c[name] for name in ("id", "prediction_id", "horizon", "value")]
    columns += [predictions.c.owner_id, predictions.c.hallmark_sha256, ASKED_AT, predictions.c.response]
    query = sa.select(*columns).select_from(joined).where(predictions.c.task == reading.task.name)
    figures: dict[Key, Figures] = {}
    task = reading.task if isinstance(reading.task, HasOutcomes) else None
    unreadable = 0
    with database.writing() as connection:
        alone(database, connection)
        rows, following = _arrived(database, connection, query, outcomes, after, PART // 4)
        last, answer, of_day = "", None, dict[str, list[float]]()
        for _, prediction_id, horizon, value, owner, digest, asked_at, response, _ in sorted(rows, key=itemgetter(1)):
            if prediction_id != last:
                last, answer = prediction_id, _answer(reading.task, response)
                of_day = figures.setdefault((_utc_day(asked_at), digest, owner), {})
            if answer is None or task is None:
                unreadable += 1
                continue
            apart = horizon in reading.horizons
            for name, score in task.errors(answer, horizon, from_json(value)).items():
                for path in _paths(name, horizon, apart):
                    pair = of_day.setdefault(path, [0, 0.0])
                    pair[0] += 1
                    pair[1] += score
        figures = {key: pairs for key, pairs in figures.items() if pairs}
        keep_figures(database, connection, reading.task.name, figures)
        _taken_away(connection, [row[-1] for row in rows])
    taken.outcomes += len(rows)
    taken.unreadable += unreadable
    taken.days |= {key[0] for key in figures}
    return following


def _service_figures(table: pd.DataFrame, slow_ms: float) -> dict[Key, Figures]:
    """Return how answers were given, as the sums of `SERVICE`.

    Args:
        table: a row per answer.
        slow_ms: answers that took longer count as slow.
    """
    answered = table["served_by"] != UNANSWERED
    slow = table["latency_ms"] > slow_ms
    flags = [~answered, answered & table["has_reason"].astype(bool), table["served_by"] == "adapter"]
    values = [*flags, table["latency_ms"], slow, table["batch_rows"]]
    columns = {name: value.astype(float) for name, value in zip(SERVICE, values, strict=True)}
    by = table[list(KEYS)].assign(**columns).groupby(list(KEYS), sort=False)
    counts, sums = by.size(), by.sum()
    return {
        key: {name: [int(count), float(total)] for name, total in zip(SERVICE, row, strict=True)}
        for key, count, row in zip(counts.index, counts, sums.to_numpy(), strict=True)
    }


def _content(row: Any, labels: Sequence[str]) -> dict[str, float]:
    request = {} if row.request is None else request_figures(from_json(row.request))
    return request | response_figures(from_json(row.response), labels)


def _estimates(reading: Reading, response: str) -> dict[str, float]:
    """Estimate the errors of an answer; of a forecast those of the horizons that are kept apart."""
    task, answer = reading.task, _answer(reading.task, response)
    if answer is None or not isinstance(task, Estimating):
        return {}
    whole = task.expected(answer, "")
    if whole:
        return {f"estimate.{name}": value for name, value in whole.items()}
    return {
        f"estimate.{name}@{horizon}": value
        for horizon in reading.horizons
        for name, value in task.expected(answer, horizon).items()
    }


@functools.cache
def _paths(score: str, horizon: str, is_apart: bool) -> tuple[str, ...]:
    return (f"score.{score}", f"score.{score}@{horizon}") if is_apart else (f"score.{score}",)


def _answer(task: Task, response: str) -> Any:
    try:
        return task.response_type().model_validate_json(response)
    except ValidationError:
        return None


def keep_figures(database: Database, connection: sa.Connection, task: str, figures: Mapping[Key, Figures]) -> None:
    """Add figures to those that are kept, and compute those of their days anew."""
    if not figures:
        return
    of_days = sorted({key[0] for key in figures})
    known = sa.select(subject_days).where(subject_days.c.task == task, subject_days.c.day.in_(of_days))
    of_subjects: dict[date, dict[str, Figures]] = {day: {} for day in of_days}
    for row in connection.execute(known):
        key, pairs = (row.day, row.hallmark_sha256, row.owner_id), json.loads(row.figures)
        if key in figures:
            merge(figures[key], pairs)
        else:
            merge(of_subjects[row.day].setdefault(row.owner_id, {}), pairs)
    for (day, _, owner), pairs in figures.items():
        merge(of_subjects[day].setdefault(owner, {}), pairs)
    made = [
        {"task": task, "day": day, "hallmark_sha256": digest, "owner_id": owner, "figures": json.dumps(pairs)}
        for (day, digest, owner), pairs in figures.items()
    ]
    database.replace(connection, subject_days, made)
    _write_means(database, connection, task, of_subjects)


def write_days(database: Database, connection: sa.Connection, task: str, chosen: Sequence[date]) -> None:
    """Compute the figures of some days anew from those of their subjects; a day without any is deleted."""
    of_subjects: dict[date, dict[str, Figures]] = {day: {} for day in chosen}
    known = sa.select(subject_days).where(subject_days.c.task == task)
    for row in by_id(connection, known, subject_days.c.day, chosen):
        merge(of_subjects[row.day].setdefault(row.owner_id, {}), json.loads(row.figures))
    empty = [day for day, people in of_subjects.items() if not people]
    connection.execute(sa.delete(days).where(days.c.task == task, days.c.day.in_(empty)))
    _write_means(database, connection, task, {day: people for day, people in of_subjects.items() if people})


def _write_means(
    database: Database, connection: sa.Connection, task: str, of_subjects: Mapping[date, Mapping[str, Figures]]
) -> None:
    means = {day: mean_over_subjects(people.values()) for day, people in of_subjects.items()}
    closed = [
        {"task": task, "day": day, "figures": json.dumps(means[day] | {"subjects": float(len(people))})}
        for day, people in of_subjects.items()
    ]
    database.replace(connection, days, closed)


def _taken_away(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Delete the arrivals that were read; those of other tasks, or whose prediction is not there yet, stay."""
    ordered = sorted(numbers)
    begins = [place for place, number in enumerate(ordered) if not place or number != ordered[place - 1] + 1]
    spans = [(ordered[begin], ordered[end - 1]) for begin, end in pairwise([*begins, len(ordered)])]
    inside = arrivals.c.number.between(sa.bindparam("first"), sa.bindparam("last"))
    if spans:
        connection.execute(sa.delete(arrivals).where(inside), [{"first": a, "last": b} for a, b in spans])


def alone(database: Database, connection: sa.Connection) -> None:
    """Wait until no other monitor works; SQLite lets one transaction write at a time anyhow, if it writes first."""
    if database.is_postgresql:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({WATCHING})")
    else:
        connection.execute(sa.delete(arrivals).where(arrivals.c.kind == ""))


def _utc_day(time: datetime | str) -> date:
    """Return the day of a value of `ASKED_AT`."""
    if isinstance(time, str):
        return date.fromisoformat(time[:10])
    return (time if time.tzinfo is None else time.astimezone(UTC)).date()
