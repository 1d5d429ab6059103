"""Fetch rows to learn from out of the records, since each subject's adapter was fitted last.

A request repeats most of what the request before it held. As few answers as cover the time are read: of each subject
the newest one, then the newest of those that were asked before its first row, and so on.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import sqlalchemy as sa
from pydantic import ValidationError

from hallmark.contracts import Task
from hallmark.errors import ConfigError
from hallmark.outcomes import FEEDBACK, Answered, Observing, Outcome
from hallmark.records.database import Database, Viewer, visible
from hallmark.records.erasures import as_utc
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import outcomes, predictions
from hallmark.watch.intake import by_id


@runtime_checkable
class Insightful(Protocol):
    """A task whose subjects' rows show something by themselves."""

    def insights(self, rows: pd.DataFrame) -> Sequence[Any]:
        """Return what one subject's rows, as `observed_rows` returns them, show: kind, text, first, last, chance."""


APART_S = 3600  # of the answers of a subject in one hour, the newest stands for all
KNOWN_AT, SUBJECT = "known_at", "subject_id"


def observed_rows(
    database: Database,
    task: Task,
    first: datetime,
    since: Mapping[str, datetime],
    known: Container[str],
    owner: str | None = None,
    viewer: Viewer = EVERYTHING,
) -> pd.DataFrame:
    """Return the rows that requests and outcomes of personal answers hold.

    Args:
        database: of the records.
        task: of the answers.
        first: answers before are not read; with a zone.
        since: subject → when its adapter was fitted last; answers before are not read. Absent: `first`.
        known: subjects that have an adapter, whose requests were perhaps answered without naming them.
        owner: the only subject whose rows are wanted; None for all.
        viewer: whose answers are read.

    Returns:
        Columns as the task's `own_source` reads them, and `known_at` (UTC, without a zone).

    Raises:
        ConfigError: answers of this task hold no rows to learn from.
        RecordsError: the database cannot be read.
    """
    if not isinstance(task, Observing):
        raise ConfigError(
            f"answers of {task.name} hold no rows to learn from: add new rows to its data, and run `make repro`"
        )
    waiting = _asked(database, task, first, since, owner, viewer)
    tables = []
    while newest := {owner: asked.pop()[1] for owner, asked in waiting.items() if asked}:
        answers = list(_read(database, task, list(newest.values()), known))
        begins: Mapping[Any, pd.Timestamp] = {}
        if answers:
            tables.append(task.observed(answers))
            begins = tables[-1].groupby(SUBJECT)[KNOWN_AT].min().to_dict()
        for owner in newest:
            if owner not in begins:  # nobody personal
                del waiting[owner]
                continue
            asked, covered = waiting[owner], begins[owner].to_pydatetime().replace(tzinfo=UTC)
            while len(asked) > 1 and asked[-2][0] >= covered:  # the one before covers what this one would add
                asked.pop()
    if not tables:
        return pd.DataFrame(columns=[SUBJECT, "timestamp", KNOWN_AT])
    rows = pd.concat(tables).drop_duplicates([SUBJECT, "timestamp"])
    return rows.sort_values([SUBJECT, "timestamp"], ignore_index=True)


def write_rows(rows: pd.DataFrame, out: Path) -> None:
    """Write rows of `observed_rows` as a table that the task's `own_source` reads; whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}")
    try:
        rows.drop(columns=KNOWN_AT).to_parquet(fresh, index=False)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def has_answers(database: Database, task: str, owner: str) -> bool:
    """Tell whether a recorded answer is about somebody."""
    p = predictions.c
    with database.reading(EVERYTHING) as connection:
        return (
            connection.execute(sa.select(p.id).where(p.owner_id == owner, p.task == task).limit(1)).first() is not None
        )


def _asked(
    database: Database, task: Task, first: datetime, since: Mapping[str, datetime], owner: str | None, viewer: Viewer
) -> dict[str, list[tuple[datetime, str]]]:
    """Return (asked at, id) of the newest answer of every hour, in order, by owner."""
    p = predictions.c
    query = (
        sa.select(p.owner_id, p.asked_at, p.id)
        .where(p.task == task.name, p.asked_at >= first, p.request.is_not(None), visible(predictions, viewer))
        .order_by(p.asked_at, p.id)
    )
    if owner is not None:
        query = query.where(p.owner_id == owner)
    found: dict[str, dict[int, tuple[datetime, str]]] = {}
    with database.reading(viewer) as connection:
        for who, at, key in connection.execution_options(yield_per=10_000).execute(query):
            if (asked_at := as_utc(at)) >= since.get(who, first):
                found.setdefault(who, {})[int(asked_at.timestamp()) // APART_S] = (asked_at, key)
    return {who: list(hours.values()) for who, hours in found.items()}


def _read(database: Database, task: Any, ids: list[str], known: Container[str]) -> Iterator[Answered]:
    """Yield personal answers with their outcomes; those in the form of an earlier release are left out."""
    p, o = predictions.c, outcomes.c
    happened: dict[str, list[Outcome]] = {}
    with database.reading(EVERYTHING) as connection:
        told = sa.select(o.prediction_id, o.horizon, o.value, o.observed_at).where(o.horizon != FEEDBACK)
        for row in by_id(connection, told, o.prediction_id, ids):
            outcome = Outcome(row.horizon, json.loads(row.value), as_utc(row.observed_at))
            happened.setdefault(row.prediction_id, []).append(outcome)
        query = sa.select(p.id, p.owner_id, p.asked_at, p.request, p.response)
        rows = list(by_id(connection, query, p.id, ids))
    for row in rows:
        try:
            request = task.request_type().model_validate_json(row.request)
            response = task.response_type().model_validate_json(row.response)
        except ValidationError:
            continue
        if getattr(request, SUBJECT, None) == row.owner_id or row.owner_id in known:
            yield Answered(row.owner_id, as_utc(row.asked_at), request, response, happened.get(row.id, ()))
