"""Drift alarm: one figure per feature and day, standardised by frozen reference days, in a two-sided CUSUM.

Readings of one subject are autocorrelated, so that tests on single readings alarm on most days without any drift. A
feature's figure of a day is the mean over subjects of their means of that day. The threshold is not taken from a table:
it is the lowest at which stretches of the reference days themselves, drawn in blocks, alarm as rarely as configured.

Source: Page 1954 (CUSUM); Künsch 1989 (block bootstrap).
Legend of shapes: D days, F features, N reference days, R repetitions of the bootstrap.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.build import Count, Positive, configuration
from hallmark.errors import DataError

MONTH = 30  # days
FEWEST_KNOWN = 0.5  # share of the reference days with a value, below which a figure is not watched


@configuration
class DriftRule:
    """When figures of a day count as drift.

    Attributes:
        reference_days: days that define what is usual; frozen once they are complete.
        allowance: standard deviations of the reference by which a day may deviate without adding to the sum.
        false_alarms_a_month: how often all features together may alarm without drift.
        block_days: length of the blocks that the bootstrap draws, so that it keeps the autocorrelation within them.
        repetitions: of the bootstrap.
        seed: of the bootstrap.
    """

    reference_days: Count
    allowance: Positive
    false_alarms_a_month: Positive
    block_days: Count
    repetitions: Count
    seed: int


@dataclass(frozen=True)
class Alarm:
    """A feature whose figures have left the reference.

    Attributes:
        feature: its name.
        day: on which the sum passed the threshold.
        since: the first day of the deviation that the sum consists of.
        shift: mean deviation since then, in standard deviations of the reference days; its sign is the direction.
    """

    feature: str
    day: date
    since: date
    shift: float


@dataclass(frozen=True)
class Reference:
    """What is usual, and from which sum on a deviation is an alarm.

    Attributes:
        features: names, F.
        mean: (F,) of the reference days.
        sd: (F,) of the reference days.
        threshold: of the sums, in standard deviations.
        first: the first reference day.
        last: the last one.
    """

    features: tuple[str, ...]
    mean: Array
    sd: Array
    threshold: float
    first: date
    last: date


def daily_figures(rows: pd.DataFrame, features: list[str]) -> pd.DataFrame:
    """Compute the figure of every feature and day.

    Args:
        rows: columns `subject_id`, `day` and the features; a missing value counts for nothing.
        features: names of numeric columns.

    Returns:
        One row per day, in order, without gaps: days without a value are NaN. The index is the day.
    """
    of_subjects = rows.groupby(["day", "subject_id"], sort=True)[features].mean()
    figures = of_subjects.groupby(level="day", sort=True).mean()
    if figures.empty:
        return figures
    days = pd.date_range(figures.index.min(), figures.index.max(), freq="D").date
    return figures.reindex(pd.Index(days, name="day"))


def freeze_reference(figures: pd.DataFrame, rule: DriftRule) -> Reference:
    """Freeze the first days as the reference and compute the threshold.

    Args:
        figures: as `daily_figures` returns them.
        rule: how many days, and how often an alarm may be false.

    Raises:
        DataError: there are too few days, or a feature has values on less than half of them or never changes.
    """
    if len(figures) < rule.reference_days:
        raise DataError(
            f"{len(figures)} days of figures, reference_days={rule.reference_days}: "
            "wait, or set monitor.drift.reference_days"
        )
    reference = figures.iloc[: rule.reference_days]
    values = reference.to_numpy(dtype=np.float64)
    for name, column in zip(figures.columns, values.T, strict=True):
        if why := why_unwatchable(column):
            raise DataError(f"feature {name!r} {why}: take it out of monitor.drift_figures")
    spread = np.nanstd(values, axis=0, ddof=1)
    threshold = bootstrap_threshold(values, rule)
    names, (first, last) = tuple(map(str, figures.columns)), (reference.index[0], reference.index[-1])
    return Reference(names, np.nanmean(values, axis=0), spread, threshold, first, last)


def why_unwatchable(values: Array) -> str:
    """Return why a figure with these values, (N,), on the reference days cannot be watched; empty if it can."""
    known = values[~np.isnan(values)]
    if (share := len(known) / len(values)) < FEWEST_KNOWN:
        return f"has values on {share:.0%} of the reference days"
    return "" if len(known) > 1 and known.std() > 0 else "never changes on the reference days"


def find_alarms(figures: pd.DataFrame, reference: Reference, rule: DriftRule) -> list[Alarm]:
    """Return the alarms of the days after the reference; after an alarm the sum of its feature starts again at zero.

    Args:
        figures: as `daily_figures` returns them.
        reference: as `freeze_reference` returned it.
        rule: with which it was frozen.
    """
    after = figures.loc[figures.index > reference.last, list(reference.features)]
    deviations = (after.to_numpy(dtype=np.float64) - reference.mean) / reference.sd
    sums, ages = np.zeros((2, len(reference.features))), np.zeros((2, len(reference.features)), dtype=np.int64)
    alarms = []
    for number, (day, row) in enumerate(zip(after.index, deviations, strict=True)):
        sums = _advance(sums, row, rule.allowance)
        ages = np.where(sums > 0, ages + 1, 0)
        for direction, feature in np.argwhere(sums > reference.threshold):
            start = number + 1 - ages[direction, feature]
            shift = float(np.nanmean(deviations[start : number + 1, feature]))
            since = after.index[start]
            alarms.append(Alarm(reference.features[feature], day, since, shift))
            sums[:, feature], ages[:, feature] = 0.0, 0
    return alarms


def bootstrap_threshold(values: Array, rule: DriftRule) -> float:
    """Find the threshold at which stretches of the reference alarm as rarely as the rule says.

    Every repetition draws a reference and a month after it, both in blocks of consecutive days, all features together;
    the month is standardised by the reference drawn, so that the error of a short reference counts as well.

    Args:
        values: (N, F) figures of the reference days.
        rule: block length, repetitions, allowance and the bound.
    """
    generator = np.random.default_rng(rule.seed)
    count, block = len(values), min(rule.block_days, len(values))
    draw = _blocks(generator, rule.repetitions, count + MONTH, count, block)  # (R, N + MONTH)
    with np.errstate(invalid="ignore"):
        reference, month = values[draw[:, :count]], values[draw[:, count:]]  # (R, N, F), (R, MONTH, F)
        mean, sd = np.nanmean(reference, axis=1), np.nanstd(reference, axis=1, ddof=1)
        deviations = (month - mean[:, None]) / np.maximum(sd, 1e-12)[:, None]
    low, high = 0.0, 1.0
    while _alarms_a_month(deviations, rule.allowance, high) > rule.false_alarms_a_month:
        low, high = high, 2 * high
    for _ in range(12):
        middle = (low + high) / 2
        if _alarms_a_month(deviations, rule.allowance, middle) > rule.false_alarms_a_month:
            low = middle
        else:
            high = middle
    return high


def _alarms_a_month(deviations: Array, allowance: float, threshold: float) -> float:
    repetitions, days, features = deviations.shape
    sums = np.zeros((2, repetitions, features))
    alarms = 0
    for day in range(days):
        sums = _advance(sums, deviations[:, day], allowance)
        over = (sums > threshold).any(axis=0)
        alarms += int(over.sum())
        sums[:, over] = 0.0
    return float(alarms * MONTH / (repetitions * days))


def _advance(sums: Array, row: Array, allowance: float) -> Array:
    """Add a day to the sums of both directions, (2, …); a day without a value leaves them as they are."""
    known = ~np.isnan(row)
    added = np.stack([np.where(known, row - allowance, 0.0), np.where(known, -row - allowance, 0.0)])
    return np.asarray(np.maximum(sums + added, 0.0))


def _blocks(generator: np.random.Generator, repetitions: int, length: int, count: int, block: int) -> Array:
    """Draw sequences of day numbers in blocks of consecutive days, (repetitions, length); a block wraps at the end."""
    starts = generator.integers(0, count, (repetitions, -(-length // block)))
    days = starts[:, :, None] + np.arange(block)
    return np.asarray(days.reshape(repetitions, -1)[:, :length] % count)


def describe(alarm: Alarm) -> str:
    """Say what has moved, by how much and since when."""
    days = (alarm.day - alarm.since) // timedelta(days=1) + 1
    return (
        f"{alarm.feature} deviates by {alarm.shift:+.1f} standard deviations of the reference days since {alarm.since} "
        f"({days} day{'s' if days > 1 else ''})"
    )
