"""Judge the adapters that serve: every day with outcomes is added to the ledger of its subject, once."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from hallmark.build import Count, configuration
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.erasures import digest_of, read_erasures
from hallmark.records.pseudonyms import pseudonym
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import alarms, ledgers, subject_days
from hallmark.watch.alarms import Raised
from hallmark.watch.figures import Figures
from hallmark.watch.intake import alone, keep_figures
from hallmark.watch.never_worse import Ledger, NeverWorseRule, update
from hallmark.watch.pairs import EPOCH, STOPPED, Compared, Serving, can_be_personal, compare_day


@configuration
class Adapters:
    """How adapters are judged.

    Attributes:
        rule: when one is stopped, and when it serves again.
        settle_days: a day is judged when so many have passed after it; outcomes that come later do not count.
        most_a_day: answers of a subject's day that are compared.
    """

    rule: NeverWorseRule
    settle_days: Count
    most_a_day: Count


@dataclass(frozen=True)
class Change:
    """An adapter that was stopped, or serves again.

    Attributes:
        subject_id: whose.
        day: of the predictions that decided it.
        state: `stopped` or `serving`.
        reason: why.
    """

    subject_id: str
    day: date
    state: str
    reason: str


def judge(database: Database, serving: Serving, settings: Adapters, now: datetime) -> list[Change]:
    """Judge all days that are settled and have not been judged yet, in order.

    What was compared is added to the figures of the subject's day, as `pair.adapter`, `pair.base` and `pair.covered`,
    in the same transaction as the ledgers, the entries of the audit log and the alarms: a monitor that is killed has
    judged whole days, and told of them.

    Args:
        database: of the records.
        serving: the version whose adapters are judged.
        settings: the rule.
        now: UTC, with a zone.

    Raises:
        RecordsError: the database cannot be read or written.
    """
    changes: list[Change] = []
    if not can_be_personal(serving.task):
        return changes
    last = now.astimezone(UTC).date() - timedelta(days=settings.settle_days)
    for day in _unjudged(database, serving, last):
        coverage = settings.rule.nominal_coverage
        compared = compare_day(database, serving, day, settings.most_a_day, coverage)
        if compared:
            changes += _add_day(database, serving, settings.rule, day, compared, now)
    return changes


def stop_alarms(changes: Sequence[Change]) -> list[Raised]:
    """Make an alarm of every day on which adapters were stopped; it names no subject, for alarms are told to others."""
    raised = []
    for day in sorted({change.day for change in changes if change.state == STOPPED}):
        stops = sum(change.state == STOPPED for change in changes if change.day == day)
        count = "An adapter was" if stops == 1 else f"{stops} adapters were"
        message = (
            f"{count} stopped on outcomes of {day}, because the base model does as well or better for these subjects: "
            "it answers them now. `hallmark adapters` lists whom and why; refit these adapters on recent data."
        )
        raised.append(Raised("never_worse", "adapters", "warning", day, day, message))
    return raised


def read_ledgers(database: Database, task: str, digest: str = "") -> list[dict[str, Any]]:
    """Return the ledgers of a task, the stopped ones first: subject, digest, state, reason, last day and `Ledger`."""
    query = sa.select(ledgers).where(ledgers.c.task == task)
    if digest:
        query = query.where(ledgers.c.hallmark_sha256 == digest)
    query = query.order_by(ledgers.c.state.desc(), ledgers.c.owner_id)
    with database.reading(EVERYTHING) as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    return [{**row, "ledger": _loaded(row["ledger"])} for row in rows]


def stopped(database: Database, digest: str) -> dict[str, str]:
    """Return the subjects of a version whose adapters may not serve, each with the reason."""
    query = sa.select(ledgers.c.owner_id, ledgers.c.reason).where(
        ledgers.c.hallmark_sha256 == digest, ledgers.c.state == STOPPED
    )
    with database.reading(EVERYTHING) as connection:
        return {row.owner_id: row.reason for row in connection.execute(query)}


def carry_ledgers(
    database: Database, before: str, after: str, again: Callable[[str, Ledger], Ledger] = lambda owner, ledger: ledger
) -> None:
    """Let the ledgers of a version go on for the one that takes its place with the same base model, by their digests.

    Args:
        database: of the records.
        before: digest of the version.
        after: digest of the one that takes its place.
        again: how the ledger of a subject goes on, such as `refitted` where its adapter was fitted again.
    """
    with database.writing() as connection:
        known = connection.execute(sa.select(ledgers).where(ledgers.c.hallmark_sha256 == before)).mappings()
        rows = []
        for row in known:
            ledger = _loaded(row["ledger"])
            goes_on = again(row["owner_id"], ledger)
            rows.append({**row, "hallmark_sha256": after, **({} if goes_on is ledger else _kept(goes_on))})
        database.insert(connection, ledgers, rows)


def _unjudged(database: Database, serving: Serving, last: date) -> Sequence[date]:
    mine = ledgers.c.hallmark_sha256 == serving.hallmark_sha256
    with database.reading(EVERYTHING) as connection:
        judged = connection.execute(sa.select(sa.func.max(ledgers.c.last_day)).where(mine)).scalar() or EPOCH
        query = (
            sa.select(subject_days.c.day)
            .distinct()
            .where(
                subject_days.c.task == serving.task.name,
                subject_days.c.hallmark_sha256 == serving.hallmark_sha256,
                subject_days.c.day > judged,
                subject_days.c.day <= last,
            )
        )
        return list(connection.execute(query.order_by(subject_days.c.day)).scalars())


def _add_day(
    database: Database,
    serving: Serving,
    rule: NeverWorseRule,
    day: date,
    compared: Mapping[str, Compared],
    now: datetime,
) -> list[Change]:
    """Add a day to the ledgers of its subjects and to its figures; returns what has changed."""
    task, digest = serving.task.name, serving.hallmark_sha256
    changes: list[Change] = []
    rows: list[dict[str, Any]] = []
    with database.writing() as connection:
        alone(database, connection)
        mine = sa.select(ledgers).where(ledgers.c.task == task, ledgers.c.hallmark_sha256 == digest)
        known = {row.owner_id: _loaded(row.ledger) for row in connection.execute(mine) if row.owner_id in compared}
        if any(row.last_day >= day for row in connection.execute(mine)):
            return []  # another monitor was faster
        erased = read_erasures(connection)
        compared = {owner: sums for owner, sums in compared.items() if digest_of(owner) not in erased}
        for owner, sums in compared.items():
            before = known.get(owner, Ledger())
            after = update(before, [sums.as_day(day)], rule)
            if after.state != before.state:
                changes.append(Change(owner, day, after.state, after.reason))
            rows.append(
                {
                    "task": task,
                    "hallmark_sha256": digest,
                    "owner_id": owner,
                    "last_day": day,
                    **_kept(after),
                }
            )
        database.replace(connection, ledgers, rows)
        database.insert(connection, alarms, [alarm.row(task, now) for alarm in stop_alarms(changes)])
        for change in changes:
            who = pseudonym(database, connection, change.subject_id)
            audit.add(
                database,
                connection,
                "monitor",
                f"adapter_{change.state}",
                who,
                f"{task} {digest[:12]}: {change.reason}",
            )
        keep_figures(database, connection, task, {(day, digest, o): _figures(sums) for o, sums in compared.items()})
    return changes


def _figures(sums: Compared) -> Figures:
    found: Figures = {"pair.adapter": [sums.outcomes, sums.adapter], "pair.base": [sums.outcomes, sums.base]}
    return found | ({"pair.covered": [sums.with_interval, sums.covered]} if sums.with_interval else {})


def _kept(ledger: Ledger) -> dict[str, str]:
    text = json.dumps(asdict(ledger), default=np.ndarray.tolist)
    return {"state": ledger.state, "reason": ledger.reason, "ledger": text}


def _loaded(text: str) -> Ledger:
    kept = json.loads(text)
    arrays = {name: np.asarray(kept[name], dtype=np.float64) for name in ("worse", "uncovered", "better")}
    return Ledger(**{**kept, **arrays})
