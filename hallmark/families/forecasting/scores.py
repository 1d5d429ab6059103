"""Forecast metrics per subject: RMSE, MAE, R², pinball loss, coverage, interval width, event precision and recall.

Names of horizons: `30`, `60` … are single horizons in minutes; `path-60` pools every step up to 60 minutes;
`all` pools every horizon. Legend of shapes: B windows, H horizons, Q quantiles.
"""

from collections.abc import Mapping

import numpy as np

from hallmark.arrays import Array, Floats
from hallmark.contracts import Metric
from hallmark.families.forecasting.panel import TimeGrid
from hallmark.families.forecasting.task import pairs

Row = tuple[str, str, float, int]
"""(metric, horizon, value, number of windows)"""


def forecast_metrics(unit: str, levels: tuple[float, ...]) -> dict[str, Metric]:
    """Return the metrics that every forecasting task reports."""
    metrics = [Metric("rmse", unit, "lower"), Metric("mae", unit, "lower"), Metric("pinball", unit, "lower")]
    metrics.append(Metric("r2", "", "higher"))
    for _, _, nominal in pairs(levels):
        metrics.append(Metric(f"coverage_{nominal:.0%}".rstrip("%"), "", "nearer", nominal))
        metrics.append(Metric(f"width_{nominal:.0%}".rstrip("%"), unit, "lower"))
    return {m.name: m for m in metrics}


def score_points(mean: Floats, target: Floats, grid: TimeGrid, horizons: tuple[int, ...], path: int) -> list[Row]:
    """Score point forecasts, (B, H) each: RMSE, MAE and R² at single horizons, RMSE and MAE along the path."""
    rows: list[Row] = []
    error = (mean - target).astype(np.float64)
    for minutes in horizons:
        place = grid.index_of(minutes)
        rows += _errors(error[:, place], str(minutes)) + _explained(error[:, place], target[:, place], str(minutes))
    inside = np.asarray(grid.horizons_minutes) <= path
    if inside.any() and not np.isnan(mean[:, inside]).any():
        rows += _errors(error[:, inside].ravel(), f"path-{path}", len(error))
    return rows


def _errors(error: Array, horizon: str, windows: int | None = None) -> list[Row]:
    known = error[~np.isnan(error)]
    if not len(known):
        return []
    count = len(known) if windows is None else windows
    rmse, mae = float(np.sqrt(np.mean(known**2))), float(np.mean(np.abs(known)))
    return [("rmse", horizon, rmse, count), ("mae", horizon, mae, count)]


def _explained(error: Array, target: Floats, horizon: str) -> list[Row]:
    """Compute R², the explained share of the target's variance; left out where the target does not vary."""
    known = ~np.isnan(error)
    spread = target[known].astype(np.float64)
    total = float(np.sum((spread - spread.mean()) ** 2)) if len(spread) else 0.0
    return [("r2", horizon, 1.0 - float(np.sum(error[known] ** 2)) / total, len(spread))] if total > 0 else []


def score_quantiles(
    quantiles: Floats, target: Floats, levels: tuple[float, ...], grid: TimeGrid, horizons: tuple[int, ...]
) -> list[Row]:
    """Score quantile forecasts: pinball loss, coverage and width of every central interval, (B, H, Q)."""
    rows: list[Row] = []
    for minutes in (*horizons, None):
        horizon = "all" if minutes is None else str(minutes)
        where = slice(None) if minutes is None else slice(grid.index_of(minutes), grid.index_of(minutes) + 1)
        q, y = quantiles[:, where].astype(np.float64), target[:, where].astype(np.float64)
        known = ~np.isnan(y) & ~np.isnan(q).any(axis=-1)
        if not known.any() or (minutes is None and np.isnan(q).any()):
            continue
        count = int(known.any(axis=1).sum())
        error = y[..., None] - q
        level = np.asarray(levels)
        pinball = np.maximum(level * error, (level - 1) * error).mean(axis=-1)
        rows.append(("pinball", horizon, float(pinball[known].mean()), count))
        for low, high, nominal in pairs(levels):
            name = f"{nominal:.0%}".rstrip("%")
            inside = (y >= q[..., low]) & (y <= q[..., high])
            rows.append((f"coverage_{name}", horizon, float(inside[known].mean()), count))
            rows.append((f"width_{name}", horizon, float((q[..., high] - q[..., low])[known].mean()), count))
    return rows


def score_events(
    predicted: Mapping[str, Array], happened: Mapping[str, Array], known: Array, horizon: str
) -> list[Row]:
    """Score recall and precision of named events, (B,) booleans each; undefined scores are left out."""
    rows: list[Row] = []
    for name, flagged in predicted.items():
        occurred = happened[name][known]
        flagged = flagged[known]
        hits = int((flagged & occurred).sum())
        if occurred.any():
            rows.append((f"{name}_recall", horizon, hits / int(occurred.sum()), int(occurred.sum())))
        if flagged.any():
            rows.append((f"{name}_precision", horizon, hits / int(flagged.sum()), int(flagged.sum())))
    return rows
