"""Conformalized quantile regression: per-subject offsets, refitted daily with exponentially decaying weights.

A window's score for an interval [lo, hi] is max(lo − y, y − hi) / (hi − lo): how far outside, in widths. A
subject's offset is the nominal quantile of past scores, recent ones weighing more, shrunk toward the population's by
a pseudo-count of independent windows (windows whose horizons overlap count once). Offsets are refreshed at midnight.
Sources: Romano, Patterson, Candès 2019, "Conformalized Quantile Regression", scaled by the width; Barber, Candès,
Ramdas, Tibshirani 2023, "Conformal prediction beyond exchangeability", for the weights.
Legend of shapes: B windows, H horizons, Q quantiles, L pairs of quantiles, D days.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from hallmark.arrays import Floats, Integers
from hallmark.build import Count, Positive, configuration
from hallmark.families.forecasting.panel import TimeGrid
from hallmark.families.forecasting.task import pairs
from hallmark.files import as_bundle_error, read_json, write_json

FORGOTTEN = 8  # half-lives after which a score no longer counts


@configuration
class CalibrateConfig:
    """How intervals are calibrated.

    Attributes:
        pseudo_count: independent windows at the population's offset that every subject starts with.
        stride: grid points between two windows that are scored.
        half_life_days: after so many days a subject's score has half its weight.
        n_jobs: number of processes that share the subjects, on CPUs; the result is the same, bit by bit.
    """

    pseudo_count: Positive
    stride: Count
    half_life_days: Positive
    n_jobs: Count


def conformity_scores(quantiles: Floats, target: Floats, levels: tuple[float, ...]) -> Floats:
    """Score windows, (B, H, Q) and (B, H) → (B, L, H), NaN where the target is unknown."""
    out = []
    for low, high, _ in pairs(levels):
        lo, hi = quantiles[..., low], quantiles[..., high]
        out.append(np.maximum(lo - target, target - hi) / np.maximum(hi - lo, 1e-3))
    return np.stack(out, axis=1).astype(np.float32)


def conformal_quantiles(values: Floats, levels: tuple[float, ...], weights: Floats | None = None) -> Floats:
    """Compute the nominal quantile of scores, (B, L, H) and weights (B, H) or 1 → (L, H); 0 where none is known."""
    out = np.zeros(values.shape[1:], dtype=np.float32)
    if not len(values):
        return out
    for i, (_, _, nominal) in enumerate(pairs(levels)):
        order = np.argsort(values[:, i], axis=0, kind="stable")  # NaN last
        column = np.take_along_axis(values[:, i], order, axis=0)
        known = ~np.isnan(column)
        weight = known if weights is None else np.where(known, np.take_along_axis(weights, order, axis=0), 0)
        run = np.cumsum(weight, axis=0, dtype=np.float64)
        # The next window counts with weight 1, as if its score were infinite: ceil((n + 1) × nominal) if all weigh 1.
        enough = run >= nominal * (run[-1] + 1) - 1e-9
        last = np.maximum(np.count_nonzero(known, axis=0) - 1, 0)
        place = np.where(enough.any(axis=0), np.minimum(enough.argmax(axis=0), last), last)
        out[i] = np.nan_to_num(np.take_along_axis(column, place[None], axis=0)[0])
    return out


@dataclass(frozen=True)
class Calibration:
    """Offsets of the population and of every subject and day.

    Attributes:
        population: (L, H).
        personal: (rows, L, H), rows as in `first_row`.
        first_row: subject_id → (first row, first day, days).
        baseline: (H, Q) quantiles of the errors of the population ridge, in the value's unit: the intervals of the
            baseline that answers where no network can.
    """

    population: Floats
    personal: Floats
    first_row: dict[str, tuple[int, int, int]]
    baseline: Floats

    def of(self, subject_id: str | None, day: Integers) -> Floats:
        """Look up the offsets of some days of one subject, None for a newcomer, (B,) → (B, L, H)."""
        if subject_id is None or subject_id not in self.first_row:
            return np.broadcast_to(self.population, (len(day), *self.population.shape))
        row, first, days = self.first_row[subject_id]
        ahead = day - first
        personal: Floats = self.personal[row + np.clip(ahead, 0, days - 1)]
        return np.where((ahead >= 0)[:, None, None], personal, self.population)


def daily_offsets(
    values: Floats,
    ready_day: Integers,
    days: Integers,
    population: Floats,
    grid: TimeGrid,
    config: CalibrateConfig,
    levels: tuple[float, ...],
) -> Floats:
    """Compute one subject's offsets at every midnight.

    Args:
        values: (B, L, H) scores of windows in time order.
        ready_day: (B, H) the first day at whose midnight each score is known.
        days: (D,) for which offsets are computed.
        population: (L, H).
        grid: for how long windows overlap.
        config: pseudo-count, stride and half-life.
        levels: quantile levels.

    Returns:
        (D, L, H).
    """
    out = np.empty((len(days), *population.shape), dtype=np.float32)
    overlap = np.maximum(grid.steps / config.stride, 1.0)
    for i, day in enumerate(days):
        age = day - ready_day
        usable = (age >= 0) & (age < FORGOTTEN * config.half_life_days)
        rows = usable.any(axis=1)
        past = np.where(usable[rows][:, None, :], values[rows], np.float32(np.nan))
        weight = (0.5 ** (np.maximum(age[rows], 0) / config.half_life_days)).astype(np.float32)
        count = np.where(np.isnan(past[:, 0]), 0, weight).sum(axis=0) / overlap
        share = count / (count + config.pseudo_count)
        out[i] = population + share * (conformal_quantiles(past, levels, weight) - population)
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


def save_calibration(out: Path, calibration: Calibration) -> None:
    """Write the offsets."""
    out.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(calibration, name) for name in ("population", "personal", "baseline")}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, str(out / "offsets.safetensors"))
    write_json(out / "index.json", {k: list(v) for k, v in calibration.first_row.items()})


def load_calibration(directory: Path) -> Calibration:
    """Read the offsets."""
    with as_bundle_error(directory, "run `dvc repro train`"):
        arrays = load_file(str(directory / "offsets.safetensors"))
        index = {k: (v[0], v[1], v[2]) for k, v in read_json(directory / "index.json").items()}
        return Calibration(arrays["population"], arrays["personal"], index, arrays["baseline"])
