"""Means over subjects with bootstrap intervals."""

import numpy as np
import pandas as pd

DRAWS = 1000


def summarise(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Average every score over people, each person counting once.

    Args:
        scores: columns subject_id, model, metric, at, segment, value, windows.
        seed: of the bootstrap.

    Returns:
        One row a (model, metric, at, segment): mean, low and high (95% percentile bootstrap), and how many people
        were drawn.
    """
    keys = ["model", "metric", "at", "segment"]
    rows = []
    for key, group in scores.dropna(subset=["value"]).groupby(keys, sort=True):
        values = group["value"].to_numpy(dtype=np.float64)
        low, high = interval(values, seed)
        rows.append((*key, float(values.mean()), low, high, len(values)))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "drawn"])


def interval(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", seed: int = 0) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean; the value itself for one person."""
    if len(values) < 2:
        only = float(values.mean()) if len(values) else float("nan")
        return only, only
    draws = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
