"""Forecast metrics per subject: RMSE, MAE, pinball loss, coverage, interval width, event precision and recall.

Names of places (`at`): `30`, `60` … are single horizons in minutes; `path-60` pools every step up to 60 minutes;
`all` pools every horizon. Legend of shapes: B windows, H horizons, Q quantiles.
"""

from collections.abc import Mapping

import numpy as np

from hallmark.arrays import Array, Floats
from hallmark.contracts import Metric
from hallmark.families.forecasting.panel import Grid
from hallmark.families.forecasting.task import pairs

Row = tuple[str, str, float, int]
"""(metric, at, value, windows)"""


def forecast_metrics(unit: str, levels: tuple[float, ...]) -> dict[str, Metric]:
    """The metrics that every forecasting task reports."""
    found = [Metric("rmse", unit, "lower"), Metric("mae", unit, "lower"), Metric("pinball", unit, "lower")]
    for _, _, nominal in pairs(levels):
        found.append(Metric(f"coverage_{nominal:.0%}".rstrip("%"), "", "nearer", nominal))
        found.append(Metric(f"width_{nominal:.0%}".rstrip("%"), unit, "lower"))
    return {m.name: m for m in found}


def score_points(mean: Floats, target: Floats, grid: Grid, marks: tuple[int, ...], path: int) -> list[Row]:
    """Score point forecasts: RMSE and MAE at the marks and along the path, (B, H) each."""
    rows: list[Row] = []
    error = (mean - target).astype(np.float64)
    for mark in marks:
        rows += _errors(error[:, grid.index_of(mark)], str(mark))
    inside = np.asarray(grid.horizons_minutes) <= path
    if inside.any() and not np.isnan(mean[:, inside]).any():
        rows += _errors(error[:, inside].ravel(), f"path-{path}", len(error))
    return rows


def _errors(error: Array, at: str, windows: int | None = None) -> list[Row]:
    known = error[~np.isnan(error)]
    if not len(known):
        return []
    count = len(known) if windows is None else windows
    return [("rmse", at, float(np.sqrt(np.mean(known**2))), count), ("mae", at, float(np.mean(np.abs(known))), count)]


def score_quantiles(
    quantiles: Floats, target: Floats, levels: tuple[float, ...], grid: Grid, marks: tuple[int, ...]
) -> list[Row]:
    """Score quantile forecasts: pinball loss, coverage and width of every central interval, (B, H, Q)."""
    rows: list[Row] = []
    for mark in (*marks, None):
        at = "all" if mark is None else str(mark)
        where = slice(None) if mark is None else slice(grid.index_of(mark), grid.index_of(mark) + 1)
        q, y = quantiles[:, where].astype(np.float64), target[:, where].astype(np.float64)
        there = ~np.isnan(y) & ~np.isnan(q).any(axis=-1)
        if not there.any() or (mark is None and np.isnan(q).any()):
            continue
        count = int(there.any(axis=1).sum())
        error = y[..., None] - q
        level = np.asarray(levels)
        pinball = np.maximum(level * error, (level - 1) * error).mean(axis=-1)
        rows.append(("pinball", at, float(pinball[there].mean()), count))
        for low, high, nominal in pairs(levels):
            name = f"{nominal:.0%}".rstrip("%")
            inside = (y >= q[..., low]) & (y <= q[..., high])
            rows.append((f"coverage_{name}", at, float(inside[there].mean()), count))
            rows.append((f"width_{name}", at, float((q[..., high] - q[..., low])[there].mean()), count))
    return rows


def score_events(predicted: Mapping[str, Array], happened: Mapping[str, Array], known: Array, at: str) -> list[Row]:
    """Recall and precision of named events, (B,) booleans each; undefined ones are left out."""
    rows: list[Row] = []
    for name, said in predicted.items():
        was = happened[name][known]
        said = said[known]
        hits = int((said & was).sum())
        if was.any():
            rows.append((f"{name}_recall", at, hits / int(was.sum()), int(was.sum())))
        if said.any():
            rows.append((f"{name}_precision", at, hits / int(said.sum()), int(said.sum())))
    return rows
