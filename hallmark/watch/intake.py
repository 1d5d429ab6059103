"""Read what has arrived in the records since the last time, and add it to the figures of its subject's day.

A part of the arrivals is read, added and taken away in one transaction: what was read counts once, also when the
process is killed, and a row that came late is read when it comes.
"""

import functools
import gc
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from pydantic_core import from_json

from hallmark.contracts import Task
from hallmark.outcomes import FEEDBACK, Estimating, errors_of
from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.rows import UNANSWERED
from hallmark.records.tables import arrivals, days, outcomes, predictions, subject_days
from hallmark.watch.figures import Figures, add, mean_over_subjects, merge, request_figures, response_figures

PART = 20_000  # rows of one transaction
JOINED = 500  # ids in one statement
CACHE_KIB = 65_536  # of SQLite's pages
WATCHING = 1_919_247_216  # key of the lock that keeps two monitors from reading the same rows

SERVICE = (
    "service.abstained",
    "service.fallback",
    "service.adapter",
    "service.latency_ms",
    "service.slow",
    "service.batch_rows",
)

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
    with _modules_left_alone():
        for take_part in (partial(_take_predictions, shares=shares), _take_outcomes):
            after: int | None = 0
            while after is not None:
                after = take_part(database, reading, taken, after)
    return taken


@contextmanager
def _modules_left_alone() -> Iterator[None]:
    """Keep the garbage collector off what was there before: it would walk through all modules each time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _waiting(database: Database) -> int:
    """Count the predictions that have arrived, of all tasks."""
    fresh = sa.select(sa.func.count()).where(arrivals.c.kind == predictions.name)
    with database.reading(EVERYTHING) as connection:
        return int(connection.execute(fresh).scalar_one())


def _arrived(connection: sa.Connection, table: sa.Table, after: int, most: int) -> tuple[dict[str, int], int | None]:
    """Return id → number of the next arrivals of a table, and after which number to go on, None at the end.

    All further statements name these ids: in PostgreSQL, others arrive meanwhile, also with lower numbers.
    """
    fresh = (arrivals.c.kind == table.name, arrivals.c.number > after)
    part = sa.select(arrivals.c.id, arrivals.c.number).where(*fresh).order_by(arrivals.c.number).limit(most)
    numbers: dict[str, int] = dict(connection.execute(part).tuples().all())
    return numbers, max(numbers.values()) if len(numbers) == most else None


def _day(database: Database) -> sa.ColumnElement[str]:
    """Return the day of an answer in UTC, as a text; SQLite keeps times as texts in UTC."""
    if database.is_postgresql:
        return sa.func.to_char(sa.func.timezone("UTC", predictions.c.asked_at), "YYYY-MM-DD").label("day")
    return sa.func.substr(sa.type_coerce(predictions.c.asked_at, sa.String), 1, 10).label("day")


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
    key = (_day(database), predictions.c.hallmark_sha256, predictions.c.owner_id)
    with database.writing() as connection:
        alone(database, connection)
        numbers, following = _arrived(connection, predictions, after, PART)
        ids = database.listed(numbers)
        of_task = (predictions.c.id == ids.c.value, predictions.c.task == reading.task.name)
        sums = sa.select(*key, sa.func.count(), *_service_sums(reading.slow_ms)).where(*of_task).group_by(*key)
        figures: dict[Key, Figures] = {
            (date.fromisoformat(day), digest, owner): {
                name: [count, float(total)] for name, total in zip(SERVICE, totals, strict=True)
            }
            for day, digest, owner, count, *totals in connection.execute(sums).tuples()
        }
        read: Collection[str] = numbers
        if sum(of_day["service.abstained"][0] for of_day in figures.values()) < len(numbers):
            read = connection.execute(sa.select(predictions.c.id).where(*of_task)).scalars().all()
        chosen = [id_ for id_ in read if _is_drawn(id_, shares[0])]
        texts = sa.select(*key, predictions.c.id, predictions.c.request, predictions.c.response)
        for found in by_id(connection, texts, predictions.c.id, chosen):
            of_day = figures[(date.fromisoformat(found.day), found.hallmark_sha256, found.owner_id)]
            add(of_day, _content(found, getattr(reading.task, "labels", ())))
            if _is_drawn(found.id, shares[1]):
                add(of_day, _estimates(reading, found.response))
        keep_figures(database, connection, reading.task.name, figures)
        _taken_away(connection, [numbers[id_] for id_ in read])
    taken.predictions += len(read)
    taken.sampled += len(chosen)
    taken.days |= {key[0] for key in figures}
    return following


def _is_drawn(id_: str, share: float) -> bool:
    return int(id_[:8], 16) < share * 2**32


def _take_outcomes(database: Database, reading: Reading, taken: Taken, after: int) -> int | None:
    """Read the next outcomes whose predictions are there; returns as `_take_predictions` does."""
    columns: list[Any] = [outcomes.c[name] for name in ("id", "prediction_id", "horizon", "value")]
    columns += [predictions.c.owner_id, predictions.c.hallmark_sha256, _day(database), predictions.c.response]
    figures: dict[Key, Figures] = {}
    unreadable = 0
    with database.writing() as connection:
        alone(database, connection)
        numbers, following = _arrived(connection, outcomes, after, PART // 4)
        ids = database.listed(numbers)
        told = (outcomes.c.id == ids.c.value, predictions.c.id == outcomes.c.prediction_id)
        query = sa.select(*columns).where(*told, predictions.c.task == reading.task.name)
        rows = connection.execute(query).tuples().all()
        last, answer, of_day = "", None, dict[str, list[float]]()
        for _, prediction_id, horizon, value, owner, digest, day, response in sorted(rows, key=itemgetter(1)):
            if prediction_id != last:
                last, answer = prediction_id, _answer(reading.task, response)
                of_day = figures.setdefault((date.fromisoformat(day), digest, owner), {})
            if answer is None and horizon != FEEDBACK:
                unreadable += 1
                continue
            apart = horizon in reading.horizons
            for name, score in errors_of(reading.task, answer, horizon, from_json(value)).items():
                for path in _paths(name, horizon, apart):
                    pair = of_day.setdefault(path, [0, 0.0])
                    pair[0] += 1
                    pair[1] += score
        figures = {key: pairs for key, pairs in figures.items() if pairs}
        keep_figures(database, connection, reading.task.name, figures)
        _taken_away(connection, [numbers[row[0]] for row in rows])
    taken.outcomes += len(rows)
    taken.unreadable += unreadable
    taken.days |= {key[0] for key in figures}
    return following


def _service_sums(slow_ms: float) -> list[sa.ColumnElement[Any]]:
    """Return how answers were given, as sums of `SERVICE`.

    Args:
        slow_ms: answers that took longer count as slow.
    """
    p = predictions.c
    answered, has_reason = p.served_by != UNANSWERED, sa.func.coalesce(p.reason, "") != ""
    flags = [~answered, answered & has_reason, p.served_by == "adapter", p.latency_ms > slow_ms]
    abstained, fallback, adapter, slow = (sa.func.sum(sa.case((flag, 1), else_=0)) for flag in flags)
    return [abstained, fallback, adapter, sa.func.sum(p.latency_ms), slow, sa.func.sum(p.batch_rows)]


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
    """Wait until no other monitor works; SQLite lets one transaction write at a time anyhow, if it writes first.

    Its pages are found by random ids, and the default cache holds 2 MB of them.
    """
    if database.is_postgresql:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({WATCHING})")
    else:
        connection.exec_driver_sql(f"pragma cache_size = -{CACHE_KIB}")
        connection.execute(sa.delete(arrivals).where(arrivals.c.kind == ""))
