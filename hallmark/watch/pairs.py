"""Compare the answers of subjects' own models with those of the base model to the same requests.

The answer that was not given is computed here, not while somebody waits for the other one: it needs its request and
its model alone. Of each subject and day a few answers are compared, so that the cost does not grow with how often
somebody asks.
"""

import json
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from hallmark.contracts import AnyPredictor, Task
from hallmark.model import Model
from hallmark.outcomes import FEEDBACK, HasOutcomes
from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.rows import UNANSWERED
from hallmark.records.tables import ledgers, outcomes, predictions
from hallmark.watch.intake import by_id
from hallmark.watch.never_worse import Day

ADAPTER, STOPPED = "adapter", "stopped"
SUBJECT = "subject_id"  # of every request that may be personal
TOGETHER = 256  # requests that are read and answered together
LOSSES = ("absolute_error", "error", "brier")  # the first that both answers have is compared
EPOCH = date(1970, 1, 1)


Both = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], list[tuple[Any, Any]]]
"""Rows, their requests and the answers that were given → the two answers to each that are compared."""


@dataclass(frozen=True)
class Serving:
    """The version whose subjects are judged.

    Attributes:
        task: of its answers.
        predictor: computes the answers that were not given.
        hallmark_sha256: digest of its manifest.
    """

    task: Task
    predictor: AnyPredictor
    hallmark_sha256: str


@dataclass
class Compared:
    """Sums over the outcomes of one subject's day.

    Attributes:
        outcomes: how many were compared.
        adapter: losses of the subject's own model.
        base: losses of the base model.
        with_interval: outcomes for which the subject's own model had the interval that is watched.
        covered: those of them within it.
        served: whether an answer of the own model was given.
    """

    outcomes: int = 0
    adapter: float = 0.0
    base: float = 0.0
    with_interval: int = 0
    covered: float = 0.0
    served: bool = False

    def add(self, own: Mapping[str, float], base: Mapping[str, float], interval: str) -> None:
        """Add the errors of both answers; nothing if one of them has none."""
        loss = next((n for n in LOSSES if n in own and n in base), None)
        if loss is not None:
            self.outcomes += 1
            self.adapter += own[loss]
            self.base += base[loss]
            if interval in own:
                self.with_interval += 1
                self.covered += own[interval]

    def as_day(self, day: date) -> Day:
        """Return the means, as the test of an adapter reads them."""
        covered = self.covered / self.with_interval if self.with_interval else None
        return Day((day - EPOCH).days, self.adapter / self.outcomes, self.base / self.outcomes, covered, self.served)


def open_serving(bundle: Path) -> Serving:
    """Open a bundle as the version whose subjects are judged.

    Raises:
        BundleError: it is missing or damaged.
    """
    model = Model(bundle)
    return Serving(model.task, model.predictor, model.digest)


def can_be_personal(task: Task) -> bool:
    """Tell whether requests of a task may name a subject, and its answers can be compared with what happened."""
    return SUBJECT in task.request_type().model_fields and isinstance(task, HasOutcomes)


def asked_by(request: BaseModel, subject: str | None) -> BaseModel:
    """Return a request as one of a subject; None: of somebody who has no model of their own.

    A request that never names a subject stays as it is.
    """
    return request.model_copy(update={SUBJECT: subject}) if SUBJECT in type(request).model_fields else request


def compare_day(database: Database, serving: Serving, day: date, most: int, coverage: float) -> dict[str, Compared]:
    """Compare the answers of one day: those of an adapter, and those of the base model while an adapter is stopped.

    Args:
        database: of the records.
        serving: the version that gave the answers.
        day: of the predictions, UTC.
        most: answers of a subject that are compared: those with the smallest ids, which are random.
        coverage: nominal coverage of the interval that is watched, such as 0.9.

    Returns:
        What was compared, by subject; only subjects of whom an outcome is known.

    Raises:
        RecordsError: the database cannot be read.
    """
    stopped = sa.select(ledgers.c.owner_id).where(
        ledgers.c.hallmark_sha256 == serving.hallmark_sha256, ledgers.c.state == STOPPED
    )
    of_adapters = sa.or_(predictions.c.served_by == ADAPTER, predictions.c.owner_id.in_(stopped))

    def both(rows: Sequence[Any], requests: Sequence[Any], given: Sequence[Any]) -> list[tuple[Any, Any]]:
        owns = [row.served_by == ADAPTER for row in rows]
        others = serving.predictor.predict(
            [asked_by(r, None if own else row.owner_id) for r, own, row in zip(requests, owns, rows, strict=True)]
        )
        triples = zip(owns, given, others, strict=True)
        return [(answer, other) if own else (other, answer) for own, answer, other in triples]

    watched = f"covered_{100 * coverage:.0f}"
    return _compare_day(database, serving.task, day, most, _given_by(serving, of_adapters), both, watched)


def compare_versions(
    database: Database, serving: Serving, before: AnyPredictor, day: date, most: int
) -> dict[str, Compared]:
    """Compare the answers of one day with those of another version to the same requests, as its `base`.

    Args:
        database: of the records.
        serving: the version that gave the answers.
        before: the other version.
        day: of the predictions, UTC.
        most: answers of a subject, or of a client where nobody is personal, that are compared.

    Returns:
        What was compared, by subject; only subjects of whom an outcome is known.

    Raises:
        RecordsError: the database cannot be read.
    """

    def both(rows: Sequence[Any], requests: Sequence[Any], given: Sequence[Any]) -> list[tuple[Any, Any]]:
        return list(zip(given, before.predict(requests), strict=True))

    return _compare_day(
        database, serving.task, day, most, _given_by(serving, predictions.c.served_by != UNANSWERED), both
    )


def compare_again(
    database: Database,
    own: Serving,
    other: Serving,
    day: date,
    most: int,
    subjects: Collection[str],
    stopped: Container[str] = (),
) -> dict[str, Compared]:
    """Compare two versions on the requests of one day, whichever version had answered them; `other` is the base.

    Args:
        database: of the records.
        own: one version.
        other: another one.
        day: of the predictions, UTC.
        most: answers of a subject that are compared.
        subjects: whose answers are compared.
        stopped: those of them whom `other` answers by its base model.

    Returns:
        What was compared, by subject; only subjects of whom an outcome is known.

    Raises:
        RecordsError: the database cannot be read.
    """

    def both(rows: Sequence[Any], requests: Sequence[Any], given: Sequence[Any]) -> list[tuple[Any, Any]]:
        owners = [row.owner_id for row in rows]
        mine = own.predictor.predict([asked_by(r, owner) for r, owner in zip(requests, owners, strict=True)])
        theirs = other.predictor.predict(
            [asked_by(r, None if o in stopped else o) for r, o in zip(requests, owners, strict=True)]
        )
        return list(zip(mine, theirs, strict=True))

    condition = sa.and_(predictions.c.served_by != UNANSWERED, predictions.c.owner_id.in_(sorted(subjects)))
    return _compare_day(database, own.task, day, most, condition, both)


def _given_by(serving: Serving, condition: Any) -> Any:
    return sa.and_(predictions.c.hallmark_sha256 == serving.hallmark_sha256, condition)


def _compare_day(
    database: Database, task: Task, day: date, most: int, condition: Any, both: Both, interval: str = ""
) -> dict[str, Compared]:
    ids = _chosen(database, task, day, most, condition)
    compared: dict[str, Compared] = {}
    for start in range(0, len(ids), TOGETHER):
        _compare(database, task, ids[start : start + TOGETHER], both, interval, compared)
    return {owner: sums for owner, sums in compared.items() if sums.outcomes}


def _chosen(database: Database, task: Task, day: date, most: int, condition: Any) -> Sequence[str]:
    """Return the ids of the answers that are compared."""
    p, start = predictions.c, datetime.combine(day, time(), UTC)
    place = sa.func.row_number().over(partition_by=p.owner_id, order_by=p.id).label("place")
    counted = (
        sa.select(p.id, place)
        .where(
            p.task == task.name,
            p.asked_at >= start,
            p.asked_at < start + timedelta(days=1),
            p.request.is_not(None),
            condition,
            sa.exists().where(outcomes.c.prediction_id == p.id, outcomes.c.horizon != FEEDBACK),
        )
        .subquery()
    )
    few = sa.select(counted.c.id).where(counted.c.place <= most).order_by(counted.c.id)
    with database.reading(EVERYTHING) as connection:
        return list(connection.execute(few).scalars())


def _compare(
    database: Database, task: Any, ids: Sequence[str], both: Both, interval: str, compared: dict[str, Compared]
) -> None:
    """Compute the other answer to each of some requests, and add the errors of both."""
    found, happened = _read(database, ids)
    rows, requests, given = [], [], []
    for row in found:
        try:
            parsed = task.request_type().model_validate_json(row.request)
            response = task.response_type().model_validate_json(row.response)
        except ValidationError:
            continue  # recorded under an earlier release, whose messages had another form
        rows.append(row)
        requests.append(parsed)
        given.append(response)
    for row, (own, base) in zip(rows, both(rows, requests, given), strict=True):
        sums = compared.setdefault(row.owner_id, Compared())
        sums.served |= row.served_by == ADAPTER
        for horizon, value in happened.get(row.id, ()):
            sums.add(task.errors(own, horizon, value), task.errors(base, horizon, value), interval)


def _read(database: Database, ids: Sequence[str]) -> tuple[list[Any], dict[str, list[tuple[str, Any]]]]:
    """Return answers with their requests, and the outcomes of each: horizon and value."""
    names = ("id", "owner_id", "served_by", "request", "response")
    read = sa.select(*(predictions.c[name] for name in names))
    known = sa.select(outcomes.c.prediction_id, outcomes.c.horizon, outcomes.c.value)
    known = known.where(outcomes.c.horizon != FEEDBACK)
    happened: dict[str, list[tuple[str, Any]]] = {}
    with database.reading(EVERYTHING) as connection:
        for outcome in by_id(connection, known, outcomes.c.prediction_id, ids):
            happened.setdefault(outcome.prediction_id, []).append((outcome.horizon, json.loads(outcome.value)))
        return list(by_id(connection, read, predictions.c.id, ids)), happened
