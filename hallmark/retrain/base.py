"""A base model that was trained again: rows to train it on, comparison with the champion, deployment.

The champion and the new model answer the requests of the days that were held out once more, as for adapters. A base
model answers everybody, so that there is one verdict about all subjects, and nothing of it is taken back.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from hallmark.build import Count, Tuple, configuration
from hallmark.files import replacing
from hallmark.outcomes import Observing
from hallmark.prove.bundle import read_hallmark
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.erasures import as_utc
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import audit_log, predictions
from hallmark.retrain.challenge import TRIAL, held_out_losses
from hallmark.retrain.decide import midnight
from hallmark.retrain.deploy import keep_alarm, let_serve, words_of
from hallmark.retrain.jobs import ACTOR
from hallmark.retrain.start import Champion
from hallmark.watch.adapters import stopped
from hallmark.watch.observed import KNOWN_AT, observed_rows, write_rows
from hallmark.watch.pairs import open_serving
from hallmark.watch.retraining import Challenged, RetrainRule, judge_base

OBSERVED = Path("data/sources/observed.parquet")
"""Rows of recorded answers to train on; conf/base/observed.yaml names the same file. `hallmark erase` searches it."""

OLDEST = timedelta(days=366)
REJECTED, FAILED = "base_rejected", "base_failed"


@configuration
class Training:
    """How a base model that is due is trained again.

    Attributes:
        settings: of `make repro`, each KEY=VALUE.
        again_days: after a training whose model was not better, the next begins so many days later at the earliest.
    """

    settings: Tuple[str]
    again_days: Count


@dataclass(frozen=True)
class Deployed:
    """What came of a training.

    Attributes:
        serves: whether the new model serves now.
        text: one sentence.
    """

    serves: bool
    text: str


def write_observed(database: Database, champion: Champion, rule: RetrainRule, now: datetime) -> int:
    """Write the rows that recorded answers hold to `OBSERVED`, without the days that are held out.

    Returns:
        How many; 0, and no file is written, if answers of this task hold none to learn from.

    Raises:
        RecordsError: the database cannot be read.
    """
    if not isinstance(champion.task, Observing):
        return 0
    rows = observed_rows(database, champion.task, now - OLDEST, {}, ())
    rows = rows[rows[KNOWN_AT] < cutoff(rule, now).replace(tzinfo=None)]
    if len(rows):
        write_rows(rows, OBSERVED)
    return len(rows)


def cutoff(rule: RetrainRule, now: datetime) -> datetime:
    """Return from when on days are held out; UTC."""
    return midnight(now) - timedelta(days=rule.holdout_days)


def rejected_at(database: Database, champion: Champion) -> datetime | None:
    """Return when a base model was last trained again that was no better than the one that serves; None if none was."""
    a = audit_log.c
    last = sa.select(sa.func.max(a.at)).where(a.action == REJECTED, a.object == champion.trained)
    with database.reading(EVERYTHING) as connection:
        at = connection.execute(last).scalar()
    return None if at is None else as_utc(at)


def challenge_base(
    database: Database, champion: Champion, bundle: Path, rule: RetrainRule, now: datetime
) -> Challenged:
    """Compare a bundle that was trained again with the champion, on the days that were held out.

    Raises:
        RecordsError: the database cannot be read.
        BundleError: one of the two is damaged.
    """
    first, p = cutoff(rule, now), predictions.c
    asked = sa.select(p.owner_id).where(p.task == champion.hallmark.task, p.asked_at >= first).distinct()
    with database.reading(EVERYTHING) as connection:
        owners = list(connection.execute(asked).scalars())
    losses = held_out_losses(
        database,
        open_serving(bundle),
        open_serving(champion.pointer.resolve()),
        (first, now),
        rule.most_a_day,
        owners,
        stopped(database, champion.digest),
    )
    return judge_base(losses, rule)


def deploy_base(database: Database, champion: Champion, bundle: Path, found: Challenged) -> Deployed:
    """Let the bundle serve if it is better; otherwise keep a copy aside, where it never serves.

    Raises:
        BundleError: it knows somebody who was erased, is not signed although it must be, or another version serves
            meanwhile; what serves stays.
        RecordsError: the database cannot be written.
    """
    task, anchor = champion.hallmark.task, audit.configured_anchor()
    if read_hallmark(bundle)[1] == champion.digest:
        found = Challenged(False, "no_improvement", "the training had the same result as before")
    if found.deploys:
        told = let_serve(database, champion, bundle, found.text)
        return Deployed(True, f"{told}: {found.text}")
    with replacing(champion.directory / TRIAL) as fresh:
        shutil.copytree(bundle, fresh / "bundle")
    told = f"the base model of {task} was trained again, and was not deployed: {found.text}"
    audit.append(database, ACTOR, REJECTED, champion.trained, told, anchor)
    return Deployed(False, told)


def report_failed_training(database: Database, champion: Champion, error: BaseException, now: datetime) -> None:
    """Say in audit log and alarms that a training failed.

    Raises:
        RecordsError: the database cannot be written.
    """
    what = words_of(error)
    audit.append(database, ACTOR, FAILED, champion.trained, what, audit.configured_anchor())
    told = f"Training the base model again failed: {what}. What serves goes on, and the repository is as it was."
    keep_alarm(database, champion.hallmark.task, told, now)


def next_try(database: Database, champion: Champion, training: Training, now: datetime) -> datetime | None:
    """Return when the next training may begin, if the last one is too young; None: now."""
    last = rejected_at(database, champion)
    if last is None or now.astimezone(UTC) - last >= timedelta(days=training.again_days):
        return None
    return last + timedelta(days=training.again_days)
