"""Summary tables: metrics with intervals by model, for ours also by segment; recall gaps; accuracy per subject.

Legend of shapes: B examples, L labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import OURS, ReportLayout
from hallmark.families.classification.importance import opportunity_difference
from hallmark.families.classification.metrics import intervals, score_classes
from hallmark.judge.bootstrap import SCORE_COLUMNS, SUMMARY_COLUMNS

TEST = "test"
MIN_EXAMPLES = 30  # smaller segments are left out
TABLES = ("accuracy", "macro_f1", "auc")
HEADLINE = ("accuracy", "macro_f1", "pr_auc", "calibration_error", "answered")
OPPORTUNITY = "equal_opportunity_difference"


def class_layout(resampling_unit: str, segmentations: Sequence[str]) -> ReportLayout:
    """Return the report layout: accuracy first, equal opportunity for every segmentation."""
    tables = (*((name, "all") for name in TABLES), *((OPPORTUNITY, by) for by in segmentations))
    return ReportLayout((TEST,), "", tuple((name, TEST, "all") for name in HEADLINE), tables, resampling_unit)


def summarise_classes(
    by_model: Mapping[str, Array],
    target: Array,
    segments: Mapping[str, Array],
    threshold: float,
    seed: int,
    groups: Array | None = None,
) -> pd.DataFrame:
    """Compute the metrics of every model on all examples, and of our model also per segment.

    Args:
        by_model: model → probabilities, (B, L).
        target: (B,) indices of the labels.
        segments: name → mask of its examples, (B,); segments of fewer than 30 examples are left out.
        threshold: confidence below which our model abstains; the others never abstain.
        seed: seed of the bootstrap.
        groups: (B,) the resampling unit of each example, see `intervals`.

    Returns:
        The summary of an `Evaluation`; `n_units` counts examples, or groups of them.
    """
    rows: list[tuple[Any, ...]] = []
    for name, probabilities in by_model.items():
        for segment, in_segment in {"all": np.ones(len(target), dtype=bool), **segments}.items():
            if segment != "all" and (name != OURS or in_segment.sum() < MIN_EXAMPLES):
                continue
            p, t = probabilities[in_segment], target[in_segment]
            cutoff = threshold if name == OURS else 0.0
            segment_groups = None if groups is None else groups[in_segment]
            count = int(in_segment.sum()) if segment_groups is None else len(np.unique(segment_groups))

            def measure(sample: Array, p: Array = p, t: Array = t, cutoff: float = cutoff) -> dict[str, float]:
                return score_classes(p[sample], t[sample], cutoff)

            scored = intervals(measure, len(t), seed, segment_groups)
            if name != OURS:  # only our model has a threshold of confidence
                scored = {metric: values for metric, values in scored.items() if "answered" not in metric}
            rows += [(name, metric, TEST, segment, *values, count) for metric, values in scored.items()]
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS).dropna(subset=["mean"])


def opportunity_rows(
    probabilities: Array,
    target: Array,
    segments: Mapping[str, Array],
    segmentations: Sequence[str],
    seed: int,
    groups: Array | None = None,
) -> list[dict[str, Any]]:
    """Compute summary rows of our model's largest difference of recall between the segments of each segmentation.

    Args:
        probabilities: (B, L) of our model.
        target: (B,) indices of the labels.
        segments: `segmentation:value` → mask of its examples, (B,).
        segmentations: each gets a row, whose segment is its name; one with fewer than two segments gets none.
        seed: seed of the bootstrap.
        groups: (B,) the resampling unit of each example, see `intervals`.
    """
    guess, rows = probabilities.argmax(axis=1), []
    units = len(target) if groups is None else len(np.unique(groups))
    for segmentation in segmentations:
        masks = [mask for name, mask in segments.items() if name.startswith(f"{segmentation}:")]

        def measure(sample: Array, masks: list[Array] = masks) -> dict[str, float]:
            resampled = [mask[sample] for mask in masks]
            return {OPPORTUNITY: opportunity_difference(guess[sample], target[sample], resampled, MIN_EXAMPLES)}

        mean, low, high = intervals(measure, len(target), seed, groups)[OPPORTUNITY]
        if np.isnan(mean):
            continue
        rows.append({**summary_row(OPPORTUNITY, (mean, low, high)), "segment": segmentation, "n_units": units})
    return rows


Spread = tuple[float, float, float]
"""A value, and the low and high end of its 95% interval."""


def summary_row(metric: str, value: float | Spread) -> dict[str, Any]:
    """Make a summary row of one value of our model, with or without its interval."""
    mean, low, high = value if isinstance(value, tuple) else (value, value, value)
    n_units = 1 if low == high else 2  # a value of one unit is shown without an interval
    row = {"model": OURS, "metric": metric, "horizon_or_split": TEST, "segment": "all"}
    return {**row, "mean": mean, "low": low, "high": high, "n_units": n_units}


def scores_by_subject(subjects: "pd.Series[str]", by_model: Mapping[str, Array], target: Array) -> pd.DataFrame:
    """Compute every model's accuracy per subject: the scores of an `Evaluation`."""
    rows = []
    for subject, positions in subjects.groupby(subjects.to_numpy()).indices.items():
        for name, probabilities in by_model.items():
            accuracy = float((probabilities[positions].argmax(axis=1) == target[positions]).mean())
            rows.append((subject, name, "accuracy", TEST, "all", accuracy, len(positions)))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)
