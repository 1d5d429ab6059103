"""Per-subject features at each midnight from past readings: statistics, daily profile, online-ridge weights.

Row r of a `History` belongs to one subject and one day and was computed from readings before that
day's midnight. A forecast at any time of the day uses that day's row. A row holds statistics of the
last days and the linear adapter of that midnight (hallmark/families/forecasting/online_ridge.py).
Legend of shapes: S subjects, R rows (subject-days), K ridge features, H horizons, B windows.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.build import Count, Positive, configuration
from hallmark.families.forecasting.online_ridge import (
    Forecast,
    OnlineRidge,
    OnlineRidgeConfig,
    ridge_size,
    training_windows,
)
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, TimeGrid, ValueScale
from hallmark.learn.parallel import map_parallel

BINS = 48  # half hours of a day
HOURS = 24
STATISTICS = 5  # columns of `History.statistics`; the last one is the logarithm of the number of known days
TOGETHER = 64  # subjects whose online ridges are fitted together


@configuration
class HistoryConfig:
    """How the past is summarised.

    Attributes:
        days: number of past days in the statistics.
        profile_shrinkage: pseudo-count, readings at the overall mean that every half hour of the profile starts with.
        ridge: settings of the linear adapter.
    """

    days: Count
    profile_shrinkage: Positive
    ridge: OnlineRidgeConfig


@dataclass(frozen=True)
class History:
    """Every subject's past at every midnight.

    Attributes:
        first_row: (S,) the first row of each subject.
        first_day: (S,) the day of that row, in days since 1970.
        days: (S,) rows of each subject.
        statistics: (R, 5) mean, sd, share low, share high (of the last days), log1p of days with readings.
        profile: (R, BINS) time-of-day means minus the overall mean, shrunk, in units of the spread.
        change: (R, BINS, 2) mean and root mean square of the change over the next hour, by time of day.
        weights: (R, K, H) the online ridge's main solution, in the value's unit.
        other_weights: (R, K, len(other_penalties) × len(input_horizons_minutes)) its further solutions.
        residual: (R, H) root mean square of the online ridge's own past errors, in units of the spread.
    """

    first_row: Integers
    first_day: Integers
    days: Integers
    statistics: Floats
    profile: Floats
    change: Floats
    weights: Floats
    other_weights: Floats
    residual: Floats

    def rows(self, subject: Array, day: Array) -> Integers:
        """Look up the row of each (subject, day); days after the last one get the last row."""
        ahead = np.clip(day - self.first_day[subject], 0, self.days[subject] - 1)
        return (self.first_row[subject] + ahead).astype(np.int64)

    def habit(self, rows: Integers, minute: Array, horizons_minutes: Sequence[int], scale: ValueScale) -> Floats:
        """Compute the subject's own mean of the last days at the time of day of each horizon, (B, H).

        Args:
            rows: (B,) of this history.
            minute: (B,) local wall-clock minute of the last reading.
            horizons_minutes: (H,) after the last reading.
            scale: units; the result is in the value's unit.
        """
        ahead = minute[:, None] + np.asarray(horizons_minutes)
        bins = (ahead % MINUTES_A_DAY) // (MINUTES_A_DAY // BINS)
        usual = self.statistics[rows, :1] + self.profile[rows[:, None], bins]
        habit: Floats = (usual * scale.spread + scale.center).astype(np.float32)
        return habit

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, for safetensors."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def newest(self, subject: int) -> "History":
        """Keep one subject's two newest rows, the last day with readings and the day after it: the adapter file."""
        row = int(self.first_row[subject] + self.days[subject] - 2)
        zero = np.asarray([0], dtype=np.int64)
        day = np.asarray([self.first_day[subject] + self.days[subject] - 2], dtype=np.int64)
        arrays = {f.name: getattr(self, f.name)[row : row + 2] for f in fields(self)[3:]}
        return History(zero, day, zero + 2, **arrays)

    def knows(self, subject: int, day: Array, longest_days: int) -> Array:
        """Tell which days may use this history: none before it begins or over `longest_days` after it ends, (B,)."""
        ahead = day - self.first_day[subject]
        return np.asarray((ahead >= 0) & (ahead < self.days[subject] + longest_days))


def row_sizes(grid: TimeGrid, config: HistoryConfig, scale: ValueScale) -> dict[str, tuple[int, ...]]:
    """Return the shape of one row of every array of a `History`."""
    size, horizons = ridge_size(grid, scale), len(grid.steps)
    return {
        "statistics": (STATISTICS,),
        "profile": (BINS,),
        "change": (BINS, 2),
        "weights": (size, horizons),
        "other_weights": (size, config.ridge.other_solutions),
        "residual": (horizons,),
    }


@dataclass
class HistoryState:
    """State that the days before a panel's readings left behind.

    Attributes:
        ridge: online ridge of all subjects at the midnight of the last day with readings; updated in place.
        seen: (S,) days with readings before the panel's first.
    """

    ridge: OnlineRidge
    seen: Integers

    @classmethod
    def empty(cls, subjects: int, grid: TimeGrid, config: HistoryConfig, scale: ValueScale) -> "HistoryState":
        """Return the state before the first reading of any subject."""
        ridge = OnlineRidge(config.ridge, grid, subjects, ridge_size(grid, scale))
        return cls(ridge, np.zeros(subjects, dtype=np.int64))


def build_history(
    panel: Panel,
    config: HistoryConfig,
    scale: ValueScale,
    population: Forecast,
    state: HistoryState | None = None,
    at_once: int = 1,
) -> History:
    """Compute every subject's history.

    Time is linear in readings plus one K × K solution per subject-day; memory is R × K × H.

    Args:
        panel: the readings.
        config: how the past is summarised.
        scale: units.
        population: forecast of the population model, which the online ridge corrects.
        state: left behind by earlier readings. Rows begin at the midnight up to which it was fitted. It is fitted
            further, in place, up to the midnight at which the last day with readings begins: this day may not be over.
        at_once: processes that fit `TOGETHER` subjects each; the result has the same bytes with any number of them.
    """
    state = state or HistoryState.empty(len(panel.subjects), panel.grid, config, scale)
    spans = np.asarray(list(_spans(panel)), dtype=np.int64)
    begin = panel.day[spans[:, 0]].astype(np.int64)
    end = panel.day[spans[:, 1] - 1].astype(np.int64) + 2  # one row more: tomorrow
    first_day = np.maximum(begin, state.ridge.last_day)
    days = end - first_day
    first_row = np.cumsum(days) - days
    summaries = [
        [
            array[int(first - start) :]
            for array in _statistics(_daily_sums(panel, low, high, int(stop - start), scale), config, scale, int(seen))
        ]
        for (low, high), start, first, stop, seen in zip(spans, begin, first_day, end, state.seen, strict=True)
    ]
    statistics, profile, change = (np.concatenate(column) for column in zip(*summaries, strict=True))
    ridges = _ridges(panel, spans, (first_row, first_day, days), state.ridge, scale, population, at_once)
    return History(first_row, first_day, days, statistics, profile, change, *ridges)


def _spans(panel: Panel) -> Iterator[tuple[int, int]]:
    """Yield the first and the last (exclusive) grid point of every subject."""
    points = np.flatnonzero(panel.subject >= 0)
    codes = panel.subject[points]
    cuts = np.flatnonzero(np.diff(codes)) + 1
    for block in np.split(points, cuts):
        yield int(block[0]), int(block[-1]) + 1


def _ridges(
    panel: Panel,
    spans: Integers,
    rows: tuple[Integers, Integers, Integers],
    ridge: OnlineRidge,
    scale: ValueScale,
    population: Forecast,
    at_once: int,
) -> tuple[Floats, Floats, Floats]:
    """Fit the online ridge of all subjects and keep its state at every midnight: weights, others, residual."""
    first_row, first_day, days = rows
    kept = [
        np.empty((int(days.sum()), *array.shape[1:]), dtype=np.float32)
        for array in (ridge.weights, ridge.others, ridge.squares)
    ]

    def fitted(chunk: slice) -> tuple[dict[str, Array], list[Floats]]:
        """Fit neighbouring subjects; returns their state, and their rows of `kept`."""
        low, high = np.searchsorted(panel.origins, [spans[chunk][0, 0], spans[chunk][-1, 1]])
        origins = panel.origins[low:high]
        ended = panel.minute[origins] + panel.grid.horizons_minutes[-1]
        not_fitted = origins[ended >= ridge.last_day[panel.subject[origins]] * MINUTES_A_DAY]
        windows = training_windows(panel, not_fitted, ridge.config, scale, population)
        windows = replace(windows, subject=windows.subject - chunk.start)
        row = first_row[chunk] - first_row[chunk.start]
        mine = [np.empty((int(days[chunk].sum()), *array.shape[1:]), dtype=np.float32) for array in kept]

        def keep(state: OnlineRidge, row: Integers, subjects: Integers) -> None:
            for rows_kept, array in zip(mine, (state.weights, state.others, state.residual(scale)), strict=True):
                rows_kept[row[subjects]] = array[subjects]

        state, today = copy.deepcopy(ridge.subset(chunk)), days[chunk] - 1  # a worker elsewhere cannot write here
        for midnight in state.replay(windows, first_day[chunk], today):
            keep(state, row + midnight, np.flatnonzero(today > midnight))
        # Tomorrow's midnight is fitted on a copy: today may not be over, and no window joins a fit before its end.
        tomorrow = copy.deepcopy(state)
        for _ in tomorrow.replay(windows, first_day[chunk] + today, np.ones_like(today)):
            keep(tomorrow, row + today, np.arange(len(today)))
        return state.tensors(), mine

    chunks = [slice(start, start + TOGETHER) for start in range(0, len(spans), TOGETHER)]
    results = map_parallel(chunks, fitted, at_once, lambda *_: None)
    for chunk in reversed(chunks):  # a result is freed when its rows are in their place
        tensors, mine = results.pop()
        for name, array in ridge.subset(chunk).tensors().items():
            array[:] = tensors[name]
        for all_rows, rows_kept in zip(kept, mine, strict=True):
            all_rows[first_row[chunk.start] :][: len(rows_kept)] = rows_kept
    weights, others, residual = kept
    return weights, others, residual


def _daily_sums(panel: Panel, low: int, high: int, days: int, scale: ValueScale) -> dict[str, Array]:
    """Sum what the statistics need by day and half hour, from one subject's grid points."""
    inside = panel.subject[low:high] >= 0
    minute = panel.minute[low:high][inside].astype(np.int64)
    values = panel.values[low:high][inside].astype(np.float64)
    day = minute // MINUTES_A_DAY - minute[0] // MINUTES_A_DAY
    bins = (minute % MINUTES_A_DAY) // (MINUTES_A_DAY // BINS)
    known = ~np.isnan(values)
    cell = day * BINS + bins
    hour = 60 // panel.grid.step_minutes
    later = np.full_like(values, np.nan)
    if len(values) > hour:
        later[:-hour] = np.where(minute[hour:] - minute[:-hour] == 60, values[hour:], np.nan)
    move = later - values
    # A change belongs to the day on which it ended: otherwise a midnight's row would use later readings.
    ended = (minute + 60) // MINUTES_A_DAY - minute[0] // MINUTES_A_DAY
    moved = ~np.isnan(move) & (ended < days)
    move_cell = ended * BINS + bins

    def total(weights: Array, mask: Array, cells: Array) -> Array:
        return np.bincount(cells[mask], weights=weights[mask], minlength=days * BINS).reshape(days, BINS)

    ones = np.ones_like(values)
    return {
        "count": total(ones, known, cell),
        "sum": total(values - scale.center, known, cell),
        "square": total((values - scale.center) ** 2, known, cell),
        "low": total((values < scale.low).astype(float), known, cell),
        "high": total((values > scale.high).astype(float), known, cell),
        "moves": total(ones, moved, move_cell),
        "move": total(move, moved, move_cell),
        "move_square": total(move**2, moved, move_cell),
    }


def _statistics(
    sums: dict[str, Array], config: HistoryConfig, scale: ValueScale, earlier: int
) -> tuple[Floats, Floats, Floats]:
    """Compute statistics, profile and change at every midnight; `earlier` is the number of days before the sums."""
    past = {name: _before(daily, config.days) for name, daily in sums.items()}
    count = past["count"].sum(axis=1)
    safe = np.maximum(count, 1.0)
    mean = past["sum"].sum(axis=1) / safe
    sd = np.sqrt(np.maximum(past["square"].sum(axis=1) / safe - mean**2, 0.0))
    seen = earlier + _before((sums["count"].sum(axis=1, keepdims=True) > 0).astype(float), None)[:, 0]
    statistics = np.stack(
        [mean / scale.spread, sd / scale.spread, past["low"].sum(1) / safe, past["high"].sum(1) / safe, np.log1p(seen)],
        axis=1,
    )
    k = config.profile_shrinkage
    profile = (past["sum"] - past["count"] * mean[:, None]) / (past["count"] + k) / scale.spread
    move = past["move"] / (past["moves"] + k) / scale.spread
    rms = np.sqrt(past["move_square"] / (past["moves"] + k)) / scale.spread
    change = np.stack([move, rms], axis=2)
    return statistics.astype(np.float32), profile.astype(np.float32), change.astype(np.float32)


def _before(daily: Array, days: int | None) -> Array:
    """Sum over the days before each day: the last `days`, or all if None."""
    run = np.concatenate([np.zeros((1, daily.shape[1])), np.cumsum(daily, axis=0)])
    index = np.arange(len(daily))
    start = np.zeros_like(index) if days is None else np.maximum(index - days, 0)
    return np.asarray(run[index] - run[start])
