"""Personal context: what a subject's own past says at every midnight, and only the past.

Row r of a `History` belongs to one subject and one day and was computed from readings before that
day's midnight. A forecast at any time of the day uses that day's row. It holds statistics of the last
14 days and a linear adapter: the online ridge, refitted every midnight on the population model's
residuals over all of the subject's past windows whose targets had ended.
Legend of shapes: S subjects, R rows (subject-days), K ridge features, H horizons, B windows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hallmark.learn.inputs import Scale, ridge_features
from hallmark.read.panel import MINUTES_A_DAY, Floats, Integers, Panel

Array = npt.NDArray[Any]

BINS = 48  # half hours of a day
HOURS = 24


@dataclass(frozen=True)
class HistoryConfig:
    """How the past is summarised.

    Attributes:
        days: how far back the statistics look.
        penalty: of the online ridge's main solution, for windows every `stride` grid points.
        other_penalties: of further solutions, offered to the network at `input_horizons_minutes`.
        input_horizons_minutes: horizons at which corrections are inputs of the network.
        stride: grid points between two windows that the online ridge learns from.
        short_minutes: horizons up to here learn from a window as soon as they have passed; longer
            ones wait for the longest horizon.
        clip: largest residual that the online ridge learns from, in the value's unit.
        profile_shrinkage: readings at the overall mean that every half hour of the profile starts with.
        young_days: up to this much history the penalties are divided by three.
    """

    days: int
    penalty: float
    other_penalties: tuple[float, ...]
    input_horizons_minutes: tuple[int, ...]
    stride: int
    short_minutes: int
    clip: float
    profile_shrinkage: float
    young_days: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "other_penalties", tuple(self.other_penalties))
        object.__setattr__(self, "input_horizons_minutes", tuple(self.input_horizons_minutes))
        if self.penalty <= 0 or any(p <= 0 for p in self.other_penalties):
            raise ValueError(f"penalties must be positive, got {self.penalty} and {self.other_penalties}")


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
        """Look up the row of each (subject, day); after the last day the last row holds."""
        ahead = np.clip(day - self.first_day[subject], 0, self.days[subject] - 1)
        return (self.first_row[subject] + ahead).astype(np.int64)

    def habit(self, rows: Integers, minute: Array, horizons_minutes: Sequence[int], scale: Scale) -> Floats:
        """Look up the person's own mean of the last days at the time of day of each horizon, (B, H).

        Args:
            rows: (B,) of this history.
            minute: (B,) local wall-clock minute of the last reading.
            horizons_minutes: (H,) ahead.
            scale: units; the result is in the value's.
        """
        ahead = minute[:, None] + np.asarray(horizons_minutes)
        bins = (ahead % MINUTES_A_DAY) // (MINUTES_A_DAY // BINS)
        usual = self.statistics[rows, :1] + self.profile[rows[:, None], bins]
        found: Floats = (usual * scale.spread + scale.center).astype(np.float32)
        return found

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by name, for safetensors."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def newest(self, subject: int) -> "History":
        """Keep one subject's two newest rows, the last day with readings and the day after it: the adapter file."""
        row = int(self.first_row[subject] + self.days[subject] - 2)
        one = np.asarray([0], dtype=np.int64)
        day = np.asarray([self.first_day[subject] + self.days[subject] - 2], dtype=np.int64)
        arrays = {f.name: getattr(self, f.name)[row : row + 2] for f in fields(self)[3:]}
        return History(one, day, one + 2, **arrays)

    def knows(self, subject: int, day: Array, longest_days: int) -> Array:
        """Tell for some days whether this history may speak: not before it was known, nor long after it ended, (B,)."""
        ahead = day - self.first_day[subject]
        return np.asarray((ahead >= 0) & (ahead < self.days[subject] + longest_days))


def stack(histories: list[History]) -> History:
    """Put several subjects' histories behind one another."""
    rows = np.cumsum([0] + [int(h.days.sum()) for h in histories])[:-1]
    arrays = {f.name: np.concatenate([getattr(h, f.name) for h in histories]) for f in fields(History)[1:]}
    return History(np.concatenate([h.first_row + r for h, r in zip(histories, rows, strict=True)]), **arrays)


Forecast = Callable[[Integers], Floats]


def build_history(panel: Panel, config: HistoryConfig, scale: Scale, population: Forecast) -> History:
    """Compute every subject's history.

    Time is linear in readings plus one K × K solution a subject-day; memory is R × K × H.

    Args:
        panel: the readings.
        config: how the past is summarised.
        scale: units.
        population: forecast of the population model at some origins, (B, H), in the value's unit.
    """
    spans = list(_spans(panel))
    histories = [_subject_history(panel, low, high, config, scale, population) for low, high in spans]
    return stack(histories)


def _spans(panel: Panel) -> Iterator[tuple[int, int]]:
    """First and last grid point (exclusive) of every subject."""
    there = np.flatnonzero(panel.subject >= 0)
    codes = panel.subject[there]
    cuts = np.flatnonzero(np.diff(codes)) + 1
    for block in np.split(there, cuts):
        yield int(block[0]), int(block[-1]) + 1


def _subject_history(
    panel: Panel, low: int, high: int, config: HistoryConfig, scale: Scale, population: Forecast
) -> History:
    inside = panel.subject[low:high] >= 0
    minute = panel.minute[low:high][inside].astype(np.int64)
    values = panel.values[low:high][inside].astype(np.float64)
    first = int(minute[0] // MINUTES_A_DAY)
    days = int(minute[-1] // MINUTES_A_DAY) - first + 2  # one row more: tomorrow
    day = minute // MINUTES_A_DAY - first
    sums = _daily_sums(day, minute, values, days, scale, panel.grid.step_minutes)
    statistics, profile, change = _statistics(sums, config, scale)
    origins = panel.origins[np.searchsorted(panel.origins, low) : np.searchsorted(panel.origins, high)]
    origins = origins[origins % config.stride == 0]
    weights, others, residual = _online_ridge(panel, origins, first, days, config, scale, population)
    whole = np.asarray([0], dtype=np.int64)
    return History(whole, whole + first, whole + days, statistics, profile, change, weights, others, residual)


def _daily_sums(day: Array, minute: Array, values: Array, days: int, scale: Scale, step: int) -> dict[str, Array]:
    """Sum what the statistics need by day and half hour."""
    bins = (minute % MINUTES_A_DAY) // (MINUTES_A_DAY // BINS)
    there = ~np.isnan(values)
    cell = day * BINS + bins
    hour = 60 // step
    later = np.full_like(values, np.nan)
    if len(values) > hour:
        later[:-hour] = np.where(minute[hour:] - minute[:-hour] == 60, values[hour:], np.nan)
    move = later - values
    # A change belongs to the day on which it ended: it must not tell a midnight what came after it.
    ended = (minute + 60) // MINUTES_A_DAY - minute[0] // MINUTES_A_DAY
    moved = ~np.isnan(move) & (ended < days)
    move_cell = ended * BINS + bins

    def total(weights: Array, mask: Array, cells: Array) -> Array:
        return np.bincount(cells[mask], weights=weights[mask], minlength=days * BINS).reshape(days, BINS)

    ones = np.ones_like(values)
    return {
        "count": total(ones, there, cell),
        "sum": total(values - scale.center, there, cell),
        "square": total((values - scale.center) ** 2, there, cell),
        "low": total((values < scale.low).astype(float), there, cell),
        "high": total((values > scale.high).astype(float), there, cell),
        "moves": total(ones, moved, move_cell),
        "move": total(move, moved, move_cell),
        "move_square": total(move**2, moved, move_cell),
    }


def _statistics(sums: dict[str, Array], config: HistoryConfig, scale: Scale) -> tuple[Floats, Floats, Floats]:
    past = {name: _before(daily, config.days) for name, daily in sums.items()}
    count = past["count"].sum(axis=1)
    safe = np.maximum(count, 1.0)
    mean = past["sum"].sum(axis=1) / safe
    sd = np.sqrt(np.maximum(past["square"].sum(axis=1) / safe - mean**2, 0.0))
    seen = _before((sums["count"].sum(axis=1, keepdims=True) > 0).astype(float), None)[:, 0]
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
    """Sum over the days before each day (all, or the last `days`)."""
    run = np.concatenate([np.zeros((1, daily.shape[1])), np.cumsum(daily, axis=0)])
    index = np.arange(len(daily))
    start = np.zeros_like(index) if days is None else np.maximum(index - days, 0)
    return np.asarray(run[index] - run[start])


def _online_ridge(
    panel: Panel, origins: Integers, first: int, days: int, config: HistoryConfig, scale: Scale, population: Forecast
) -> tuple[Floats, Floats, Floats]:
    """Accumulate normal equations day by day and solve them at every midnight."""
    grid = panel.grid
    horizons = len(grid.steps)
    places = [grid.index_of(m) for m in config.input_horizons_minutes]
    features = ridge_features(panel.context(origins), panel.minute[origins], grid.recent_length, scale)
    known = panel.target(origins) - panel.values[origins][:, None] - population(origins)
    known = np.clip(known, -config.clip, config.clip)
    size = features.shape[1]
    weights = np.zeros((days, size, horizons), dtype=np.float32)
    others = np.zeros((days, size, len(config.other_penalties) * len(places)), dtype=np.float32)
    residual = np.zeros((days, horizons), dtype=np.float32)
    short = np.asarray(grid.horizons_minutes) <= config.short_minutes
    minute = panel.minute[origins].astype(np.int64)
    for group in (np.flatnonzero(short), np.flatnonzero(~short)):
        if not len(group):
            continue
        # A window teaches at the first midnight after its whole group of targets has ended.
        wait = grid.horizons_minutes[int(group[-1])]
        ready = (minute + wait) // MINUTES_A_DAY - first + 1
        gram = np.zeros((size, size))
        cross = np.zeros((size, len(group)))
        seen = np.zeros(len(group))
        squares, counted, rows, taught = np.zeros(len(group)), np.zeros(len(group)), 0, 0
        decay = 0.5 ** (1.0 / config.days)
        for today in range(days):
            new = slice(int(np.searchsorted(ready, today)), int(np.searchsorted(ready, today, side="right")))
            if new.stop > new.start:
                x, y = features[new].astype(np.float64), known[new][:, group].astype(np.float64)
                there = ~np.isnan(y)
                y = np.where(there, y, 0.0)
                # The error of yesterday's weights on windows that they have not seen.
                errors = np.where(there, y - x @ weights[max(today - 1, 0)][:, group], 0.0)
                squares = squares * decay + (errors**2).sum(axis=0)
                counted = counted * decay + there.sum(axis=0)
                gram += x.T @ x
                cross += x.T @ y
                seen += there.sum(axis=0)
                rows += new.stop - new.start
                taught += 1
            if rows:
                young = 3.0 if taught <= config.young_days else 1.0
                scaled = cross * (rows / np.maximum(seen, 1.0))
                eye = np.eye(size)
                weights[today][:, group] = np.linalg.solve(gram + eye * (config.penalty / young), scaled)
                inside = [i for i, place in enumerate(places) if place in group]
                columns = [int(np.searchsorted(group, places[i])) for i in inside]
                for p, penalty in enumerate(config.other_penalties):
                    solved = np.linalg.solve(gram + eye * (penalty / young), scaled[:, columns])
                    others[today][:, [p * len(places) + i for i in inside]] = solved
                residual[today][group] = np.sqrt(squares / np.maximum(counted, 1.0)) / scale.spread
    return weights, others, residual
