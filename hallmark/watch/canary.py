"""Canary: decide from delayed outcomes whether a challenger is worse than the champion, after every day.

Both models answer the canary's requests, so that their losses are paired. The losses of one subject resemble each
other: the standard error counts subjects, not requests. A fixed test that is repeated every day alarms sooner or later;
the evidence here is a mixture of likelihood ratios, which passes 1 / error_rate with no more than that probability
however often it is computed, as long as the challenger is worse by no more than the margin.

Source: Robbins 1970 and Johari, Pekelis and Walsh 2017 (mSPRT); Liang and Zeger 1986 (clustered standard error).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from hallmark.build import Count, InnerShare, Positive, configuration

Decision = Literal["continue", "roll_back"]


@configuration
class CanaryRule:
    """When a challenger is rolled back.

    Attributes:
        margin: by how much a challenger's mean loss may be worse, in standard deviations of the champion's losses.
        error_rate: how often a challenger that is worse by the margin is rolled back, over the whole canary.
        effect: differences beyond the margin that the test is most sensitive to, in the same unit.
        fewest_subjects: below which nothing is decided.
        fewest_pairs: subject-days below which nothing is decided.
    """

    margin: Positive
    error_rate: InnerShare
    effect: Positive
    fewest_subjects: Count
    fewest_pairs: Count


@dataclass(frozen=True)
class CanaryResult:
    """What the outcomes so far say.

    Attributes:
        decision: whether the challenger is rolled back.
        reason: one sentence.
        difference: mean loss of the challenger minus that of the champion, in standard deviations; None if unknown.
        standard_error: of the difference.
        evidence: against a challenger that is worse by no more than the margin; 1 / error_rate rolls back.
        subjects: that have outcomes.
        pairs: subject-days that have outcomes of both.
    """

    decision: Decision
    reason: str
    difference: float | None
    standard_error: float | None
    evidence: float
    subjects: int
    pairs: int


def judge_canary(losses: pd.DataFrame, rule: CanaryRule) -> CanaryResult:
    """Judge a challenger.

    Args:
        losses: one row per subject and day: `subject_id`, `champion`, `challenger`, mean losses of that day over the
            same requests. A day without an outcome of both is left out, and counts for neither.
        rule: margin and error rate.
    """
    paired = losses.dropna(subset=["champion", "challenger"])
    subjects, pairs = int(paired["subject_id"].nunique()), len(paired)
    spread = float(paired["champion"].std()) if pairs > 1 else 0.0
    if subjects < max(rule.fewest_subjects, 2) or pairs < rule.fewest_pairs or not spread > 0:
        reason = (
            f"{pairs} subject-days of {subjects} subjects have outcomes of both models; "
            f"{rule.fewest_pairs} of {rule.fewest_subjects} are needed"
        )
        return CanaryResult("continue", reason, None, None, 1.0, subjects, pairs)
    differences = (paired["challenger"] - paired["champion"]) / spread
    mean, error = clustered_mean(differences, paired["subject_id"])
    evidence = _evidence(mean - rule.margin, error, subjects, rule.effect)
    worse = evidence >= 1 / rule.error_rate
    figures = f"its mean loss is {mean:+.3f} ± {error:.3f} standard deviations against the champion's"
    reason = f"{figures}, worse by more than {rule.margin:g}" if worse else f"{figures}: no evidence that it is worse"
    return CanaryResult("roll_back" if worse else "continue", reason, mean, error, evidence, subjects, pairs)


def clustered_mean(values: "pd.Series[float]", subjects: "pd.Series[str]") -> tuple[float, float]:
    """Return the mean, and its standard error where values of one subject are not independent."""
    mean = float(values.mean())
    sums = (values - mean).groupby(subjects.to_numpy()).sum().to_numpy()
    count = len(sums)
    return mean, float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))


def _evidence(excess: float, error: float, subjects: int, effect: float) -> float:
    """Return the mixture of likelihood ratios of an excess, normally distributed with sd `effect`, against none."""
    from scipy.stats import norm, t

    if excess <= 0 or not error > 0:
        return 1.0 if error > 0 or excess <= 0 else float("inf")
    # The standard error of few subjects is uncertain itself: a t value becomes the normal one of the same probability.
    z = float(norm.isf(t.sf(excess / error, subjects - 1)))
    ratio = effect**2 / error**2
    return float(np.exp(min(0.5 * (z**2 * ratio / (1 + ratio) - np.log1p(ratio)), 700.0)))
