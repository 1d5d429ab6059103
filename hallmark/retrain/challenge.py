"""Fit the chosen adapters again without the days that are held out, and compare the challenger on these."""

import shutil
from collections.abc import Collection, Container
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.errors import BundleError, DataError
from hallmark.files import read_json, replacing
from hallmark.records.database import Database
from hallmark.retrain.decide import DECISIONS, ROWS
from hallmark.retrain.start import Champion, state_of
from hallmark.stages.refresh import refresh
from hallmark.watch.adapters import stopped
from hallmark.watch.observed import KNOWN_AT, SUBJECT
from hallmark.watch.pairs import Serving, compare_again, open_serving
from hallmark.watch.retraining import Challenged, RetrainRule, judge_challenger

TRIAL, FINAL = "trial", "final"


def fit(champion: Champion, rows: pd.DataFrame, out: Path) -> None:
    """Write the champion's bundle with the adapters of some subjects fitted again, and the state that belongs to it.

    Args:
        champion: whose adapters go on.
        rows: of the subjects whose adapter is fitted again.
        out: directory that gets `bundle` and `refresh_state`, both or none.

    Raises:
        DataError: the rows cannot be cleaned, or none of them is new.
    """
    bundle, state = state_of(champion)
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f".{out.name}.rows.parquet")
    try:
        rows.drop(columns=KNOWN_AT).to_parquet(file, index=False)
        refresh(file, bundle, state, out)
    finally:
        file.unlink(missing_ok=True)


def fit_trial(champion: Champion, directory: Path) -> bool:
    """Fit all that was chosen on the rows before the cutoff; returns whether there was anything to fit."""
    decided = check_decided(champion, directory)
    rows = chosen_rows(directory)
    before = rows[rows[KNOWN_AT] < _naive(decided["cutoff"])]
    if before.empty:
        return False
    fit(champion, before, directory / TRIAL)
    return True


def check_decided(champion: Champion, directory: Path) -> Any:
    """Return the decisions, if they were made about the version that serves now.

    Raises:
        BundleError: another version serves meanwhile, such as after a rollback.
    """
    decided = read_json(directory / DECISIONS)
    if decided["champion"] != champion.digest:
        raise BundleError("another version serves than when it was decided what to fit again: run `make retrain` again")
    return decided


def chosen_rows(directory: Path) -> pd.DataFrame:
    """Return the new rows of the subjects whose adapter is fitted again."""
    chosen = {d["subject_id"] for d in read_json(directory / DECISIONS)["decisions"] if d["refit"]}
    rows = pd.read_parquet(directory / ROWS)
    return rows[rows[SUBJECT].isin(chosen)]


def challenge(database: Database, champion: Champion, directory: Path, rule: RetrainRule) -> Challenged:
    """Compare the challenger with the champion on the days that were held out.

    Both answer the same recorded requests; subjects whose adapter is stopped are answered by the champion's base model,
    as they are served.

    Raises:
        RecordsError: the database cannot be read.
        BundleError: one of the two is damaged.
    """
    decided = check_decided(champion, directory)
    refitted = [d for d in decided["decisions"] if d["refit"]]
    chosen = [d["subject_id"] for d in refitted]
    losses = held_out_losses(
        database,
        open_serving(directory / TRIAL / "bundle"),
        open_serving(champion.pointer.resolve()),
        (datetime.fromisoformat(decided["cutoff"]), datetime.fromisoformat(decided["at"])),
        rule.most_a_day,
        chosen,
        stopped(database, champion.digest),
    )
    return judge_challenger(losses, chosen, rule, sum(d["stale"] for d in refitted) / max(len(refitted), 1))


def held_out_losses(
    database: Database,
    challenger: Serving,
    champion: Serving,
    span: tuple[datetime, datetime],
    most: int,
    chosen: Collection[str],
    held_back: Container[str],
) -> pd.DataFrame:
    """Return mean losses of both by subject and day, as `judge_challenger` reads them."""
    rows, day = [], span[0].date()
    while day <= span[1].date():
        for subject, sums in compare_again(database, challenger, champion, day, most, chosen, held_back).items():
            rows.append((subject, sums.base / sums.outcomes, sums.adapter / sums.outcomes))
        day += timedelta(days=1)
    return pd.DataFrame(rows, columns=["subject_id", "champion", "challenger"])


def fit_final(champion: Champion, directory: Path, taken_back: Collection[str]) -> list[str]:
    """Fit those whose challenger was better on all their new rows; returns whom."""
    rows = chosen_rows(directory)
    rows = rows[~rows[SUBJECT].isin(taken_back)]
    if rows.empty:
        raise DataError("the challenger is better on the whole, but for no single subject: nothing to deploy")
    fit(champion, rows, directory / FINAL)
    return sorted(rows[SUBJECT].unique())


def keep_refreshed(directory: Path, refreshed: Path) -> None:
    """Let later fits go on from what serves now."""
    with replacing(refreshed) as fresh:
        for name in ("bundle", "refresh_state"):
            shutil.copytree(directory / FINAL / name, fresh / name)


def _naive(time: str) -> datetime:
    return datetime.fromisoformat(time).replace(tzinfo=None)
