"""Monitor: read what has arrived, compute the figures of the days, and decide what is an alarm.

Every run goes on where the last one ended.
"""

import fnmatch
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from hallmark.build import Count, Positive, Tuple, configuration
from hallmark.contracts import Task
from hallmark.records.database import Database
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import alarms, days, references
from hallmark.watch.adapters import Adapters, Change, judge, read_ledgers, stop_alarms
from hallmark.watch.alarms import Bound, Raised, Severity, news
from hallmark.watch.breakdown import LAST_DAYS, Breakdown, break_down
from hallmark.watch.business import Derived, with_business
from hallmark.watch.drift import Alarm, DriftRule, Reference, describe, find_alarms, freeze_reference, why_unwatchable
from hallmark.watch.intake import Reading, Taken, take
from hallmark.watch.pairs import Serving, can_be_personal
from hallmark.watch.succession import Succession

ADVICE = (
    "Compare the sensors and subjects of these days with those before: repair what is broken; if the change is real, "
    "retrain."
)

REGULAR = 0.8
"""Share of days with answers from which on a stretch of days counts as regular."""


@configuration
class Monitor:
    """What is watched, and what is an alarm; built from `conf/monitor/*.yaml`.

    Attributes:
        most_rows: of so many answers of one run, requests and responses are read; of all others how they were served.
        most_estimates: of so many answers of one run, the errors are estimated before outcomes are known.
        horizons: whose errors are kept apart as well.
        slow_ms: answers that took longer count as slow.
        settle_days: the last days are not judged, for more of them is still to come.
        debounce_days: an alarm whose first day is so near that of an earlier one is the same.
        drift: rule of the drift alarm.
        drift_figures: which figures it watches, with `*` as in file names.
        drift_severity: of its alarms.
        bounds: rules of single figures.
        adapters: how the adapters of subjects are judged.
        succession: how a new version is judged against the one before.
        business: further figures of a day.
        sinks: where alarms are told; see `hallmark/watch/sinks.py`.
    """

    most_rows: Count
    most_estimates: Count
    horizons: Tuple[str]
    slow_ms: Positive
    settle_days: Count
    debounce_days: Count
    drift: DriftRule
    drift_figures: Tuple[str]
    drift_severity: Severity
    bounds: Tuple[Bound]
    adapters: Adapters
    succession: Succession
    business: Tuple[Derived]
    sinks: Sequence[Any]


@dataclass(frozen=True)
class Found:
    """What one run has found.

    Attributes:
        task: name of the task.
        at: when.
        taken: what was read.
        days: one row per day, in order and without gaps, a column per figure.
        watched: figures that the drift alarm watches.
        unwatched: figures that it cannot watch, with the reason.
        reference: what is usual; None while there are too few days.
        new: alarms of this run.
        alarms: all alarms, the newest first, JSON values.
        changes: adapters that were stopped or serve again by this run.
        ledgers: of the adapters of the version that serves; see `read_ledgers`.
        breakdown: the last weeks by version and by subject; None if there is no day.
    """

    task: str
    at: datetime
    taken: Taken
    days: pd.DataFrame
    watched: Sequence[str]
    unwatched: dict[str, str]
    reference: Reference | None
    new: Sequence[Raised]
    alarms: Sequence[dict[str, Any]]
    breakdown: Breakdown | None
    changes: Sequence[Change] = ()
    ledgers: Sequence[dict[str, Any]] = ()


def watch(
    database: Database, task: Task, monitor: Monitor, now: datetime, serving: Callable[[], Serving] | None = None
) -> Found:
    """Run once.

    Args:
        database: of the records; its tables are brought up to date.
        task: whose answers are watched.
        monitor: the rules.
        now: UTC, with a zone.
        serving: opens the version whose adapters are judged; None judges none.

    Raises:
        RecordsError: the database cannot be read or written; the next run goes on from there.
    """
    database.migrate()
    taken = take(database, reading_of(task, monitor))
    judged: Sequence[Change] = ()
    accounts: Sequence[dict[str, Any]] = ()
    if serving is not None and can_be_personal(task):
        version = serving()
        judged = judge(database, version, monitor.adapters, now)
        accounts = read_ledgers(database, task.name, version.hallmark_sha256)
    known = read_days(database, task.name, now.astimezone(UTC).date() - timedelta(days=monitor.settle_days))
    table = with_business(known, monitor.business)
    regular = table.loc[first_regular(table, monitor.drift.reference_days) :]
    watched, unwatched = watchable(regular, monitor)
    reference = _reference(database, task.name, regular, watched, monitor, now)
    found = [alarm for bound in monitor.bounds for alarm in bound.find(regular, monitor.drift.reference_days)]
    if reference is not None:
        drifted = find_alarms(table.reindex(columns=list(reference.features)), reference, monitor.drift)
        found += drift_alarms(drifted, monitor)
    new = [*_raise(database, task.name, found, monitor.debounce_days, now), *stop_alarms(judged)]
    told = read_alarms(database, task.name)
    last = table.index[-1] if len(table) else None
    parts = last and break_down(database, task.name, last - timedelta(days=LAST_DAYS - 1), last)
    return Found(task.name, now, taken, table, watched, unwatched, reference, new, told, parts, judged, accounts)


def reading_of(task: Task, monitor: Monitor) -> Reading:
    """Return what the rules read of every answer."""
    return Reading(task, monitor.most_rows, monitor.horizons, monitor.slow_ms, monitor.most_estimates)


def tell(database: Database, task: str, sinks: Sequence[Any], now: datetime) -> int:
    """Tell the alarms that not every sink has taken yet; returns their number.

    Raises:
        SinkError: a sink has not taken an alarm; it and those after it are told by the next run.
    """
    waiting = [alarm for alarm in reversed(read_alarms(database, task)) if alarm["told_at"] is None]
    for alarm in waiting:
        for sink in sinks:
            sink.tell({name: value for name, value in alarm.items() if name != "told_at"})
        with database.writing() as connection:
            connection.execute(sa.update(alarms).where(alarms.c.id == alarm["id"]).values(told_at=now))
    return len(waiting)


def read_days(database: Database, task: str, last: date) -> pd.DataFrame:
    """Return the figures of all days up to the last that is judged, without gaps; a day without answers is NaN."""
    query = sa.select(days.c.day, days.c.figures).where(days.c.task == task, days.c.day <= last).order_by(days.c.day)
    with database.reading(EVERYTHING) as connection:
        rows = connection.execute(query).all()
    table = pd.DataFrame([json.loads(row.figures) for row in rows], index=pd.Index([r.day for r in rows], name="day"))
    if table.empty:
        return table
    index = pd.Index(pd.date_range(rows[0].day, rows[-1].day, freq="D").date, name="day")
    return table.reindex(index).sort_index(axis=1)


def read_alarms(database: Database, task: str) -> list[dict[str, Any]]:
    """Return the alarms of a task, the newest first, as JSON values."""
    query = sa.select(alarms).where(alarms.c.task == task).order_by(alarms.c.day.desc(), alarms.c.figure)
    with database.reading(EVERYTHING) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [{n: v.isoformat() if isinstance(v, date) else v for n, v in row.items()} for row in rows]


def first_regular(table: pd.DataFrame, days: int) -> date | None:
    """Return the first day of the first stretch of so many days of which four in five have answers.

    What was asked before, such as a trial weeks before people came, is no reference. None if there are no days.
    """
    if table.empty:
        return None
    has_answers = table["subjects"].notna().to_numpy(dtype=float)
    length = min(days, len(table))
    shares = np.convolve(has_answers, np.ones(length), "valid") / length
    regular = np.flatnonzero((shares >= REGULAR) & (has_answers[: len(shares)] > 0))
    first: date = table.index[regular[0]] if len(regular) else table.index[-1]
    return first


def watchable(table: pd.DataFrame, monitor: Monitor) -> tuple[list[str], dict[str, str]]:
    """Divide the figures that the drift alarm should watch into those that it can, and the others with the reason."""
    names = [str(n) for n in table.columns if any(fnmatch.fnmatchcase(str(n), p) for p in monitor.drift_figures)]
    reference = table[names].iloc[: monitor.drift.reference_days]
    watched, unwatched = [], {}
    for name in names:
        if why := why_unwatchable(reference[name].to_numpy(dtype=np.float64)):
            unwatched[name] = why
        else:
            watched.append(name)
    return watched, unwatched


def _reference(
    database: Database, task: str, table: pd.DataFrame, watched: list[str], monitor: Monitor, now: datetime
) -> Reference | None:
    """Read the reference, or freeze it as soon as there are enough days; another rule or other figures do so anew."""
    made_by = {"rule": asdict(monitor.drift), "figures": list(monitor.drift_figures)}
    with database.reading(EVERYTHING) as connection:
        text = connection.execute(sa.select(references.c.reference).where(references.c.task == task)).scalar()
    kept = json.loads(text) if text is not None else {}
    if kept.get("made_by") == made_by:
        return _loaded(kept)
    if len(table) < monitor.drift.reference_days or not watched:
        return None
    reference = freeze_reference(table[watched], monitor.drift)
    text = json.dumps({**asdict(reference), "made_by": made_by}, default=_plain)
    with database.writing() as connection:
        database.replace(connection, references, [{"task": task, "reference": text, "frozen_at": now}])
    return reference


def _loaded(kept: dict[str, Any]) -> Reference:
    first, last = (date.fromisoformat(kept[name]) for name in ("first", "last"))
    mean, sd = (np.array(kept[name], dtype=np.float64) for name in ("mean", "sd"))
    return Reference(tuple(kept["features"]), mean, sd, float(kept["threshold"]), first, last)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value.tolist()


def drift_alarms(drifted: Sequence[Alarm], monitor: Monitor) -> list[Raised]:
    """Join the alarms of figures that drift at the same time: one for all inputs, one for all answers.

    Args:
        drifted: alarms of single figures; the part of a name before the first dot says what it belongs to.
        monitor: the rules.
    """
    episodes: list[list[Alarm]] = []
    for alarm in sorted(drifted, key=lambda alarm: (_group(alarm), alarm.day)):
        last = episodes[-1][-1] if episodes else None
        same = last is not None and _group(last) == _group(alarm)
        if last is not None and same and (alarm.since - last.day).days <= monitor.debounce_days:
            episodes[-1].append(alarm)
        else:
            episodes.append([alarm])
    return [_raised(episode, monitor) for episode in episodes]


def _group(alarm: Alarm) -> str:
    return alarm.feature.partition(".")[0]


def _raised(episode: Sequence[Alarm], monitor: Monitor) -> Raised:
    """Tell of figures that drift together by the one that has moved furthest on the first day of an alarm."""
    first = [alarm for alarm in episode if alarm.day == episode[0].day]
    strongest = max(first, key=lambda alarm: abs(alarm.shift))
    others = sorted({alarm.feature for alarm in first} - {strongest.feature})
    more = f"; so do {', '.join(others)}" if others else ""
    rate = f"Without drift, all figures together alarm {monitor.drift.false_alarms_a_month:g} times a month."
    message = f"{describe(strongest)}{more}. {rate} {ADVICE}"
    return Raised(
        "drift", _group(strongest), monitor.drift_severity, strongest.day, min(a.since for a in first), message
    )


def _raise(
    database: Database, task: str, found: Sequence[Raised], debounce_days: int, now: datetime
) -> Sequence[Raised]:
    """Keep the alarms that are new; one that a run was killed after is not raised again."""
    with database.writing() as connection:
        known = sa.select(alarms.c.kind, alarms.c.figure, alarms.c.since).where(alarms.c.task == task)
        fresh = news(found, [(r.kind, r.figure, r.since) for r in connection.execute(known)], debounce_days)
        rows = [alarm.row(task, now) for alarm in fresh]
        if rows:
            database.insert(connection, alarms, rows)
    return fresh
