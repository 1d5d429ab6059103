"""Honest intervals: conformal offsets per person, learned from the person's past windows only.

A window's score for an interval [lo, hi] is max(lo − y, y − hi) / (hi − lo): how far outside, in widths. A
person's offset is the nominal quantile of past scores, shrunk toward the population's by a pseudo-count of
independent windows (windows whose horizons overlap count once). Offsets are refreshed at midnight.
Source: Romano, Patterson, Candès 2019, "Conformalized Quantile Regression", scaled by the width.
Legend of shapes: B windows, H horizons, Q quantiles, L pairs of quantiles, D days.
"""

from dataclasses import dataclass

import numpy as np

from hallmark.read.panel import Floats, Grid, Integers


@dataclass(frozen=True)
class CalibrateConfig:
    """How intervals are calibrated.

    Attributes:
        pseudo_count: independent windows at the population's offset that every person starts with.
        stride: grid points between two windows that are scored.
        history_days: how far back a person's scores count.
    """

    pseudo_count: float
    stride: int
    history_days: int

    def __post_init__(self) -> None:
        if self.pseudo_count <= 0 or self.stride < 1 or self.history_days < 1:
            raise ValueError(f"pseudo_count, stride and history_days must be positive, got {self}")


def pairs(levels: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """Pair the quantiles symmetric about the median: (low index, high index, nominal coverage), widest first."""
    found = []
    for low, level in enumerate(levels):
        for high in range(len(levels) - 1, low, -1):
            if abs(levels[high] + level - 1) < 1e-9:
                found.append((low, high, levels[high] - level))
    return found


def scores(quantiles: Floats, target: Floats, levels: tuple[float, ...]) -> Floats:
    """Score windows, (B, H, Q) and (B, H) → (B, L, H), NaN where the target is unknown."""
    out = []
    for low, high, _ in pairs(levels):
        lo, hi = quantiles[..., low], quantiles[..., high]
        out.append(np.maximum(lo - target, target - hi) / np.maximum(hi - lo, 1e-3))
    return np.stack(out, axis=1).astype(np.float32)


def offsets(values: Floats, levels: tuple[float, ...]) -> Floats:
    """Nominal quantile of scores, (B, L, H) → (L, H); 0 where nothing is known."""
    out = np.zeros(values.shape[1:], dtype=np.float32)
    for i, (_, _, nominal) in enumerate(pairs(levels)):
        column = np.sort(values[:, i], axis=0)  # NaN last
        count = np.count_nonzero(~np.isnan(column), axis=0)
        # The finite-sample rank of conformal prediction: ceil((n + 1) × nominal).
        rank = np.clip(np.ceil((count + 1) * nominal).astype(np.int64), 1, np.maximum(count, 1)) - 1
        picked = column[rank, np.arange(column.shape[1])]
        out[i] = np.where(count > 0, np.nan_to_num(picked), 0.0)
    return out


@dataclass(frozen=True)
class Calibration:
    """Offsets of the population and of every person and day.

    Attributes:
        population: (L, H).
        personal: (rows, L, H), rows as in `first_row`.
        first_row: subject_id → (first row, first day, days).
    """

    population: Floats
    personal: Floats
    first_row: dict[str, tuple[int, int, int]]

    def of(self, subject_id: str, day: Integers) -> Floats:
        """Look up the offsets of some days of one person, (B,) → (B, L, H)."""
        if subject_id not in self.first_row:
            return np.broadcast_to(self.population, (len(day), *self.population.shape))
        row, first, days = self.first_row[subject_id]
        ahead = day - first
        found: Floats = self.personal[row + np.clip(ahead, 0, days - 1)]
        return np.where((ahead >= 0)[:, None, None], found, self.population)


def nightly(
    values: Floats,
    ready_day: Integers,
    days: Integers,
    population: Floats,
    grid: Grid,
    config: CalibrateConfig,
    levels: tuple[float, ...],
) -> Floats:
    """One person's offsets at every midnight.

    Args:
        values: (B, L, H) scores of windows in time order.
        ready_day: (B, H) the first day at whose midnight each score is known.
        days: (D,) the days wanted.
        population: (L, H).
        grid: for how long windows overlap.
        config: how to shrink.
        levels: quantile levels.

    Returns:
        (D, L, H).
    """
    out = np.empty((len(days), *population.shape), dtype=np.float32)
    overlap = np.maximum(grid.steps / config.stride, 1.0)
    for i, day in enumerate(days):
        usable = (ready_day <= day) & (ready_day > day - config.history_days)
        rows = usable.any(axis=1)
        past = np.where(usable[rows][:, None, :], values[rows], np.float32(np.nan))
        count = np.count_nonzero(~np.isnan(past[:, 0]), axis=0) / overlap
        share = count / (count + config.pseudo_count)
        mine = offsets(past, levels) if len(past) else population
        out[i] = population + share * (mine - population)
    return out


def widen(quantiles: Floats, offset: Floats, levels: tuple[float, ...]) -> Floats:
    """Move the quantiles by their offsets and keep them in order, (B, H, Q) with (B, L, H)."""
    out = quantiles.copy()
    for i, (low, high, _) in enumerate(pairs(levels)):
        width = np.maximum(quantiles[..., high] - quantiles[..., low], 1e-3) * offset[:, i]
        out[..., low] -= width
        out[..., high] += width
    middle = levels.index(0.5)
    out[..., middle:] = np.maximum.accumulate(out[..., middle:], axis=-1)
    out[..., : middle + 1] = np.minimum.accumulate(out[..., middle::-1], axis=-1)[..., ::-1]
    return out
