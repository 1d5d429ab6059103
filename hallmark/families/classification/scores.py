"""DataFrames of classification metrics, per model, subject and segment, with confidence intervals.

Legend of shapes: B examples, L labels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Shown
from hallmark.families.classification.metrics import classification_metrics, intervals, score_classes
from hallmark.judge.gates import OURS

AT = "test"
FEWEST = 30  # examples of a segment; fewer say nothing
TABLES = ("accuracy", "macro_f1", "auc")


def shown_classes(drawn: str, further: tuple[str, ...] = ()) -> Shown:
    """Show accuracy first; `further` metrics of a task's own stand behind the shared ones."""
    headline = tuple((name, "all") for name in (*classification_metrics(), *further))
    return Shown((AT,), "", headline, tuple((name, "all") for name in TABLES), drawn)


def summarise_classes(
    found: Mapping[str, Array],
    target: Array,
    segments: Mapping[str, Array],
    threshold: float,
    seed: int,
    groups: Array | None = None,
) -> pd.DataFrame:
    """Measure every model, and ours in every segment.

    Args:
        found: model → probabilities, (B, L).
        target: (B,) numbers of the labels.
        segments: name → which examples, (B,); those of fewer than 30 are left out.
        threshold: confidence below which ours does not answer; the others always do.
        seed: of the bootstrap.
        groups: (B,) what is drawn together, see `intervals`.

    Returns:
        The summary of an `Evaluation`; `drawn` counts examples, or groups of them.
    """
    rows: list[tuple[Any, ...]] = []
    for name, probabilities in found.items():
        for segment, inside in {"all": np.ones(len(target), dtype=bool), **segments}.items():
            if segment != "all" and (name != OURS or inside.sum() < FEWEST):
                continue
            p, t = probabilities[inside], target[inside]
            least = threshold if name == OURS else 0.0
            mine = None if groups is None else groups[inside]
            count = int(inside.sum()) if mine is None else len(np.unique(mine))

            def measure(drawn: Array, p: Array = p, t: Array = t, least: float = least) -> dict[str, float]:
                return score_classes(p[drawn], t[drawn], least)

            scored = intervals(measure, len(t), seed, mine)
            if name != OURS:  # no other has a threshold: it would be compared with nothing
                scored = {metric: values for metric, values in scored.items() if "answered" not in metric}
            rows += [(name, metric, AT, segment, *values, count) for metric, values in scored.items()]
    columns = ["model", "metric", "at", "segment", "mean", "low", "high", "drawn"]
    return pd.DataFrame(rows, columns=columns).dropna(subset=["mean"])


Spread = tuple[float, float, float]
"""A figure, and the low and high end of its 95% interval."""


def single(metric: str, value: float | Spread) -> dict[str, Any]:
    """Make a row of the summary for a figure of ours, with its interval or without."""
    mean, low, high = value if isinstance(value, tuple) else (value, value, value)
    drawn = 1 if low == high else 2  # a figure of one is shown without an interval
    return {"model": OURS, "metric": metric, "at": AT, "segment": "all", "mean": mean, "low": low, "high": high,
            "drawn": drawn}  # fmt: skip


def scores_by_subject(subjects: "pd.Series[str]", found: Mapping[str, Array], target: Array) -> pd.DataFrame:
    """Give every model's accuracy on every subject's rows: the scores of an `Evaluation`."""
    rows = []
    for subject, places in subjects.groupby(subjects.to_numpy()).indices.items():
        for name, probabilities in found.items():
            right = float((probabilities[places].argmax(axis=1) == target[places]).mean())
            rows.append((subject, name, "accuracy", AT, "all", right, len(places)))
    return pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "n_examples"])
