"""Classification metrics with bootstrap intervals, over examples or over groups of dependent ones.

Legend of shapes: B examples, L labels.
"""

from collections.abc import Callable, Mapping

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Metric
from hallmark.judge.bootstrap import N_RESAMPLES

BINS = 10


def classification_metrics() -> dict[str, Metric]:
    """Return the metrics of `score_classes`, by name."""
    return {
        "accuracy": Metric("accuracy", "", "higher"),
        "precision": Metric("precision", "", "higher"),
        "recall": Metric("recall", "", "higher"),
        "macro_f1": Metric("macro_f1", "", "higher"),
        "auc": Metric("auc", "", "higher"),
        "pr_auc": Metric("pr_auc", "", "higher"),
        "calibration_error": Metric("calibration_error", "", "lower"),
        "answered": Metric("answered", "", "higher"),
        "accuracy_answered": Metric("accuracy_answered", "", "higher"),
    }


def score_classes(probabilities: Array, target: Array, threshold: float) -> dict[str, float]:
    """Compute all classification metrics of predicted probabilities.

    Args:
        probabilities: (B, L).
        target: (B,) indices of the labels.
        threshold: confidence below which the model abstains.

    Returns:
        Metric → value. Precision, recall and F1 are macro averages: precision over the predicted labels, recall over
        the labels in the target. AUC and PR-AUC (average precision) are means over labels, one against the rest; labels
        that are missing in the target are left out, and NaN means that it has only one label. The calibration error is
        the mean distance of confidence and accuracy over ten bins of equal width, weighted by their size.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    correct = predicted == target
    answered = confidence >= threshold
    labels = range(probabilities.shape[1])
    confusion = confusion_matrix(predicted, target, len(labels))
    n_correct, n_predicted, n_actual = np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    auc = [_roc_auc(probabilities[:, label], target == label) for label in labels]
    average_precision = [_average_precision(probabilities[:, label], target == label) for label in labels]
    count, confidence_by_bin, correct_by_bin = confidence_bins(confidence, correct)
    return {
        "accuracy": float(correct.mean()),
        "precision": float(np.mean(n_correct[n_predicted > 0] / n_predicted[n_predicted > 0])),
        "recall": float(np.mean(n_correct[n_actual > 0] / n_actual[n_actual > 0])),
        "macro_f1": float(np.mean((2 * n_correct / np.maximum(n_predicted + n_actual, 1))[n_predicted + n_actual > 0])),
        "auc": _mean_of_known(auc),
        "pr_auc": _mean_of_known(average_precision),
        "calibration_error": float(np.abs(confidence_by_bin - correct_by_bin).sum() / count.sum()),
        "answered": float(answered.mean()),
        "accuracy_answered": float(correct[answered].mean()) if answered.any() else float("nan"),
    }


def confusion_matrix(guess: Array, target: Array, labels: int) -> Array:
    """Count examples by right label (row) and predicted label (column), (L, L)."""
    return np.bincount(target * labels + guess, minlength=labels * labels).reshape(labels, labels)


def confidence_bins(sure: Array, right: Array) -> tuple[Array, Array, Array]:
    """Sort predictions into ten bins of confidence.

    Args:
        sure: (B,) confidence of each prediction.
        right: (B,) whether it is right.

    Returns:
        Per bin, (10,) each: number of predictions, sum of their confidence, number of right ones.
    """
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.bincount(bins, minlength=BINS), np.bincount(bins, sure, BINS), np.bincount(bins, right, BINS)


def _roc_auc(score: Array, positive: Array) -> float:
    """Compute the area under the ROC curve from mean ranks; NaN if there is only one class."""
    from scipy.stats import rankdata

    n_positive = int(np.count_nonzero(positive))
    if not 0 < n_positive < len(score):
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * (len(score) - n_positive)))


def _average_precision(score: Array, positive: Array) -> float:
    """Compute the area under the precision-recall curve as a step function; NaN if there is only one class."""
    n_positive = int(np.count_nonzero(positive))
    if not 0 < n_positive < len(score):
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # equal scores share one threshold
    precision, recall = hits[last] / (last + 1), hits[last] / n_positive
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def intervals(
    measure: Callable[[Array], Mapping[str, float]], examples: int, seed: int, groups: Array | None = None
) -> dict[str, tuple[float, float, float]]:
    """Compute metrics of all examples with 95% bootstrap intervals (1,000 resamples with replacement).

    Args:
        measure: function from positions of examples to metric → value.
        examples: number of examples.
        seed: seed of the bootstrap.
        groups: (B,) resampling unit of each example, such as the order of a fill; None resamples single examples.

    Returns:
        Metric → value, low and high of the percentile interval; resamples with an undefined metric are ignored.
    """
    rng = np.random.default_rng(seed)
    values = measure(np.arange(examples))
    if groups is None:
        resampled = [measure(rng.integers(0, examples, examples)) for _ in range(N_RESAMPLES)]
    else:
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
        picks = (rng.integers(0, len(members), len(members)) for _ in range(N_RESAMPLES))
        resampled = [measure(np.concatenate([members[i] for i in pick])) for pick in picks]
    return {
        name: (value, *_percentile_interval(np.asarray([sample[name] for sample in resampled])))
        for name, value in values.items()
    }


def _percentile_interval(values: Array) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
