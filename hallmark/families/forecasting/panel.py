"""Resample many subjects' time series to one regular grid, with gaps, horizons and scaling constants.

A window is an index into the flat arrays, so memory grows with the readings, never with
windows × context. Legend of shapes: N grid points, S subjects, B windows, C context, H horizons.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from hallmark.arrays import Floats, Integers
from hallmark.build import Count, Positive, Tuple, configuration
from hallmark.errors import DataError

MINUTES_A_DAY = 1440
USUAL, FEWEST = 48, 12  # a sensor's interval is the median of the last 48 distances of readings, of at least 12


@configuration
class TimeGrid:
    """The regular grid, and the points of it that a forecast needs.

    Attributes:
        step_minutes: distance of two grid points.
        recent_length: last grid points before a forecast, which must be known (after interpolation).
        context_length: last grid points that a forecast uses; those before the recent ones may be missing.
        horizons_minutes: forecast times after the last reading, ascending.
        bridged_intervals: how many of a sensor's own intervals two readings may lie apart for the inputs between them
            to be interpolated; anything longer is a gap.
        max_interval_minutes: longest interval of a sensor; one that reads less often has gaps.
    """

    step_minutes: Count
    recent_length: Count
    context_length: int
    horizons_minutes: Annotated[Tuple[Count], Field(min_length=1)]
    bridged_intervals: Count
    max_interval_minutes: int

    def __post_init__(self) -> None:
        horizons = self.horizons_minutes
        if list(horizons) != sorted(set(horizons)) or any(minutes % self.step_minutes for minutes in horizons):
            raise ValueError(f"horizons_minutes={list(horizons[:6])}… must ascend in multiples of {self.step_minutes}")
        if self.max_interval_minutes < self.step_minutes:
            raise ValueError(f"max_interval_minutes={self.max_interval_minutes} must be at least {self.step_minutes}")
        if self.recent_length > self.context_length:
            raise ValueError(f"recent_length={self.recent_length} must be in 1…context_length={self.context_length}")

    @cached_property
    def steps(self) -> Integers:
        """Horizons in grid steps, (H,)."""
        return np.asarray(self.horizons_minutes, dtype=np.int64) // self.step_minutes

    @property
    def day_length(self) -> int:
        """Number of grid points per day."""
        return MINUTES_A_DAY // self.step_minutes

    @property
    def padding(self) -> int:
        """Missing points around every segment, so that a gather never reaches a neighbour."""
        return max(self.context_length, int(self.steps[-1])) + 1

    def index_of(self, minutes: int) -> int:
        """Return the position of a horizon.

        Raises:
            ValueError: the grid has no such horizon.
        """
        if minutes not in self.horizons_minutes:
            raise ValueError(f"horizons_minutes has no {minutes}: add it to task.grid.horizons_minutes")
        return self.horizons_minutes.index(minutes)


@configuration
class ValueScale:
    """Units of the value, so that inputs are of order one.

    Attributes:
        center: a typical value, in the value's unit.
        spread: a typical standard deviation, in the value's unit.
        low: below this a reading counts as low (share of the past, as an input).
        high: above this a reading counts as high.
    """

    center: float
    spread: Positive
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.center < self.high:
            raise ValueError(f"need low < center < high, got {self}")


@dataclass(frozen=True)
class Panel:
    """Readings of many subjects on one grid.

    Attributes:
        grid: the grid.
        subjects: subject ids, ascending.
        values: (N,) readings, NaN where none was taken. Targets come from here, never interpolated.
        filled: (N,) the same, interpolated where readings lie at most `grid.bridged_intervals` of the sensor's own
            intervals apart. Inputs come from here.
        minute: (N,) minutes since 1970 in local wall-clock time.
        subject: (N,) position in `subjects`, -1 in the padding.
        interval_minutes: (S,) each subject's usual time between two readings.
    """

    grid: TimeGrid
    subjects: tuple[str, ...]
    values: Floats
    filled: Floats
    minute: npt.NDArray[np.int32]
    subject: npt.NDArray[np.int32]
    interval_minutes: Floats

    @property
    def interpolated_share(self) -> float:
        """Share of the input readings that were interpolated."""
        known = int(np.count_nonzero(~np.isnan(self.filled)))
        measured = int(np.count_nonzero(~np.isnan(self.values)))
        return (known - measured) / max(known, 1)

    @cached_property
    def day(self) -> npt.NDArray[np.int32]:
        """Days since 1970 of every grid point, (N,)."""
        return (self.minute // MINUTES_A_DAY).astype(np.int32)

    @cached_property
    def origins(self) -> Integers:
        """Every grid point from which a forecast may start: a real reading with a gap-free recent window."""
        known = (~np.isnan(self.filled)).astype(np.int32)
        run = np.concatenate([[0], np.cumsum(known)])
        length = self.grid.recent_length
        complete = np.zeros(len(known), dtype=bool)
        complete[length - 1 :] = run[length:] - run[:-length] == length
        return np.flatnonzero(complete & ~np.isnan(self.values)).astype(np.int64)

    def thinned(self, stride: int, origins: Integers) -> Integers:
        """Keep every `stride`-th grid point, counted from 1970: the choice does not depend on other origins."""
        kept: Integers = origins[self.minute[origins] // self.grid.step_minutes % stride == 0]
        return kept

    def context(self, origins: Integers) -> Floats:
        """Gather the readings up to and with each origin, oldest first, (B, C)."""
        back = np.arange(1 - self.grid.context_length, 1)
        gathered: Floats = self.filled[origins[:, None] + back]
        return gathered

    def target(self, origins: Integers) -> Floats:
        """Gather the real readings at each horizon, (B, H), NaN where none was taken."""
        gathered: Floats = self.values[origins[:, None] + self.grid.steps]
        return gathered


def nearest_slots(times: npt.NDArray[Any], step_minutes: int) -> Integers:
    """Number the grid point nearest to every time, counted from 1970, (N,)."""
    seconds = times.astype("datetime64[s]").astype(np.int64)
    return np.floor(seconds / (60 * step_minutes) + 0.5).astype(np.int64)


def means_of_runs(values: npt.NDArray[Any], goes_on: npt.NDArray[np.bool_]) -> Floats:
    """Average runs of neighbouring values: readings that share a grid point become one.

    Args:
        values: (N,).
        goes_on: (N,) whether a value belongs to the run of the value before it.
    """
    run = np.cumsum(~goes_on) - 1
    return (np.bincount(run, values) / np.bincount(run)).astype(np.float32)


def build_panel(frame: pd.DataFrame, value: str, grid: TimeGrid) -> Panel:
    """Put readings on the grid, each rounded to its nearest point.

    A hole longer than the context starts a new segment, so a record with a year's pause costs nothing.
    Time and memory are linear in the readings.

    Args:
        frame: columns subject_id, timestamp (sorted within a subject, unique on the grid) and `value`.
        value: name of the value column.
        grid: the grid.

    Raises:
        DataError: no rows, or two readings on one grid point.
    """
    if frame.empty:
        raise DataError("no readings are left to put on the grid: see the validation report")
    frame = frame.sort_values(["subject_id", "timestamp"], kind="stable")
    names, codes = np.unique(frame["subject_id"].to_numpy(dtype=str), return_inverse=True)
    slot = nearest_slots(frame["timestamp"].to_numpy(), grid.step_minutes)
    same = codes[1:] == codes[:-1]
    if bool(np.any(twice := same & (np.diff(slot) == 0))):
        first = int(np.flatnonzero(twice)[0])
        raise DataError(
            f"subject {str(names[codes[first]])!r} has two readings within {grid.step_minutes} minutes: validate first"
        )
    return panel_of(tuple(str(n) for n in names), codes, slot, frame[value].to_numpy(dtype=np.float32), grid)


def panel_of(
    subjects: tuple[str, ...], codes: npt.NDArray[Any], slot: Integers, readings: Floats, grid: TimeGrid
) -> Panel:
    """Put readings on the grid whose grid points are known.

    Args:
        subjects: names.
        codes: (N,) position of each reading's subject in `subjects`, ascending.
        slot: (N,) grid point of each reading, see `nearest_slots`; ascending within a subject.
        readings: (N,) in the value's unit.
        grid: the grid.
    """
    jump = np.diff(slot)
    cut = np.flatnonzero((codes[1:] != codes[:-1]) | (jump > grid.context_length)) + 1
    starts = np.concatenate([[0], cut])
    stops = np.concatenate([cut, [len(slot)]])
    lengths = slot[stops - 1] - slot[starts] + 1
    pad = grid.padding
    offsets = pad + np.concatenate([[0], np.cumsum(lengths + pad)[:-1]])
    total = int(pad + np.sum(lengths + pad))
    values = np.full(total, np.nan, dtype=np.float32)
    minutes = np.zeros(total, dtype=np.int32)
    subject = np.full(total, -1, dtype=np.int32)
    segment = np.repeat(np.arange(len(starts)), stops - starts)
    values[offsets[segment] + slot - slot[starts][segment]] = readings
    for offset, length, start in zip(offsets, lengths, starts, strict=True):
        minutes[offset : offset + length] = (slot[start] + np.arange(length)) * grid.step_minutes
        subject[offset : offset + length] = codes[start]
    interval = sensor_interval(codes, slot)
    filled = _interpolate(values, bridged_steps(interval, grid))
    first = np.searchsorted(codes, np.arange(len(subjects) + 1))
    usual = [float(np.median(interval[a:b])) * grid.step_minutes for a, b in pairwise(first)]
    return Panel(grid, subjects, values, filled, minutes, subject, np.asarray(usual, dtype=np.float32))


def sensor_interval(codes: npt.NDArray[Any], slot: Integers) -> Floats:
    """Estimate a sensor's own interval at every reading, in grid steps, from the readings up to it.

    It is the median distance of the last readings, so that neither a pause nor a change of the sensor moves it for
    long, and the two days of a request give the same estimate as the whole record.

    Args:
        codes: (N,) subject of every reading, ascending.
        slot: (N,) grid point of every reading, ascending within a subject.

    Returns:
        (N,); the first readings of a subject share the first estimate, and one grid step where there are too few.
    """
    distance = np.diff(slot, prepend=slot[0]).astype(np.float64)
    distance[np.diff(codes, prepend=-1) != 0] = np.nan
    interval = np.empty(len(distance), dtype=np.float32)
    for start, stop in pairwise([*np.flatnonzero(np.isnan(distance)), len(distance)]):
        own = pd.Series(distance[start:stop]).rolling(USUAL, min_periods=FEWEST).median().to_numpy()
        known = own[~np.isnan(own)][:1]
        interval[start:stop] = np.where(np.isnan(own), known[0] if len(known) else 1.0, own)
    return interval


def bridged_steps(interval: Floats, grid: TimeGrid) -> Integers:
    """Compute for every reading the largest distance to the one before that is not a gap, in grid steps, (N,)."""
    own = np.minimum(interval, grid.max_interval_minutes / grid.step_minutes)
    return np.maximum(np.ceil(grid.bridged_intervals * own - 0.1), 1).astype(np.int64)


def _interpolate(values: Floats, longest: Integers) -> Floats:
    """Fill linearly between real readings; `longest` is `bridged_steps` of each of them."""
    known = np.flatnonzero(~np.isnan(values))
    filled = values.copy()
    if len(known) < 2:
        return filled
    distance = np.diff(known)
    distance[distance > longest[1:]] = 0
    for width in range(2, int(distance.max(initial=0)) + 1):
        left = known[:-1][distance == width]
        for step in range(1, width):
            filled[left + step] = values[left] + (values[left + width] - values[left]) * np.float32(step / width)
    return filled


def describe(panel: Panel) -> dict[str, Any]:
    """Count what the panel holds, for reports."""
    intervals = np.unique(panel.interval_minutes, return_counts=True)
    return {
        "subjects": len(panel.subjects),
        "readings": int(np.count_nonzero(~np.isnan(panel.values))),
        "origins": len(panel.origins),
        "interpolated_share": round(panel.interpolated_share, 6),
        "sensor_minutes": {f"{minutes:g}": int(n) for minutes, n in zip(*intervals, strict=True)},
    }
