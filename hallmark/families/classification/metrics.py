"""Classification metrics with bootstrap intervals, over examples or over groups of dependent ones.

Legend of shapes: B examples, L labels.
"""

from collections.abc import Callable, Mapping

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric
from hallmark.judge.bootstrap import DRAWS

BINS = 10


def classification_metrics() -> dict[str, Metric]:
    """What `score_classes` measures."""
    return {
        "accuracy": Metric("accuracy", "", "higher"),
        "macro_f1": Metric("macro_f1", "", "higher"),
        "auc": Metric("auc", "", "higher"),
        "calibration_error": Metric("calibration_error", "", "lower"),
        "answered": Metric("answered", "", "higher"),
        "accuracy_answered": Metric("accuracy_answered", "", "higher"),
    }


def score_classes(probabilities: Array, target: Array, threshold: float) -> dict[str, float]:
    """Score probabilities.

    Args:
        probabilities: (B, L).
        target: (B,) numbers of the labels.
        threshold: of confidence, below which nothing is answered.

    Returns:
        Metric → value. AUC is the mean over labels of each against the rest; a label that the targets lack is left
        out, and NaN says that only one is there. The calibration error is the mean distance of confidence and accuracy
        over ten bins of equal width, weighted by what falls into them.
    """
    guess, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = guess == target
    answered = sure >= threshold
    f1 = []
    for label in range(probabilities.shape[1]):
        hit = np.count_nonzero((guess == label) & (target == label))
        said, there = np.count_nonzero(guess == label), np.count_nonzero(target == label)
        if said + there:
            f1.append(2 * hit / (said + there))
    areas = [_area(probabilities[:, label], target == label) for label in range(probabilities.shape[1])]
    areas = [area for area in areas if not np.isnan(area)]
    count, confidence, hits = by_confidence(sure, right)
    return {
        "accuracy": float(right.mean()),
        "macro_f1": float(np.mean(f1)),
        "auc": float(np.mean(areas)) if areas else float("nan"),
        "calibration_error": float(np.abs(confidence - hits).sum() / count.sum()),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else float("nan"),
    }


def by_confidence(sure: Array, right: Array) -> tuple[Array, Array, Array]:
    """Sort answers into ten bins of confidence: how many, the sum of their confidence, how many right, each (10,)."""
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.bincount(place, minlength=BINS), np.bincount(place, sure, BINS), np.bincount(place, right, BINS)


def _area(score: Array, positive: Array) -> float:
    """Area under the ROC curve from mean ranks; NaN if all are of one kind."""
    from scipy.stats import rankdata

    there = int(np.count_nonzero(positive))
    if not 0 < there < len(score):
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - there * (there + 1) / 2) / (there * (len(score) - there)))


def intervals(
    measure: Callable[[Array], Mapping[str, float]], examples: int, seed: int, groups: Array | None = None
) -> dict[str, tuple[float, float, float]]:
    """Measure all examples, and 1,000 draws of as many with replacement.

    Args:
        measure: of the positions that were drawn, metric → value.
        examples: how many there are.
        seed: of the draws.
        groups: (B,) what belongs together and is drawn together, such as the fills of one order.

    Returns:
        Metric → value, low and high of a 95% percentile interval; draws in which it is undefined do not count.
    """
    rng = np.random.default_rng(seed)
    found = measure(np.arange(examples))
    if groups is None:
        drawn = [measure(rng.integers(0, examples, examples)) for _ in range(DRAWS)]
    else:
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
        picks = (rng.integers(0, len(members), len(members)) for _ in range(DRAWS))
        drawn = [measure(np.concatenate([members[i] for i in pick])) for pick in picks]
    return {name: (value, *_middle(np.asarray([d[name] for d in drawn]))) for name, value in found.items()}


def _middle(values: Array) -> tuple[float, float]:
    there = values[~np.isnan(values)]
    if not len(there):
        return float("nan"), float("nan")
    low, high = np.quantile(there, [0.025, 0.975])
    return float(low), float(high)
