"""Leakage check: compare inputs and targets with the cleaned rows; check split bounds and duplicated subjects.

It does not trust the code that it checks: subjects are compared by name, times with the splits table, and inputs and
targets with the cleaned rows of the same name and time.
Legend of shapes: B windows, C context, H horizons.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hallmark.arrays import Floats, Integers
from hallmark.contracts import Prepared
from hallmark.errors import DataError, LeakageError
from hallmark.families.forecasting.panel import TimeGrid, bridged_steps, nearest_slots, sensor_interval
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitPanel

CHUNK = 8192  # windows whose targets are held at once
SAMPLE = 1000  # windows of each split of which every input and target is compared
BOUNDS = {"train": (None, "train_end"), "valid": ("valid_start", "valid_end"), "test": ("test_start", None)}


def check_leakage(prepared: Prepared, split_panel: SplitPanel, value: str, purge_minutes: int) -> dict[str, int]:
    """Check that neither subjects nor time leak.

    Args:
        prepared: the tables.
        split_panel: what training and evaluation are given.
        value: column of the readings.
        purge_minutes: pause that must lie between two splits.

    Returns:
        Number of checked windows of every split, values and pairs of subjects.

    Raises:
        LeakageError: names the split and the subject.
        DataError: a split has no window.
    """
    cuts = _check_cuts(prepared, purge_minutes)
    readings = _Readings.of(prepared.rows, value, split_panel.panel.grid)
    checked = {"values": 0}
    for split in BOUNDS:
        origins = split_panel.origins(split, None if split == "test" else SEEN)
        if not len(origins):
            raise DataError(f"{split} holds no gap-free window: more readings, or a shorter task.grid.recent_length")
        _check_times(split_panel, origins, split, cuts)
        sample = origins[:: max(1, len(origins) // SAMPLE)]
        checked[f"{split}_windows"] = len(origins)
        checked["values"] += _check_values(split_panel, sample, split, readings)
    checked["pairs_of_subjects"] = _check_twins(readings, cuts)
    return checked


@dataclass(frozen=True)
class _Readings:
    """The rows, indexed by name and grid point."""

    names: tuple[str, ...]
    keys: Integers
    values: Floats
    bridged: Integers

    @classmethod
    def of(cls, rows: pd.DataFrame, value: str, grid: TimeGrid) -> "_Readings":
        names, codes = np.unique(rows["subject_id"].to_numpy(dtype=str), return_inverse=True)
        slots = nearest_slots(rows["timestamp"].to_numpy(), grid.step_minutes)
        keys = _key(codes, slots)
        order = np.argsort(keys, kind="stable")
        bridged = bridged_steps(sensor_interval(codes[order], slots[order]), grid)
        return cls(tuple(names.tolist()), keys[order], rows[value].to_numpy(dtype=np.float32)[order], bridged)

    def at(self, codes: Integers, slots: Integers) -> Floats:
        """Look up the values of some subjects at some grid points, NaN where there is no row."""
        wanted = _key(codes, slots)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.values[place], np.float32(np.nan)).astype(np.float32)


def _key(codes: Integers, slots: Integers) -> Integers:
    return codes.astype(np.int64) << 32 | slots.astype(np.int64)


def _check_cuts(prepared: Prepared, purge_minutes: int) -> pd.DataFrame:
    """Check the splits table itself; returns it by subject."""
    cuts = prepared.splits.set_index("subject_id")
    if cuts.index.has_duplicates or set(cuts.index) != set(prepared.rows["subject_id"].unique()):
        raise LeakageError("the splits name other subjects than the rows, or one twice: run `dvc repro prepare`")
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


def _check_times(split_panel: SplitPanel, origins: Integers, split: str, cuts: pd.DataFrame) -> None:
    """Check that windows start and targets end within their split, and that held-out subjects are in test alone."""
    panel = split_panel.panel
    names = list(panel.subjects)
    if split != "test" and (strangers := [n for n in _names(split_panel, origins) if cuts["group"][n] != SEEN]):
        raise LeakageError(f"held-out subject in {split}: {strangers[0]!r}")
    low, high = BOUNDS[split]
    starts = cuts[low].loc[names].to_numpy() if low else np.full(len(names), np.iinfo(np.int64).min)
    ends = cuts[high].loc[names].to_numpy() if high else np.full(len(names), np.iinfo(np.int64).max)
    for start in range(0, len(origins), CHUNK):
        chunk = origins[start : start + CHUNK]
        subject, minute = panel.subject[chunk], panel.minute[chunk].astype(np.int64)
        outside = (minute < starts[subject]) | (minute >= ends[subject])
        if outside.any():
            raise LeakageError(f"a window of {split} starts outside it: subject {names[int(subject[outside][0])]!r}")
        known = ~np.isnan(split_panel.target(chunk, split))
        furthest = np.where(known, np.asarray(panel.grid.horizons_minutes), 0).max(axis=1, initial=0)
        late = minute + furthest >= ends[subject]
        if late.any():
            raise LeakageError(f"a target of {split} lies in the next split: subject {names[int(subject[late][0])]!r}")


def _names(split_panel: SplitPanel, origins: Integers) -> list[str]:
    return [split_panel.panel.subjects[code] for code in np.unique(split_panel.panel.subject[origins])]


def _check_values(split_panel: SplitPanel, origins: Integers, split: str, readings: _Readings) -> int:
    """Compare every input and target of some windows with the rows; returns the number of compared values."""
    panel, grid = split_panel.panel, split_panel.panel.grid
    place = {name: code for code, name in enumerate(readings.names)}
    codes = np.asarray([place[panel.subjects[c]] for c in panel.subject[origins]])[:, None]
    slots = (panel.minute[origins].astype(np.int64) // grid.step_minutes)[:, None]
    target = split_panel.target(origins, split)
    known = ~np.isnan(target)
    truth = readings.at(np.broadcast_to(codes, target.shape), slots + grid.steps)
    if not np.array_equal(target[known], truth[known]):
        raise LeakageError(f"a target of {split} is no reading of its subject at its time")
    context = panel.context(origins)
    back = np.arange(1 - grid.context_length, 1)
    real = readings.at(np.broadcast_to(codes, context.shape), slots + back)
    observed = ~np.isnan(real)
    if not np.array_equal(context[observed], real[observed]):
        raise LeakageError(f"an input of {split} is no reading of its subject at its time")
    bare = np.isnan(context[:, -grid.recent_length :]).any() or not observed[:, -1].all()
    # Distances of neighbouring real readings inside the recent window, each with the most that its sensor allows.
    row, column = np.nonzero(observed[:, -grid.recent_length :])
    inside = np.diff(row) == 0
    distance = np.diff(column)[inside]
    until = _key(codes[row[1:][inside], 0], (slots + back[-grid.recent_length :])[row[1:][inside], column[1:][inside]])
    allowed = readings.bridged[np.searchsorted(readings.keys, until)]
    if bare or (distance > allowed).any():
        over = distance > allowed
        gap, most = (int(steps.max(initial=0)) * grid.step_minutes for steps in (distance[over], allowed[over]))
        raise LeakageError(f"a window of {split} spans a gap of {gap} minutes, its sensor allows {most}")
    return int(known.sum() + observed.sum())


def _check_twins(readings: _Readings, cuts: pd.DataFrame, share: float = 0.5) -> int:
    """Refuse a held-out subject whose readings are those of a seen subject under another name."""
    held = (cuts["group"].loc[list(readings.names)] == HELD_OUT).to_numpy()
    subject, slot = readings.keys >> 32, readings.keys & 0xFFFFFFFF
    fingerprint = slot * 10_000 + np.round(readings.values * 10).astype(np.int64)
    order = np.argsort(fingerprint, kind="stable")
    fingerprint, subject = fingerprint[order], subject[order]
    same = fingerprint[1:] == fingerprint[:-1]
    left, right = subject[1:][same], subject[:-1][same]
    count = np.bincount(subject, minlength=len(held))
    across = held[left] != held[right]
    pairs, shared = np.unique(np.sort(np.stack([left[across], right[across]], 1), axis=1), axis=0, return_counts=True)
    for (a, b), n in zip(pairs, shared, strict=True):
        if n > share * min(count[a], count[b]):
            raise LeakageError(
                f"subjects {readings.names[a]!r} and {readings.names[b]!r} share {n:,} identical readings, one is held "
                "out and the other is not: they are the same subject; drop one in the data"
            )
    return int(held.sum()) * int((~held).sum())
