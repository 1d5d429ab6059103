"""Means over subjects, and differences between groups, with bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hallmark.contracts import OURS

N_RESAMPLES = 1000  # bootstrap resamples
KEYS = ["model", "metric", "horizon_or_split", "segment"]
SUMMARY_COLUMNS = [*KEYS, "mean", "low", "high", "n_units"]
SCORE_COLUMNS = ["subject_id", *KEYS, "value", "n_examples"]


def summarise(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Average every score over subjects, each subject counting once.

    Args:
        scores: as in `Evaluation`.
        seed: seed of the bootstrap.

    Returns:
        One row per (model, metric, horizon_or_split, segment): mean, low and high (95% percentile bootstrap), and the
        number of subjects that were resampled.
    """
    rows = []
    for key, group in scores.dropna(subset=["value"]).groupby(KEYS, sort=True):
        values = group["value"].to_numpy(dtype=np.float64)
        low, high = interval(values, seed)
        rows.append((*key, float(values.mean()), low, high, len(values)))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def group_differences(
    scores: pd.DataFrame, metric: str, place: str, columns: Sequence[str], name: str, seed: int, min_subjects: int = 5
) -> pd.DataFrame:
    """Compare one metric of our model between groups of subjects.

    Args:
        scores: as in `Evaluation`; segments of groups are named `column:value`.
        metric: the metric to compare, such as a recall.
        place: its horizon or split.
        columns: columns that define the groups, such as `sex`.
        name: name of the difference in the summary.
        seed: seed of the bootstrap, which resamples the subjects of each group.
        min_subjects: smaller groups are left out; a column with fewer than two groups gets no row.

    Returns:
        Summary rows, one per column (its name is the segment): the largest difference of two groups' means.
    """
    ours = scores[(scores["model"] == OURS) & (scores["metric"] == metric) & (scores["horizon_or_split"] == place)]
    rows = []
    for column in columns:
        of_column = ours[ours["segment"].str.startswith(f"{column}:")].dropna(subset=["value"])
        groups = [
            g["value"].to_numpy(dtype=np.float64) for _, g in of_column.groupby("segment") if len(g) >= min_subjects
        ]
        if len(groups) < 2:
            continue
        rng = np.random.default_rng(seed)
        resampled = np.stack([g[rng.integers(0, len(g), (N_RESAMPLES, len(g)))].mean(axis=1) for g in groups])
        low, high = np.quantile(np.ptp(resampled, axis=0), [0.025, 0.975])
        means = [g.mean() for g in groups]
        key = (OURS, name, place, column)
        rows.append((*key, float(max(means) - min(means)), float(low), float(high), sum(map(len, groups))))
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", seed: int = 0) -> tuple[float, float]:
    """Compute the 95% percentile bootstrap interval of the mean; for one unit, both ends are its value."""
    if len(values) < 2:
        only = float(values.mean()) if len(values) else float("nan")
        return only, only
    resampled = np.random.default_rng(seed).integers(0, len(values), (N_RESAMPLES, len(values)))
    low, high = np.quantile(values[resampled].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
