"""Baselines of forecasting: persistence, damped trend, time-of-day profile, ridge regression.

Each is fitted on train windows only and forecasts the same origins as the model.
Legend of shapes: B windows, C context, H horizons.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.panel import ValueScale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import SplitPanel

CHUNK = 8192


@dataclass(frozen=True)
class Baselines:
    """Fitted baselines: persistence, damped linear, time-of-day profile, ridge on the recent window's lags.

    Attributes:
        damping: share of the slope that is left after each grid step.
        weights: (K, H) of the ridge.
        intercept: (H,) of the ridge.
    """

    damping: float
    weights: Floats
    intercept: Floats

    def forecast(
        self, split_panel: SplitPanel, origins: Integers, history: History, scale: ValueScale
    ) -> dict[str, Floats]:
        """Forecast some origins with every baseline, (B, H) each, in the value's unit."""
        panel = split_panel.panel
        context = panel.context(origins)
        last = context[:, -1:]
        steps = panel.grid.steps
        slope = (last - context[:, -4:-3]) / 3.0
        ridge = last + ridge_lags(context, panel.grid.recent_length, scale) @ self.weights + self.intercept
        return {
            "persistence": np.repeat(last, len(steps), axis=1),
            "damped_linear": (last + slope * _reach(self.damping, steps)).astype(np.float32),
            "profile": profile_forecast(split_panel, origins, history, scale),
            "ridge": ridge.astype(np.float32),
        }


def fit_baselines(
    split_panel: SplitPanel, train: Integers, valid: Integers, scale: ValueScale, penalties: Sequence[float]
) -> Baselines:
    """Fit the baselines on train origins, streamed; valid chooses the ridge's penalties, as for our own ridge."""
    panel = split_panel.panel
    dampings = np.round(np.arange(0.5, 1.0, 0.05), 2)
    errors = np.zeros(len(dampings))
    short = panel.grid.steps <= 24
    equations: NormalEquations | None = None
    for start in range(0, len(train), CHUNK):
        chunk = train[start : start + CHUNK]
        context = panel.context(chunk)
        change = split_panel.target(chunk, "train") - context[:, -1:]
        x = ridge_lags(context, panel.grid.recent_length, scale)
        equations = equations or NormalEquations(x.shape[1], change.shape[1])
        equations.add(x, change)
        slope = (context[:, -1:] - context[:, -4:-3]) / 3.0
        for i, damping in enumerate(dampings):
            miss = change[:, short] - slope * _reach(float(damping), panel.grid.steps[short])
            errors[i] += float(np.nansum(miss.astype(np.float64) ** 2))
    if equations is None:
        raise ValueError("no train window to fit the baselines on")

    def valid_chunks() -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(valid), CHUNK):
            chunk = valid[start : start + CHUNK]
            context = panel.context(chunk)
            yield (
                ridge_lags(context, panel.grid.recent_length, scale),
                split_panel.target(chunk, "valid") - context[:, -1:],
            )

    weights, intercept = equations.solve_best(penalties, valid_chunks())
    return Baselines(float(dampings[int(np.argmin(errors))]), weights, intercept)


def ridge_lags(context: Floats, recent_length: int, scale: ValueScale) -> Floats:
    """Compute the ridge baseline's inputs: 12 lags, every third older lag, last reading, mean and sd, (B, K)."""
    recent = context[:, context.shape[1] - recent_length :]
    last = recent[:, -1:]
    fine, coarse = recent[:, -13:-1] - last, recent[:, :-13:3] - last
    level = np.stack([last[:, 0] - scale.center, recent.mean(axis=1) - scale.center, recent.std(axis=1)], axis=1)
    return (np.concatenate([fine, coarse, level], axis=1) / scale.spread).astype(np.float32)


def profile_forecast(split_panel: SplitPanel, origins: Integers, history: History, scale: ValueScale) -> Floats:
    """Forecast the subject's own mean of the last days at the time of day of each horizon, (B, H)."""
    panel = split_panel.panel
    rows = history.rows(panel.subject[origins], panel.day[origins])
    return history.habit(rows, panel.minute[origins].astype(np.int64), panel.grid.horizons_minutes, scale)


def _reach(damping: float, steps: Integers) -> Array:
    """Sum of damping + damping² + … over the steps."""
    total: Array = damping * (1 - damping**steps) / (1 - damping)
    return total


NAMES: Sequence[str] = ("persistence", "damped_linear", "profile", "ridge")
