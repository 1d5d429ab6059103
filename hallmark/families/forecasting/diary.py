"""State of the daily refresh: online-ridge states and recent readings of all subjects; save, load, update.

It keeps every subject's online ridge as it stood at the midnight of the last day with readings, and the readings that
later midnights still look at: a few weeks, whatever the record's length. Readings that come in the order of their days
give what a history of all readings would say; a day that comes after a later one no longer teaches. The readings are
personal data: a diary stays beside the model and enters no bundle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hallmark.arrays import Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.history import History, SoFar, build_history
from hallmark.families.forecasting.online_ridge import Forecast
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Grid, Panel, build_panel, nearest_slots
from hallmark.files import read_json, readable, sha256, write_json

RIDGE, READINGS, INDEX = "ridge.safetensors", "readings.parquet", "diary.json"
VALUE = "value"
FEW, FAR_DAYS = 12, 7  # readings, and days: fewer and farther are taken for a wrong date


@dataclass(frozen=True)
class Diary:
    """Everybody's diary.

    Attributes:
        subjects: ids, ascending.
        so_far: what the days before `readings` have left.
        readings: columns subject_id, timestamp (on the grid, ascending) and value of the days that are still looked at.
        base: sha256 of the base directory whose population model the ridges mend.
        joining: the method of whoever joins.
    """

    subjects: tuple[str, ...]
    so_far: SoFar
    readings: pd.DataFrame
    base: str
    joining: str


def begin(panel: Panel, assembler: Assembler, base: str, joining: str, population: Forecast) -> tuple[History, Diary]:
    """Compute everybody's history, and the diary to go on from.

    Args:
        panel: all readings.
        assembler: grid, units and settings of the base model.
        base: sha256 of its directory.
        joining: the method of whoever joins.
        population: what the online ridge mends.
    """
    so_far = SoFar.nothing(len(panel.subjects), panel.grid, assembler.history, assembler.scale)
    history = build_history(panel, assembler.history, assembler.scale, population, so_far)
    return history, _shortened(Diary(panel.subjects, so_far, readings_of(panel), base, joining), assembler)


@dataclass(frozen=True)
class TakenUp:
    """What became of new readings.

    Attributes:
        history: everybody's newest midnights.
        diary: to go on from next time.
        counts: subjects, joined (new ones), readings (taken up), known (already there), untaught (of days before the
            diary's last: in the statistics alone), late (older than the diary looks back), stray (left out: too few
            and too far ahead).
    """

    history: History
    diary: Diary
    counts: Mapping[str, int]


def take_up(diary: Diary, rows: pd.DataFrame, value: str, assembler: Assembler, population: Any) -> TakenUp:
    """Add readings: of a new day, of several, of new people.

    A reading that is already there stays as it was. One of a day before the diary's last counts in the statistics, but
    it comes too late to teach: a ridge never goes back. A few readings far ahead of everything else are left out, or
    one wrong date would end a person's history. Time is that of the new days' midnights plus one.

    Args:
        diary: until now; not changed.
        rows: clean rows, columns subject_id, timestamp and `value`.
        value: name of the value column.
        assembler: of the base model that the diary names.
        population: makes the forecast of the population model from a panel.
    """
    fresh = pd.DataFrame({"subject_id": rows["subject_id"].astype(str), "timestamp": rows["timestamp"]})
    slot = nearest_slots(fresh["timestamp"].to_numpy(), assembler.grid.step_minutes)
    fresh["timestamp"] = (slot * assembler.grid.step_minutes).astype("datetime64[m]").astype("datetime64[us]")
    fresh[VALUE] = rows[value].to_numpy(dtype=np.float32)
    last = pd.Series(diary.so_far.ridge.last_day, index=list(diary.subjects)).reindex(fresh["subject_id"]).to_numpy()
    day = fresh["timestamp"].to_numpy().astype("datetime64[D]").astype(np.int64)
    late = day < last - days_kept(assembler.grid, assembler.history.days)  # never a new subject's, whose last is NaN
    stray = _stray(fresh, day, last)
    both = pd.concat([diary.readings, fresh[~late & ~stray]], ignore_index=True)
    readings = both.drop_duplicates(["subject_id", "timestamp"]).sort_values(["subject_id", "timestamp"])
    panel = build_panel(readings, VALUE, assembler.grid)
    places = np.searchsorted(panel.subjects, diary.subjects)
    seen = np.zeros(len(panel.subjects), dtype=np.int64)
    seen[places] = diary.so_far.seen
    so_far = SoFar(diary.so_far.ridge.grown(places, len(panel.subjects)), seen)
    history = build_history(panel, assembler.history, assembler.scale, population(panel), so_far)
    taken = len(readings) - len(diary.readings)
    counts = {
        "subjects": fresh["subject_id"].nunique(),
        "joined": len(panel.subjects) - len(diary.subjects),
        "readings": taken,
        "known": len(fresh) - int((late | stray).sum()) - taken,
        "untaught": int((~late & (day < last)).sum()),
        "late": int(late.sum()),
        "stray": int(stray.sum()),
    }
    longer = replace(diary, subjects=panel.subjects, so_far=so_far, readings=readings.reset_index(drop=True))
    return TakenUp(history, _shortened(longer, assembler), counts)


def _stray(fresh: pd.DataFrame, day: Integers, last: Any) -> Any:
    """Find readings of a day that holds fewer than an hour's and lies over a week after the subject's day before it."""
    days = pd.DataFrame({"subject": fresh["subject_id"].to_numpy(), "day": day, "last": last})
    by = days.groupby(["subject", "day"], sort=True).agg(count=("day", "size"), last=("last", "first")).reset_index()
    before = by.groupby("subject")["day"].shift().fillna(by["last"])
    alone = by[(by["count"] < FEW) & (by["day"] - before > FAR_DAYS)]
    return pd.MultiIndex.from_frame(days[["subject", "day"]]).isin(pd.MultiIndex.from_frame(alone[["subject", "day"]]))


def days_kept(grid: Grid, statistics_days: int) -> int:
    """Days before the last one that a later midnight may look at: for statistics, or for windows yet to teach."""
    window = grid.context_length * grid.step_minutes + grid.horizons_minutes[-1]
    return max(statistics_days + 1, -(-window // MINUTES_A_DAY) + 2)


def readings_of(panel: Panel) -> pd.DataFrame:
    """Return a panel's readings as rows: subject_id, timestamp on the grid, value."""
    there = np.flatnonzero(~np.isnan(panel.values))
    names = np.asarray(panel.subjects, dtype=object)
    times = panel.minute[there].astype("datetime64[m]").astype("datetime64[us]")
    return pd.DataFrame({"subject_id": names[panel.subject[there]], "timestamp": times, VALUE: panel.values[there]})


def _shortened(diary: Diary, assembler: Assembler) -> Diary:
    """Forget readings that no later midnight looks at; their days are counted."""
    code = np.searchsorted(diary.subjects, diary.readings["subject_id"].to_numpy(dtype=str))
    day: Integers = diary.readings["timestamp"].to_numpy().astype("datetime64[D]").astype(np.int64)
    first = diary.so_far.ridge.last_day - days_kept(assembler.grid, assembler.history.days)
    old = day < first[code]
    forgotten = np.unique(np.stack([code[old], day[old]]), axis=1)[0]
    seen = diary.so_far.seen + np.bincount(forgotten, minlength=len(diary.subjects))
    return replace(diary, so_far=replace(diary.so_far, seen=seen), readings=diary.readings[~old].reset_index(drop=True))


def write_diary(directory: Path, diary: Diary, people: str) -> None:
    """Write a diary; `people` is the sha256 of the table of people whose histories it has just written."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(diary.so_far.ridge.tensors(), str(directory / RIDGE))
    diary.readings.to_parquet(directory / READINGS, index=False)
    index = {
        "base": diary.base,
        "joining": diary.joining,
        "people": people,
        "subjects": list(diary.subjects),
        "seen": diary.so_far.seen.tolist(),
        "sha256": {name: sha256(directory / name) for name in (RIDGE, READINGS)},
    }
    write_json(directory / INDEX, index)


def read_diary(directory: Path, assembler: Assembler, base: str, people: str) -> Diary:
    """Read a diary.

    Args:
        directory: of the diary.
        assembler: of the base model.
        base: sha256 of its directory.
        people: sha256 of the table of people that the diary must go on from.

    Raises:
        BundleError: it is missing, changed since it was written, or mends another base model, or is of another night.
    """
    with readable(directory, "`dvc repro train` writes a new one"):
        index = read_json(directory / INDEX)
        if index["base"] != base:
            raise BundleError(
                f"{directory} belongs to base model {index['base'][:12]}, this is {base[:12]}: "
                "take the diary of the same training run"
            )
        if index["people"] != people:
            raise BundleError(
                f"{directory} is of another night than the bundle's people: take the diary that was written with it"
            )
        for name, digest in index["sha256"].items():
            if sha256(directory / name) != digest:
                raise BundleError(f"{directory / name} was changed after it was written (sha256)")
        subjects = tuple(index["subjects"])
        readings = pd.read_parquet(directory / READINGS)
        so_far = SoFar.nothing(len(subjects), assembler.grid, assembler.history, assembler.scale)
        so_far.ridge.restore(load_file(str(directory / RIDGE)))
        so_far = replace(so_far, seen=np.asarray(index["seen"], dtype=np.int64))
        return Diary(subjects, so_far, readings, base, index["joining"])
