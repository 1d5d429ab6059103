"""A base model that was trained again: rows to train it on, comparison with the champion, deployment.

The champion and the new model answer the requests of the days that were held out once more, as for adapters. A base
model answers everybody, so that there is one verdict about all subjects, and nothing of it is taken back.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from hallmark.build import Count, Tuple, configuration
from hallmark.errors import ConfigError
from hallmark.files import replacing
from hallmark.outcomes import Observing
from hallmark.prove.bundle import read_hallmark
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.erasures import as_utc
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import audit_log, predictions
from hallmark.retrain.challenge import held_out_losses
from hallmark.retrain.decide import cutoff
from hallmark.retrain.deploy import keep_alarm, let_serve, words_of
from hallmark.retrain.jobs import ACTOR
from hallmark.retrain.start import Champion, open_champion, state_of
from hallmark.watch.adapters import stopped
from hallmark.watch.observed import KNOWN_AT, observed_rows, write_rows
from hallmark.watch.pairs import open_serving
from hallmark.watch.retraining import FEWEST_CLUSTERS, Challenged, RetrainRule, judge_base

OBSERVED = Path("data/sources/observed.parquet")
"""Rows of recorded answers to train on; conf/base/observed.yaml names the same file. `hallmark erase` searches it."""

OLDEST = timedelta(days=366)
BASE_TRIAL = "base"
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


def write_observed(database: Database, champion: Champion, training: Training, rule: RetrainRule, now: datetime) -> int:
    """Write the rows that recorded answers hold to `OBSERVED`, if a setting names it, without the held-out days.

    Returns:
        How many; 0 if no setting names the file.

    Raises:
        ConfigError: a setting names it, and answers hold no rows to learn from; an earlier file is removed.
        RecordsError: the database cannot be read.
    """
    if not any(setting.endswith(f"={OBSERVED}") for setting in training.settings):
        return 0
    OBSERVED.unlink(missing_ok=True)  # its rows may be of people whose retention has passed since
    rows = pd.DataFrame()
    if isinstance(champion.task, Observing):
        rows = observed_rows(database, champion.task, now - OLDEST, {}, ())
        rows = rows[rows[KNOWN_AT] < cutoff(rule, now).replace(tzinfo=None)]
    if rows.empty:
        raise ConfigError(
            f"no recorded answer of {champion.hallmark.task} holds rows to learn from: keep requests "
            "(HALLMARK_RECORDS__KEEP_REQUESTS), or train on the data of the experiment (base=same_data)"
        )
    write_rows(rows, OBSERVED)
    return len(rows)


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

    An adapter of the champion may have been fitted on these days since. Its subject is left out, unless too few
    subjects are left: then the comparison favours the champion.

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
    unseen = losses[~losses["subject_id"].isin(_fitted_since(champion, first))]
    fair = unseen["subject_id"].nunique() >= FEWEST_CLUSTERS and len(unseen) >= rule.fewest_pairs
    return judge_base(unseen if fair else losses, rule)


def _fitted_since(champion: Champion, first: datetime) -> list[str]:
    """Return the subjects whose adapter knows days from some day on."""
    if not champion.personal:
        return []
    learner: Any = champion.learner
    known = learner.known_until(state_of(champion)[1])
    return [subject for subject, newest in known.items() if newest.replace(tzinfo=UTC) >= first]


def deploy_base(database: Database, champion: Champion, bundle: Path, found: Challenged) -> Deployed:
    """Let the bundle serve if it is better.

    Raises:
        BundleError: it knows somebody who was erased, is not signed although it must be, or another version serves
            meanwhile; what serves stays.
        RecordsError: the database cannot be written.
    """
    if read_hallmark(bundle)[1] == champion.digest:
        found = Challenged(False, "no_improvement", "the training had the same result as before")
    if found.deploys:
        told = let_serve(database, champion, bundle, found.text)
        return Deployed(True, f"{told}: {found.text}")
    return Deployed(False, note_rejected(database, champion, found.text))


def note_rejected(database: Database, champion: Champion, why: str) -> str:
    """Say in the audit log that a model was not deployed; returns the sentence.

    Raises:
        RecordsError: the database cannot be written.
    """
    told = f"the base model of {champion.hallmark.task} was trained again, and was not deployed: {why}"
    audit.append(database, ACTOR, REJECTED, champion.trained, told, audit.configured_anchor())
    return told


def keep_trial(champion: Champion, bundle: Path | None, evaluation: Path) -> None:
    """Keep bundle and report of a model that does not serve, for whoever asks why."""
    with replacing(champion.directory / BASE_TRIAL) as fresh:
        if bundle is not None:
            shutil.copytree(bundle, fresh / "bundle")
        shutil.copytree(evaluation, fresh / "evaluation")


def report_failed_training(database: Database, champion: Champion, error: BaseException, now: datetime) -> None:
    """Say in audit log and alarms that a training failed.

    Raises:
        RecordsError: the database cannot be written.
    """
    what, serves = words_of(error), open_champion(champion.pointer).digest
    if serves != champion.digest:
        told = f"A base model that was trained again serves ({serves[:12]}), but what had to follow failed: {what}."
    else:
        told = f"Training the base model again failed: {what}. What serves goes on, and the repository is as it was."
    audit.append(database, ACTOR, FAILED, champion.trained, what, audit.configured_anchor())
    keep_alarm(database, champion.hallmark.task, told, now, "base")


def next_try(database: Database, champion: Champion, training: Training, now: datetime) -> datetime | None:
    """Return when the next training may begin, if the last one is too young; None: now."""
    last = rejected_at(database, champion)
    if last is None or now.astimezone(UTC) - last >= timedelta(days=training.again_days):
        return None
    return last + timedelta(days=training.again_days)
