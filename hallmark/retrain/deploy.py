"""Let a challenger serve, or keep it aside: say what came of every decision in records, audit log and alarms."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from hallmark.errors import HallmarkError
from hallmark.files import read_json
from hallmark.forget.bundles import refuse_erased
from hallmark.prove.bundle import read_hallmark
from hallmark.prove.serving import NAME, Switch
from hallmark.prove.signature import sign
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.tables import alarms
from hallmark.retrain.challenge import FINAL, TRIAL, check_decided, chosen_rows, fit_final, keep_refreshed
from hallmark.retrain.decide import DECISIONS, ROWS
from hallmark.retrain.jobs import ACTOR, note
from hallmark.retrain.start import REFRESHED, Champion, keep_state, open_champion
from hallmark.switching import note as note_switch
from hallmark.watch.adapters import carry_ledgers
from hallmark.watch.alarms import Raised
from hallmark.watch.never_worse import Ledger, NeverWorseRule, refitted
from hallmark.watch.retraining import Challenged

SIGNING_KEY = "HALLMARK_SIGNING_KEY"


def deploy(
    database: Database, champion: Champion, directory: Path, found: Challenged, rule: NeverWorseRule, now: datetime
) -> str:
    """Let the challenger serve if it may; returns one sentence that says what came of it.

    Raises:
        BundleError: it knows somebody who was erased, or is not signed although it must be; the champion serves on.
        RecordsError: the database cannot be written.
    """
    task, decided = champion.hallmark.task, check_decided(champion, directory)
    since = datetime.fromisoformat(decided["at"])
    reasons = {d["subject_id"]: (d["why"], d["text"]) for d in decided["decisions"] if d["refit"]}
    if not found.deploys:
        note(database, task, "rejected", dict.fromkeys(reasons, (found.why, found.text)), now, since=since)
        digest = read_hallmark(directory / TRIAL / "bundle")[1] if (directory / TRIAL).is_dir() else champion.digest
        told = f"the challenger of {task} was not deployed: {found.text}"
        audit.append(database, ACTOR, "challenger_rejected", digest, told, audit.configured_anchor())
        clean(directory, keep=TRIAL)
        return told
    kept = fit_final(champion, directory, found.taken_back)
    switch = _promote(database, champion, directory / FINAL, set(kept), rule)
    keep_refreshed(directory, REFRESHED)
    took = f"{found.text}; {len(kept)} adapters were fitted again, {len(found.taken_back)} stay as they were"
    note(database, task, "deployed", {s: reasons[s] for s in kept}, now, since=since)
    worse = ("no_improvement", "it is expected to be worse for this subject, from the days that were held out")
    note(database, task, "rejected", dict.fromkeys(found.taken_back, worse), now, since=since)
    told = _note(database, switch, took)
    clean(directory)
    return f"{told}: {took}"


def words_of(error: BaseException) -> str:
    """Say what failed: an unexpected error's own text may hold values."""
    return str(error) if isinstance(error, HallmarkError) else type(error).__name__


def report_failure(database: Database, champion: Champion, error: BaseException, now: datetime) -> None:
    """Say in records, audit log and alarms that a run has failed, and whether another version serves nevertheless.

    Raises:
        RecordsError: the database cannot be written.
    """
    task, directory, what = champion.hallmark.task, champion.directory, words_of(error)
    serves = open_champion(champion.pointer).digest
    if serves != champion.digest:
        told = f"What was fitted again serves ({serves[:12]}), but what had to follow failed: {what}."
    else:
        told = f"Fitting adapters again failed: {what}. What serves goes on; mend it, then `make retrain`."
        if (directory / DECISIONS).is_file() and (directory / ROWS).is_file():
            reasons = dict.fromkeys(chosen_rows(directory)["subject_id"].unique(), ("failed", what))
            since = datetime.fromisoformat(read_json(directory / DECISIONS)["at"])
            note(database, task, "failed", reasons, now, since=since)
    audit.append(database, ACTOR, "retraining_failed", task, what, audit.configured_anchor())
    keep_alarm(database, task, told, now)
    clean(directory)


def keep_alarm(database: Database, task: str, told: str, now: datetime, what: str = "challenger") -> None:
    """Write the alarm of a run that has failed to the records; `tell` tells it. One of `what` a day is news.

    Raises:
        RecordsError: the database cannot be written.
    """
    today = now.astimezone(UTC).date()
    alarm = Raised("retrain", what, "critical", today, today, told)
    with database.writing() as connection:
        database.insert(connection, alarms, [alarm.row(task, now)])


def _promote(database: Database, champion: Champion, made: Path, again: set[str], rule: NeverWorseRule) -> Switch:
    """Sign the bundle if it must be signed, keep its state, carry the ledgers over, and let it serve."""
    bundle = made / "bundle"
    _make_acceptable(database, bundle)

    def go_on(owner: str, ledger: Ledger) -> Ledger:
        return refitted(ledger, rule) if owner in again else ledger

    digest = read_hallmark(bundle)[1]
    keep_state(champion, made / "refresh_state", digest[:NAME])
    carry_ledgers(database, champion.digest, digest, go_on)
    return _switch(champion, bundle)


def let_serve(database: Database, champion: Champion, bundle: Path, why: str) -> str:
    """Let a newly trained bundle serve, if the champion still does; returns one sentence that says what serves.

    Raises:
        BundleError: it knows somebody who was erased, is not signed although it must be, or another version serves
            meanwhile.
        RecordsError: the audit log has no entry of it.
    """
    _make_acceptable(database, bundle)
    return _note(database, _switch(champion, bundle), why)


def _make_acceptable(database: Database, bundle: Path) -> None:
    """Refuse a bundle that knows somebody who was erased, and sign it if there is a key."""
    refuse_erased(database, bundle)
    if private := os.environ.get(SIGNING_KEY):
        sign(bundle, Path(private), os.environ.get("HALLMARK_SIGNING_PASSWORD"))


def _switch(champion: Champion, bundle: Path) -> Switch:
    key = os.environ.get("HALLMARK_PUBLIC_KEY")
    return champion.versions(Path(key) if key else None).promote(bundle, only_over=champion.digest)


def _note(database: Database, switch: Switch, why: str) -> str:
    return note_switch(switch, "promoted", why, database.url.render_as_string(hide_password=False), actor=ACTOR)


def clean(directory: Path, keep: str = "") -> None:
    """Remove rows of subjects and what is not needed any more."""
    for name in (TRIAL, FINAL):
        if name != keep:
            shutil.rmtree(directory / name, ignore_errors=True)
    for file in (ROWS, DECISIONS, f".{TRIAL}.rows.parquet", f".{FINAL}.rows.parquet"):
        (directory / file).unlink(missing_ok=True)
