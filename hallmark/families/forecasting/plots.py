"""Plots of a forecast evaluation: fans, errors, calibration, residuals, gains by personal inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import OURS
from hallmark.families.forecasting.task import ForecastTask, pairs
from hallmark.judge.pictures import draw_calibration, draw_errors, draw_fans, draw_gains, draw_residuals


def draw_evaluation(
    horizons_minutes: Sequence[int],
    main_horizon: int,
    task: ForecastTask,
    levels: tuple[float, ...],
    out: Path,
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    fans: list[Any],
    residuals: Array,
) -> dict[str, str]:
    """Plot what every forecasting task reports; `residuals` is (N, 2): forecast, and target minus forecast."""
    columns = [str(m) for m in horizons_minutes]
    captions = {}
    if fans:
        draw_fans(out / "fans.png", fans, task.grid.horizons_minutes, levels, task.unit)
        captions["fans.png"] = (
            f"Forecasts of held-out subjects ({len(fans)} of them) with their 50, 80 and 90% intervals"
        )
    draw_errors(out / "errors.png", summary, columns, task.unit)
    captions["errors.png"] = "RMSE on held-out subjects with 95% bootstrap intervals over subjects"
    ours = summary[(summary["model"] == OURS) & (summary["segment"] == "all")]
    nominal = sorted(n for _, _, n in pairs(levels))
    measured = {}
    for column in columns:
        at_horizon = ours[ours["horizon_or_split"] == column].set_index("metric")["mean"]
        names = [f"coverage_{n:.0%}".rstrip("%") for n in nominal]
        if all(name in at_horizon.index for name in names):
            measured[column] = [float(at_horizon.loc[name]) for name in names]
    draw_calibration(out / "calibration.png", nominal, measured)
    captions["calibration.png"] = "Measured against nominal coverage, all subjects"
    known = residuals[~np.isnan(residuals[:, 1])].astype(np.float64)
    if len(known):
        title = f"Residuals at {main_horizon} min"
        draw_residuals(out / "residuals.png", known[:, 0], known[:, 1], task.unit, title)
        captions["residuals.png"] = f"{title}: target minus forecast, every eighth test window of all subjects"
    gains = _gains(scores, str(main_horizon))
    draw_gains(out / "gains.png", gains, "change of RMSE by personal inputs, %")
    captions["gains.png"] = "Change of RMSE by personal inputs for every subject (negative is better)"
    return captions


def _gains(scores: pd.DataFrame, horizon: str) -> "pd.Series[float]":
    """Compute every subject's change of RMSE against the same model without personal inputs, in percent."""
    errors = scores[
        (scores["metric"] == "rmse") & (scores["horizon_or_split"] == horizon) & (scores["segment"] == "all")
    ]
    wide = errors.pivot(index="subject_id", columns="model", values="value")
    return (wide[OURS] / wide["no_personal"] - 1) * 100
