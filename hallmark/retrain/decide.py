"""Decide what is fitted again, and say of everybody why or why not."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.build import build
from hallmark.errors import ConfigError
from hallmark.files import write_json
from hallmark.records.database import Database
from hallmark.records.rows import REQUESTED
from hallmark.retrain.jobs import note
from hallmark.retrain.start import Champion, state_of
from hallmark.watch.observed import KNOWN_AT, SUBJECT, has_answers, observed_rows
from hallmark.watch.retraining import BaseDecision, Decision, RetrainRule, Standing, decide, decide_base
from hallmark.watch.standing import evidence_of, last_jobs, ledgers_of, population

OVERLAP = timedelta(days=2)  # readings are local, and outcomes come late: answers of before the last fit are read again
ROWS, DECISIONS = "rows.parquet", "decisions.json"


@dataclass(frozen=True)
class Decided:
    """What was decided.

    Attributes:
        champion: version that serves.
        at: when; UTC.
        cutoff: from then on, rows are held out of the comparison; UTC.
        decisions: of every subject.
        base: of the base model.
        rows: new ones of all subjects, with `known_at`.
    """

    champion: Champion
    at: datetime
    cutoff: datetime
    decisions: Sequence[Decision]
    base: BaseDecision
    rows: pd.DataFrame

    @property
    def chosen(self) -> list[str]:
        """Subjects whose adapter is fitted again."""
        return [decision.subject_id for decision in self.decisions if decision.refit]

    def plain(self) -> dict[str, Any]:
        """Return everything but the rows, as JSON values."""
        return {
            "task": self.champion.hallmark.task,
            "champion": self.champion.digest,
            "at": self.at.isoformat(),
            "cutoff": self.cutoff.isoformat(),
            "base": asdict(self.base),
            "decisions": [{**asdict(decision), "refit": decision.refit} for decision in self.decisions],
        }


def decide_now(database: Database, champion: Champion, rule: RetrainRule, now: datetime) -> Decided:
    """Decide, and change nothing.

    Raises:
        RecordsError: the database cannot be read.
        BundleError: the refresh state of the champion is not here, or was changed.
    """
    task, held_out = champion.hallmark.task, cutoff(rule, now)
    promoted = champion.versions().promoted_at(champion.digest)
    people = population(database, task, champion.lineage(), promoted, champion.personal, rule.reference_days, now)
    base = decide_base(people, rule, now.astimezone(UTC).date())
    if not champion.personal:
        return Decided(champion, now, held_out, (), base, pd.DataFrame())
    learner: Any = champion.learner
    known = learner.known_until(state_of(champion)[1])
    since = {subject: newest.replace(tzinfo=UTC) - OVERLAP for subject, newest in known.items()}
    rows = observed_rows(database, champion.task, now - timedelta(days=rule.longest_days), since, known)
    newest = rows[SUBJECT].map(known)
    rows = rows[newest.isna() | (rows["timestamp"] > newest)].reset_index(drop=True)
    decisions = decide(_standings(database, champion, rows, known, held_out, now), rule)
    if text := watched(champion, rule, now):
        decisions = [Decision(d.subject_id, "canary", text) if d.refit else d for d in decisions]
    return Decided(champion, now, held_out, decisions, base, rows)


def keep_decisions(database: Database, decided: Decided, out: Path) -> None:
    """Write decisions and rows into a directory, and to the records why somebody is not fitted again."""
    out.mkdir(parents=True, exist_ok=True)
    decided.rows.to_parquet(out / ROWS, index=False)
    write_json(out / DECISIONS, decided.plain())
    skipped = {d.subject_id: (d.why, d.text) for d in decided.decisions if not d.refit}
    note(database, decided.champion.hallmark.task, "skipped", skipped, decided.at)


def request(database: Database, champion: Champion, subjects: Sequence[str], actor: str, now: datetime) -> None:
    """Ask for adapters to be fitted again; one request of an actor waits at a time.

    Raises:
        ConfigError: the task has no adapters that can be fitted again, or no record and no adapter knows a subject.
        BundleError: the refresh state of the champion is not here.
        RecordsError: the database cannot be written.
    """
    if not champion.personal:
        raise ConfigError(f"{champion.hallmark.task} has no adapters: train its base model again with `make repro`")
    learner: Any = champion.learner
    known = learner.known_until(state_of(champion)[1])
    for subject in subjects:
        if subject not in known and not has_answers(database, champion.hallmark.task, subject):
            raise ConfigError(f"no adapter and no recorded answer is that of {subject!r}: check the id")
    note(
        database,
        champion.hallmark.task,
        REQUESTED,
        dict.fromkeys(subjects, ("requested", f"asked for by {actor}")),
        now,
        actor,
    )


def read_rule(file: Path) -> RetrainRule:
    """Read the rule from a file of conf/retrain.

    Raises:
        ConfigError: it is missing, or a value is refused.
    """
    import yaml

    if not file.is_file():
        raise ConfigError(f"{file} is not there: run this in the repository, or name a file by --rule")
    try:
        rule = build(yaml.safe_load(file.read_text(encoding="utf-8")), "retrain")
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{file} cannot be read as YAML: name a file like conf/retrain/standard.yaml by --rule"
        ) from error
    if not isinstance(rule, RetrainRule):
        raise ConfigError(f"{file} is no rule: its _target_ must be hallmark.watch.retraining.RetrainRule")
    return rule


def _standings(
    database: Database, champion: Champion, rows: pd.DataFrame, known: Any, cutoff: datetime, now: datetime
) -> list[Standing]:
    task = champion.hallmark.task
    jobs, ledgers = last_jobs(database, task), ledgers_of(database, task, champion.digest)
    new = rows[SUBJECT].value_counts()
    before = rows[SUBJECT][rows[KNOWN_AT] < cutoff.replace(tzinfo=None)].value_counts()
    found = []
    for subject in sorted({*known, *rows[SUBJECT].unique()}):
        ledger, job = ledgers.get(subject), jobs.get(subject)
        standing = Standing(
            subject,
            int(new.get(subject, 0)),
            int(before.get(subject, 0)),
            max(0, (now.date() - known[subject].date()).days) if subject in known else None,
            evidence_of(ledger) if ledger else 1.0,
            ledger.excess / ledger.base if ledger and ledger.base else 0.0,
            ledger is not None and ledger.state == "stopped",
            job.client_id if job is not None and job.status == REQUESTED else "",
        )
        found.append(standing)
    return found


def watched(champion: Champion, rule: RetrainRule, now: datetime) -> str:
    """Say which comparison of versions is going on; empty if none is."""
    versions = champion.versions()
    if versions.beside().challenger:
        return "another version serves beside the champion, and is compared with it"
    before, promoted = versions.before(), versions.promoted_at(champion.digest)
    if before is None or promoted is None or champion.digest != champion.trained:
        return ""
    if now - promoted >= timedelta(days=rule.canary_days):
        return ""
    return f"a newly trained version serves for less than {rule.canary_days} days"


def cutoff(rule: RetrainRule, now: datetime) -> datetime:
    """Return from when on days are held out; UTC."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=rule.holdout_days)
