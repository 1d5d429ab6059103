"""Baselines of forecasting: persistence, damped trend, time-of-day profile, ridge regression.

Each is fitted on train windows only and forecasts the same origins as the model.
Legend of shapes: B windows, C context, H horizons.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.panel import Scale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import Parts

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

    def forecast(self, parts: Parts, origins: Integers, history: History, scale: Scale) -> dict[str, Floats]:
        """Forecast some origins with every baseline, (B, H) each, in the value's unit."""
        panel = parts.panel
        context = panel.context(origins)
        last = context[:, -1:]
        steps = panel.grid.steps
        slope = (last - context[:, -4:-3]) / 3.0
        ridge = last + ridge_lags(context, panel.grid.recent_length, scale) @ self.weights + self.intercept
        return {
            "persistence": np.repeat(last, len(steps), axis=1),
            "damped_linear": (last + slope * _reach(self.damping, steps)).astype(np.float32),
            "profile": profile_forecast(parts, origins, history, scale),
            "ridge": ridge.astype(np.float32),
        }


def fit_baselines(
    parts: Parts, train: Integers, valid: Integers, scale: Scale, penalties: Sequence[float]
) -> Baselines:
    """Fit the baselines on train origins, streamed; the ridge's penalties are chosen on valid, as our own are."""
    panel = parts.panel
    dampings = np.round(np.arange(0.5, 1.0, 0.05), 2)
    errors = np.zeros(len(dampings))
    short = panel.grid.steps <= 24
    equations: NormalEquations | None = None
    for start in range(0, len(train), CHUNK):
        part = train[start : start + CHUNK]
        context = panel.context(part)
        change = parts.target(part, "train") - context[:, -1:]
        x = ridge_lags(context, panel.grid.recent_length, scale)
        equations = equations or NormalEquations(x.shape[1], change.shape[1])
        equations.add(x, change)
        slope = (context[:, -1:] - context[:, -4:-3]) / 3.0
        for i, damping in enumerate(dampings):
            miss = change[:, short] - slope * _reach(float(damping), panel.grid.steps[short])
            errors[i] += float(np.nansum(miss.astype(np.float64) ** 2))
    if equations is None:
        raise ValueError("no train window to fit the baselines on")

    def looks() -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(valid), CHUNK):
            part = valid[start : start + CHUNK]
            context = panel.context(part)
            yield ridge_lags(context, panel.grid.recent_length, scale), parts.target(part, "valid") - context[:, -1:]

    weights, intercept = equations.solve_best(penalties, looks())
    return Baselines(float(dampings[int(np.argmin(errors))]), weights, intercept)


def ridge_lags(context: Floats, recent_length: int, scale: Scale) -> Floats:
    """What the ridge baseline sees: the recent window in steps of three readings, its mean and spread, (B, K)."""
    recent = context[:, context.shape[1] - recent_length :]
    last = recent[:, -1:]
    fine, coarse = recent[:, -13:-1] - last, recent[:, :-13:3] - last
    level = np.stack([last[:, 0] - scale.center, recent.mean(axis=1) - scale.center, recent.std(axis=1)], axis=1)
    return (np.concatenate([fine, coarse, level], axis=1) / scale.spread).astype(np.float32)


def profile_forecast(parts: Parts, origins: Integers, history: History, scale: Scale) -> Floats:
    """The person's own mean of the last days at the time of day of each horizon, (B, H)."""
    panel = parts.panel
    rows = history.rows(panel.subject[origins], panel.day[origins])
    return history.habit(rows, panel.minute[origins].astype(np.int64), panel.grid.horizons_minutes, scale)


def _reach(damping: float, steps: Integers) -> Array:
    """Sum of damping + damping² + … over the steps."""
    total: Array = damping * (1 - damping**steps) / (1 - damping)
    return total


NAMES: Sequence[str] = ("persistence", "damped_linear", "profile", "ridge")
