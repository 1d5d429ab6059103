"""What a subject's own series shows: days unlike its other days, and hours that are usually higher or lower.

Both are informational and say how often such a finding is a chance one.

- A day is unusual if it is the strangest of the last weeks: each of these days, itself included, is scored against all
  the others, so that under days which could have come in any order, it is the strangest once in as many days
  (full conformal prediction: Vovk, Gammerman and Shafer 2005).
- A pattern is found on older days and told only if newer days, which did not find it, confirm it by a sign test; both
  are corrected for the number of hours that are tried (Bonferroni).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd

from hallmark.arrays import Array, Integers

BLOCK_HOURS = 3  # of a day that is unusual
WINDOW_HOURS = 2  # of a pattern
PAST_DAYS = 28  # that a day is compared with
FEWEST_DAYS = 14  # of which blocks are known
CONFIRM = 3  # the newest of so many days confirms a pattern
RISK = 0.05  # of all patterns of a subject together
DAY_HOURS = 24


@dataclass(frozen=True)
class Insight:
    """Something that a subject's own readings show.

    Attributes:
        kind: `unusual`: a stretch of one day; `pattern`: hours of most days.
        text: one sentence.
        first: begin of the stretch, or of the days that show the pattern; local.
        last: its end.
        chance: how often a finding like this is one of chance: a share of days, or of subjects.
    """

    kind: Literal["unusual", "pattern"]
    text: str
    first: datetime
    last: datetime
    chance: float


def insights(times: Array, values: Array, unit: str) -> list[Insight]:
    """Return what a subject's readings show, the newest last.

    Args:
        times: (N,) local, ascending, `datetime64`.
        values: (N,) in `unit`.
        unit: of the values.
    """
    return [*unusual_stretches(times, values, unit), *patterns(times, values, unit)]


def unusual_stretches(times: Array, values: Array, unit: str) -> list[Insight]:
    """Return the stretches of days that are the strangest of the last weeks."""
    first_day, table = _by_day(times, values, BLOCK_HOURS)
    found = []
    for day in range(FEWEST_DAYS, len(table)):
        begin = max(0, day - PAST_DAYS)
        known = [d for d in range(begin, day + 1) if not np.isnan(table[d]).all()]
        if len(known) <= FEWEST_DAYS or known[-1] != day:
            continue
        scores, blocks = _strangeness(table[known])
        if scores[-1] > scores[:-1].max():
            block = int(blocks[-1])
            usual = float(np.nanmedian(table[known[:-1], block]))
            start = first_day + timedelta(days=day, hours=BLOCK_HOURS * block)
            chance = 1 / len(known)
            text = (
                f"From {start:%H:%M} to {start + timedelta(hours=BLOCK_HOURS):%H:%M} on {start:%Y-%m-%d} readings were "
                f"{_apart(table[day, block] - usual, unit)} than is usual at this time: the strangest stretch of "
                f"{len(known)} days. By chance alone, one day in {len(known)} is."
            )
            found.append(Insight("unusual", text, start, start + timedelta(hours=BLOCK_HOURS), chance))
    return found


def patterns(times: Array, values: Array, unit: str) -> list[Insight]:
    """Return the hours that are usually higher or lower than the rest of the day, also on days that were held out."""
    from scipy.stats import binomtest, ttest_1samp

    first_day, table = _by_day(times, values, WINDOW_HOURS)
    whole = [day for day in range(len(table)) if not np.isnan(table[day]).any()]
    split = len(whole) - len(whole) // CONFIRM
    if split < FEWEST_DAYS:
        return []
    days = table[whole]
    # (days, windows): against the middle of the other hours of the same day, which one peak does not move.
    others = [np.median(np.delete(days, window, axis=1), axis=1) for window in range(days.shape[1])]
    effect = days - np.stack(others, axis=1)
    older, newer = effect[:split], effect[split:]
    p = ttest_1samp(older, 0.0, axis=0).pvalue
    candidates: Integers = np.flatnonzero(p < RISK / effect.shape[1])
    found = []
    for window in candidates:
        sign = np.sign(older[:, window].mean())
        agreeing = int((np.sign(newer[:, window]) == sign).sum())
        if binomtest(agreeing, len(newer), 0.5, alternative="greater").pvalue >= RISK / len(candidates):
            continue
        begin = timedelta(hours=WINDOW_HOURS * int(window))
        clock = [(first_day + begin + timedelta(hours=hours)).strftime("%H:%M") for hours in (0, WINDOW_HOURS)]
        apart = _apart(effect[:, window].mean(), unit)
        text = (
            f"Between {clock[0]} and {clock[1]} readings are usually {apart} than in most other hours of the day: "
            f"on {agreeing} of {len(newer)} days that were not used to find this."
        )
        first, last = (first_day + timedelta(days=int(day)) for day in (whole[0], whole[-1] + 1))
        found.append(Insight("pattern", text, first, last, RISK))
    return found


def _by_day(times: Array, values: Array, hours: int) -> tuple[datetime, Array]:
    """Return the first midnight, and (D, 24/h) means by day and block of the day, NaN where less than half is known."""
    blocks = DAY_HOURS // hours
    if not len(times):
        return datetime(1970, 1, 1), np.empty((0, blocks))
    minute = times.astype("datetime64[m]").astype(np.int64)
    first = int(minute[0] // (60 * DAY_HOURS))
    cell = (minute // (60 * hours)) - first * blocks
    count = -(-(int(cell[-1]) + 1) // blocks) * blocks
    frame = pd.DataFrame({"cell": cell, "value": np.asarray(values, dtype=np.float64)}).dropna()
    means = frame.groupby("cell")["value"].agg(["mean", "size"]).reindex(range(count))
    usual = float(means["size"].median())
    table = means["mean"].where(means["size"] >= 0.5 * usual).to_numpy().reshape(-1, blocks)
    return datetime(1970, 1, 1) + timedelta(days=first), table


def _strangeness(table: Array) -> tuple[Array, Integers]:
    """Return how far each day lies from all others in its strangest block, in their spread, and this block, (D,)."""
    scores = np.full(table.shape, -1.0)
    for day in range(len(table)):
        others = np.delete(table, day, axis=0)
        known = np.isfinite(table[day]) & (np.isfinite(others).sum(axis=0) >= FEWEST_DAYS // 2)
        middle = np.nanmedian(others[:, known], axis=0)
        spread = np.nanmedian(np.abs(others[:, known] - middle), axis=0)
        scores[day, known] = np.abs(table[day, known] - middle) / np.maximum(spread, 1e-9)
    return scores.max(axis=1), scores.argmax(axis=1)


def _apart(difference: float, unit: str) -> str:
    return f"{abs(difference):.3g} {unit} {'higher' if difference > 0 else 'lower'}"
