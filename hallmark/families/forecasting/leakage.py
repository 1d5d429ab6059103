"""Leakage check: recompute inputs, targets and splits from the cleaned tables and compare.

It trusts neither the splits' code nor the grid's: people are compared by name, times with the splits table, and
inputs and targets with the cleaned rows, found again by name and time.
Legend of shapes: B windows, C context, H horizons.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.arrays import Floats, Integers
from hallmark.contracts import Prepared
from hallmark.errors import DataError, LeakageError
from hallmark.families.forecasting.panel import Grid, bridged_steps, nearest_slots, sensor_interval
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, Parts

CHUNK = 8192  # windows whose targets are held at once
SAMPLE = 1000  # windows of each part whose every input and target is looked up
BOUNDS = {"train": (None, "train_end"), "valid": ("valid_start", "valid_end"), "test": ("test_start", None)}


def check_leakage(prepared: Prepared, parts: Parts, value: str, purge_minutes: int) -> dict[str, int]:
    """Check that neither people nor time leak.

    Args:
        prepared: the tables.
        parts: what training and evaluation are given.
        value: column of the readings.
        purge_minutes: pause that must lie between two parts.

    Returns:
        How many windows of every part, values and pairs of people were checked.

    Raises:
        LeakageError: names the part and the subject.
        DataError: a part has no window.
    """
    cuts = _check_cuts(prepared, purge_minutes)
    readings = _Readings.of(prepared.rows, value, parts.panel.grid)
    checked = {"values": 0}
    for part in BOUNDS:
        origins = parts.origins(part, None if part == "test" else SEEN)
        if not len(origins):
            raise DataError(f"{part} holds no gap-free window: more readings, or a shorter task.grid.recent_length")
        _check_times(parts, origins, part, cuts)
        sample = origins[:: max(1, len(origins) // SAMPLE)]
        checked[f"{part}_windows"] = len(origins)
        checked["values"] += _check_values(parts, sample, part, readings)
    checked["pairs_of_people"] = _check_twins(readings, cuts)
    return checked


@dataclass(frozen=True)
class _Readings:
    """The rows, to be looked up by name and grid point."""

    names: tuple[str, ...]
    keys: Integers
    values: Floats
    bridged: Integers

    @classmethod
    def of(cls, rows: pd.DataFrame, value: str, grid: Grid) -> "_Readings":
        names, codes = np.unique(rows["subject_id"].to_numpy(dtype=str), return_inverse=True)
        slots = nearest_slots(rows["timestamp"].to_numpy(), grid.step_minutes)
        keys = _key(codes, slots)
        order = np.argsort(keys, kind="stable")
        bridged = bridged_steps(sensor_interval(codes[order], slots[order]), grid)
        return cls(tuple(names.tolist()), keys[order], rows[value].to_numpy(dtype=np.float32)[order], bridged)

    def at(self, codes: Integers, slots: Integers) -> Floats:
        """Values of some people at some grid points, NaN where there is no row."""
        wanted = _key(codes, slots)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.values[place], np.float32(np.nan)).astype(np.float32)


def _key(codes: Integers, slots: Integers) -> Integers:
    return codes.astype(np.int64) << 32 | slots.astype(np.int64)


def _check_cuts(prepared: Prepared, purge_minutes: int) -> pd.DataFrame:
    """Check the splits table itself; returns it by subject."""
    cuts = prepared.splits.set_index("subject_id")
    if cuts.index.has_duplicates or set(cuts.index) != set(prepared.rows["subject_id"].unique()):
        raise LeakageError("the splits name other people than the rows, or one twice: run `dvc repro prepare`")
    if (groups := sorted(set(cuts["group"]))) != [HELD_OUT, SEEN]:
        raise LeakageError(f"the splits' groups are {groups}: both {SEEN} and {HELD_OUT} are needed")
    for before, after in (("train_end", "valid_start"), ("valid_end", "test_start")):
        pause = cuts[after] - cuts[before]
        if (pause < purge_minutes).any():
            raise LeakageError(
                f"subject {pause.idxmin()!r}: {after} lies {pause.min()} minutes after {before}, at least "
                f"{purge_minutes} (task.split_config.purge_minutes) are needed"
            )
    if (cuts["valid_end"] < cuts["train_end"]).any():
        raise LeakageError(f"subject {(cuts['valid_end'] - cuts['train_end']).idxmin()!r}: valid ends before train")
    return cuts


def _check_times(parts: Parts, origins: Integers, part: str, cuts: pd.DataFrame) -> None:
    """Check that every window starts, and every target of it ends, within its part, and whose it is."""
    panel = parts.panel
    names = list(panel.subjects)
    if part != "test" and (strangers := [n for n in _names(parts, origins) if cuts["group"][n] != SEEN]):
        raise LeakageError(f"held-out subject in {part}: {strangers[0]!r}")
    low, high = BOUNDS[part]
    starts = cuts[low].loc[names].to_numpy() if low else np.full(len(names), np.iinfo(np.int64).min)
    ends = cuts[high].loc[names].to_numpy() if high else np.full(len(names), np.iinfo(np.int64).max)
    for start in range(0, len(origins), CHUNK):
        mine = origins[start : start + CHUNK]
        subject, minute = panel.subject[mine], panel.minute[mine].astype(np.int64)
        outside = (minute < starts[subject]) | (minute >= ends[subject])
        if outside.any():
            raise LeakageError(f"a window of {part} starts outside it: subject {names[int(subject[outside][0])]!r}")
        known = ~np.isnan(parts.target(mine, part))
        furthest = np.where(known, np.asarray(panel.grid.horizons_minutes), 0).max(axis=1, initial=0)
        late = minute + furthest >= ends[subject]
        if late.any():
            raise LeakageError(f"a target of {part} lies in the next part: subject {names[int(subject[late][0])]!r}")


def _names(parts: Parts, origins: Integers) -> list[str]:
    return [parts.panel.subjects[code] for code in np.unique(parts.panel.subject[origins])]


def _check_values(parts: Parts, origins: Integers, part: str, readings: _Readings) -> int:
    """Look up every input and target of some windows in the rows; returns how many values were compared."""
    panel, grid = parts.panel, parts.panel.grid
    place = {name: code for code, name in enumerate(readings.names)}
    codes = np.asarray([place[panel.subjects[c]] for c in panel.subject[origins]])[:, None]
    slots = (panel.minute[origins].astype(np.int64) // grid.step_minutes)[:, None]
    target = parts.target(origins, part)
    known = ~np.isnan(target)
    truth = readings.at(np.broadcast_to(codes, target.shape), slots + grid.steps)
    if not np.array_equal(target[known], truth[known]):
        raise LeakageError(f"a target of {part} is no reading of its subject at its time")
    context = panel.context(origins)
    back = np.arange(1 - grid.context_length, 1)
    real = readings.at(np.broadcast_to(codes, context.shape), slots + back)
    there = ~np.isnan(real)
    if not np.array_equal(context[there], real[there]):
        raise LeakageError(f"an input of {part} is no reading of its subject at its time")
    bare = np.isnan(context[:, -grid.recent_length :]).any() or not there[:, -1].all()
    # Distances of neighbouring real readings inside the recent window, each beside what its sensor allows.
    row, column = np.nonzero(there[:, -grid.recent_length :])
    inside = np.diff(row) == 0
    distance = np.diff(column)[inside]
    until = _key(codes[row[1:][inside], 0], (slots + back[-grid.recent_length :])[row[1:][inside], column[1:][inside]])
    allowed = readings.bridged[np.searchsorted(readings.keys, until)]
    if bare or (distance > allowed).any():
        over = distance > allowed
        gap, most = (int(steps.max(initial=0)) * grid.step_minutes for steps in (distance[over], allowed[over]))
        raise LeakageError(f"a window of {part} spans a gap of {gap} minutes, its sensor allows {most}")
    return int(known.sum() + there.sum())


def _check_twins(readings: _Readings, cuts: pd.DataFrame, share: float = 0.5) -> int:
    """Refuse a held-out person whose readings are those of a seen person under another name."""
    held = (cuts["group"].loc[list(readings.names)] == HELD_OUT).to_numpy()
    subject, slot = readings.keys >> 32, readings.keys & 0xFFFFFFFF
    mark = slot * 10_000 + np.round(readings.values * 10).astype(np.int64)
    order = np.argsort(mark, kind="stable")
    mark, subject = mark[order], subject[order]
    same = mark[1:] == mark[:-1]
    left, right = subject[1:][same], subject[:-1][same]
    count = np.bincount(subject, minlength=len(held))
    across = held[left] != held[right]
    pairs, shared = np.unique(np.sort(np.stack([left[across], right[across]], 1), axis=1), axis=0, return_counts=True)
    for (a, b), n in zip(pairs, shared, strict=True):
        if n > share * min(count[a], count[b]):
            raise LeakageError(
                f"subjects {readings.names[a]!r} and {readings.names[b]!r} share {n:,} identical readings, one is held "
                "out and the other is not: they are one person; drop one in the data"
            )
    return int(held.sum()) * int((~held).sum())
