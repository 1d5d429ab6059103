"""State of the daily refresh: online-ridge states and recent readings of all subjects; save, load, update.

It keeps every subject's online ridge as of the midnight of the last day with readings, and the readings that later
midnights still need: a few weeks, whatever the record's length. Readings that arrive in the order of their days give
the same history as all readings together; a day that arrives after a later one is not fitted. The readings are
personal data: the state stays beside the model and enters no bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hallmark.arrays import Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.history import History, HistoryState, build_history
from hallmark.families.forecasting.online_ridge import Forecast
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, TimeGrid, build_panel, nearest_slots
from hallmark.files import as_bundle_error, read_json, sha256, write_json

RIDGE, READINGS, INDEX = "ridge.safetensors", "readings.parquet", "state.json"
VALUE = "value"
FEW, FAR_DAYS = 12, 7  # readings, and days: fewer and farther are taken for a wrong date


@dataclass(frozen=True)
class RefreshState:
    """State of the daily refresh of all subjects.

    Attributes:
        subjects: ids, ascending.
        history_state: what remains of the days before `readings`.
        readings: columns subject_id, timestamp (on the grid, ascending) and value, of the days still needed.
        base: sha256 of the base directory whose population model the ridges correct.
        default_method: the method of subjects that join later.
    """

    subjects: tuple[str, ...]
    history_state: HistoryState
    readings: pd.DataFrame
    base: str
    default_method: str


def initial_state(
    panel: Panel, assembler: Assembler, base: str, default_method: str, population: Forecast
) -> tuple[History, RefreshState]:
    """Compute the history of all subjects, and the state that the first refresh starts from.

    Args:
        panel: all readings.
        assembler: grid, units and settings of the base model.
        base: sha256 of its directory.
        default_method: the method of subjects that join later.
        population: forecast of the population model, which the online ridge corrects.
    """
    history_state = HistoryState.empty(len(panel.subjects), panel.grid, assembler.history, assembler.scale)
    history = build_history(panel, assembler.history, assembler.scale, population, history_state)
    return history, _shortened(
        RefreshState(panel.subjects, history_state, readings_of(panel), base, default_method), assembler
    )


@dataclass(frozen=True)
class Update:
    """Result of `update`.

    Attributes:
        history: the newest midnights of all subjects.
        state: that the next refresh starts from.
        changed: subjects that have new readings; what the history says of all others differs by rounding alone.
        counts: subjects, joined (new subjects), readings (added), known (already there), not_fitted (of days before the
            state's last day: they count in the statistics alone), late (older than the state reaches back: left out),
            outliers (too few and too far ahead: left out).
    """

    history: History
    state: RefreshState
    changed: frozenset[str]
    counts: Mapping[str, int]


def update(
    state: RefreshState, rows: pd.DataFrame, value: str, assembler: Assembler, population: Any, at_once: int = 1
) -> Update:
    """Add readings: of a new day, of several days, of new subjects.

    A reading that is already there stays as it was. One of a day before the state's last day counts in the statistics
    but is not fitted: a ridge never goes back. A few readings far ahead of all others are left out, or one wrong date
    would end a subject's history. Time is that of the new days' midnights plus one.

    Args:
        state: of the last refresh; not changed.
        rows: clean rows, columns subject_id, timestamp and `value`.
        value: name of the value column.
        assembler: of the base model that the state names.
        population: makes the forecast of the population model from a panel.
        at_once: see `build_history`.
    """
    fresh = pd.DataFrame({"subject_id": rows["subject_id"].astype(str), "timestamp": rows["timestamp"]})
    slot = nearest_slots(fresh["timestamp"].to_numpy(), assembler.grid.step_minutes)
    fresh["timestamp"] = (slot * assembler.grid.step_minutes).astype("datetime64[m]").astype("datetime64[us]")
    fresh[VALUE] = rows[value].to_numpy(dtype=np.float32)
    last = (
        pd.Series(state.history_state.ridge.last_day, index=list(state.subjects))
        .reindex(fresh["subject_id"])
        .to_numpy()
    )
    day = fresh["timestamp"].to_numpy().astype("datetime64[D]").astype(np.int64)
    late = day < last - days_kept(assembler.grid, assembler.history.days)  # never a new subject's, whose last is NaN
    outliers = _outliers(fresh, day, last)
    both = pd.concat([state.readings, fresh[~late & ~outliers]], ignore_index=True)
    readings = both.drop_duplicates(["subject_id", "timestamp"]).sort_values(["subject_id", "timestamp"])
    changed = frozenset(readings["subject_id"][readings.index >= len(state.readings)])
    panel = build_panel(readings, VALUE, assembler.grid)
    places = np.searchsorted(panel.subjects, state.subjects)
    seen = np.zeros(len(panel.subjects), dtype=np.int64)
    seen[places] = state.history_state.seen
    history_state = HistoryState(state.history_state.ridge.with_more_subjects(places, len(panel.subjects)), seen)
    history = build_history(panel, assembler.history, assembler.scale, population(panel), history_state, at_once)
    taken = len(readings) - len(state.readings)
    counts = {
        "subjects": fresh["subject_id"].nunique(),
        "joined": len(panel.subjects) - len(state.subjects),
        "readings": taken,
        "known": len(fresh) - int((late | outliers).sum()) - taken,
        "not_fitted": int((~late & (day < last)).sum()),
        "late": int(late.sum()),
        "outliers": int(outliers.sum()),
    }
    longer = replace(
        state, subjects=panel.subjects, history_state=history_state, readings=readings.reset_index(drop=True)
    )
    return Update(history, _shortened(longer, assembler), changed, counts)


def _outliers(fresh: pd.DataFrame, day: Integers, last: Any) -> Any:
    """Find readings of a day that holds fewer than an hour's and lies over a week after the subject's day before it."""
    days = pd.DataFrame({"subject": fresh["subject_id"].to_numpy(), "day": day, "last": last})
    by = days.groupby(["subject", "day"], sort=True).agg(count=("day", "size"), last=("last", "first")).reset_index()
    before = by.groupby("subject")["day"].shift().fillna(by["last"])
    alone = by[(by["count"] < FEW) & (by["day"] - before > FAR_DAYS)]
    return pd.MultiIndex.from_frame(days[["subject", "day"]]).isin(pd.MultiIndex.from_frame(alone[["subject", "day"]]))


def days_kept(grid: TimeGrid, statistics_days: int) -> int:
    """Days before the last one that a later midnight may need: for statistics, or for windows not yet fitted."""
    window = grid.context_length * grid.step_minutes + grid.horizons_minutes[-1]
    return max(statistics_days + 1, -(-window // MINUTES_A_DAY) + 2)


def known_readings(state: RefreshState, history: History, assembler: Assembler) -> Any:
    """Tell which grid steps of the last days hold a reading: what the two newest midnights' statistics rest on.

    Returns:
        (S, D, T): subjects, days up to the last one with readings (one more than the statistics have), steps of a day.
    """
    days, steps = assembler.history.days, MINUTES_A_DAY // assembler.grid.step_minutes
    known = np.zeros((len(state.subjects), days + 1, steps), dtype=bool)
    code = np.searchsorted(state.subjects, state.readings["subject_id"].to_numpy(dtype=str))
    minute = state.readings["timestamp"].to_numpy().astype("datetime64[m]").astype(np.int64)
    day = minute // MINUTES_A_DAY - (history.first_day + history.days - 2 - days)[code]
    kept = day >= 0
    known[code[kept], day[kept], (minute[kept] % MINUTES_A_DAY) // assembler.grid.step_minutes] = True
    return known


def readings_of(panel: Panel) -> pd.DataFrame:
    """Return a panel's readings as rows: subject_id, timestamp on the grid, value."""
    known = np.flatnonzero(~np.isnan(panel.values))
    names = np.asarray(panel.subjects, dtype=object)
    times = panel.minute[known].astype("datetime64[m]").astype("datetime64[us]")
    return pd.DataFrame({"subject_id": names[panel.subject[known]], "timestamp": times, VALUE: panel.values[known]})


def _shortened(state: RefreshState, assembler: Assembler) -> RefreshState:
    """Drop the readings that no later midnight needs; their days are counted."""
    code = np.searchsorted(state.subjects, state.readings["subject_id"].to_numpy(dtype=str))
    day: Integers = state.readings["timestamp"].to_numpy().astype("datetime64[D]").astype(np.int64)
    first = state.history_state.ridge.last_day - days_kept(assembler.grid, assembler.history.days)
    old = day < first[code]
    forgotten = np.unique(np.stack([code[old], day[old]]), axis=1)[0]
    seen = state.history_state.seen + np.bincount(forgotten, minlength=len(state.subjects))
    return replace(
        state,
        history_state=replace(state.history_state, seen=seen),
        readings=state.readings[~old].reset_index(drop=True),
    )


def save_state(directory: Path, state: RefreshState, personalisation: str) -> None:
    """Write a state; `personalisation` is the sha256 of the `subjects.json` that was written with it."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(state.history_state.ridge.tensors(), str(directory / RIDGE))
    state.readings.to_parquet(directory / READINGS, index=False)
    index = {
        "base": state.base,
        "default_method": state.default_method,
        "personalisation": personalisation,
        "subjects": list(state.subjects),
        "seen": state.history_state.seen.tolist(),
        "sha256": {name: sha256(directory / name) for name in (RIDGE, READINGS)},
    }
    write_json(directory / INDEX, index)


def known_until(directory: Path) -> dict[str, datetime]:
    """Return the time of the newest reading of every subject in a state.

    Raises:
        BundleError: it is missing, or was changed.
    """
    with as_bundle_error(directory, "`dvc repro train` writes a new one"):
        if sha256(directory / READINGS) != read_json(directory / INDEX)["sha256"][READINGS]:
            raise BundleError(f"{directory / READINGS} was changed after it was written (sha256)")
        readings = pd.read_parquet(directory / READINGS, columns=["subject_id", "timestamp"])
    newest = readings.groupby("subject_id")["timestamp"].max()
    return {str(subject): time.to_pydatetime() for subject, time in newest.items()}


def load_state(directory: Path, assembler: Assembler, base: str, personalisation: str) -> RefreshState:
    """Read a state.

    Args:
        directory: of the state.
        assembler: of the base model.
        base: sha256 of its directory.
        personalisation: sha256 of the `subjects.json` that the state must belong to.

    Raises:
        BundleError: it is missing, was changed, or belongs to another base model or another refresh.
    """
    with as_bundle_error(directory, "`dvc repro train` writes a new one"):
        index = read_json(directory / INDEX)
        if index["base"] != base:
            raise BundleError(
                f"{directory} belongs to base model {index['base'][:12]}, this is {base[:12]}: "
                "take the state of the same training run"
            )
        if index["personalisation"] != personalisation:
            raise BundleError(
                f"{directory} is of another refresh than the adapters in the bundle: take the state written with them"
            )
        for name, digest in index["sha256"].items():
            if sha256(directory / name) != digest:
                raise BundleError(f"{directory / name} was changed after it was written (sha256)")
        subjects = tuple(index["subjects"])
        readings = pd.read_parquet(directory / READINGS)
        history_state = HistoryState.empty(len(subjects), assembler.grid, assembler.history, assembler.scale)
        history_state.ridge.restore(load_file(str(directory / RIDGE)))
        history_state = replace(history_state, seen=np.asarray(index["seen"], dtype=np.int64))
        return RefreshState(subjects, history_state, readings, base, index["default_method"])
