"""Turn readings and a subject's history into the tensors of a forecaster, in training and in serving alike.

Training gathers contexts from a panel, serving from a request; both call `Assembler.batch`.
Legend of shapes: B windows, C context, F inputs, H horizons.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.errors import DataError
from hallmark.families.forecasting.history import BINS, HOURS, STATISTICS, History, HistoryConfig
from hallmark.families.forecasting.inputs import ridge_features, window_inputs
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Grid, Scale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import Parts

CHUNK = 8192  # windows held at once
MATURE_DAYS = 60  # of history, after which more does not make the online ridge more trusted


@dataclass(frozen=True)
class Assembler:
    """Everything between readings and a forecaster's inputs.

    Attributes:
        grid: the grid.
        scale: units.
        history: how a person's past is summarised.
        weights: (P, H) of the population ridge on the window inputs, in the value's unit.
        intercept: (H,) of the population ridge.
    """

    grid: Grid
    scale: Scale
    history: HistoryConfig
    weights: Floats
    intercept: Floats

    def window(self, context: Floats, minute: Array) -> Floats:
        """Describe contexts, (B, C) → (B, P)."""
        return window_inputs(context, minute, self.grid, self.scale)

    def population(self, window: Floats) -> Floats:
        """Forecast the change from the last reading by the population ridge, (B, P) → (B, H)."""
        return (window @ self.weights + self.intercept).astype(np.float32)

    def batch(self, context: Floats, minute: Array, history: History | None, rows: Integers | None) -> dict[str, Array]:
        """Assemble what `Forecaster.forward` takes.

        Args:
            context: (B, C) readings, oldest first.
            minute: (B,) local wall-clock minute of the last reading.
            history: past of the people in the batch, None for newcomers.
            rows: (B,) row of each window in `history`, -1 for a newcomer.
        """
        window = self.window(context, minute)
        change = self.population(window)
        last = context[:, -1:]
        anchor = last + change
        marks = [self.grid.index_of(m) for m in self.history.ridge.input_horizons_minutes]
        if history is None or rows is None:
            personal = np.zeros((len(context), self.personal_size), dtype=np.float32)
            correction, habit = np.zeros_like(anchor), anchor
            known = maturity = np.zeros(len(context), dtype=np.float32)
        else:
            personal, correction, known = self._personal(context, minute, last, history, rows, marks)
            habit = history.habit(np.maximum(rows, 0), minute, self.grid.horizons_minutes, self.scale)
            maturity = np.minimum(personal[:, STATISTICS - 1] / np.float32(np.log1p(MATURE_DAYS)), 1)
        hint = change[:, marks] / self.scale.spread
        recent = (context[:, -self.grid.recent_length :] - last) / self.scale.spread
        x = np.concatenate([window, hint, personal], axis=1).astype(np.float32)
        return {
            "x": x,
            "recent": recent.astype(np.float32),
            "anchor": anchor.astype(np.float32),
            "correction": correction.astype(np.float32),
            "habit": (habit - anchor).astype(np.float32),
            "known": known,
            "adapted": known.copy(),
            "maturity": maturity,
        }

    @property
    def personal_size(self) -> int:
        """How many inputs are personal: they stand last."""
        marks = len(self.history.ridge.input_horizons_minutes)
        return STATISTICS + 1 + HOURS + 2 + marks * (2 + len(self.history.ridge.other_penalties))

    @property
    def adapter_size(self) -> int:
        """How many of the personal inputs come from the online ridge: they stand last of all."""
        return len(self.history.ridge.input_horizons_minutes) * (2 + len(self.history.ridge.other_penalties))

    @property
    def input_size(self) -> int:
        """How many inputs there are."""
        return len(self.weights) + len(self.history.ridge.input_horizons_minutes) + self.personal_size

    def _personal(
        self, context: Floats, minute: Array, last: Array, history: History, rows: Integers, marks: list[int]
    ) -> tuple[Array, Array, Array]:
        safe = np.maximum(rows, 0)
        known = ((rows >= 0) & (history.statistics[safe, -1] > 0)).astype(np.float32)
        width = MINUTES_A_DAY // BINS
        now = (minute % MINUTES_A_DAY) // width
        ahead = (now[:, None] + 1 + np.arange(BINS)) % BINS
        profile = history.profile[safe[:, None], ahead].reshape(len(rows), HOURS, BINS // HOURS).mean(axis=2)
        statistics = history.statistics[safe]
        offset = statistics[:, :1] - (last - self.scale.center) / self.scale.spread
        features = ridge_features(context, minute, self.grid.recent_length, self.scale)
        correction = _rowwise(features, history.weights, safe)
        others = _rowwise(features, history.other_weights, safe)
        parts = [
            statistics,
            offset,
            profile,
            history.change[safe, now],
            correction[:, marks] / self.scale.spread,
            others / self.scale.spread,
            history.residual[safe][:, marks],
        ]
        personal = np.concatenate(parts, axis=1).astype(np.float32) * known[:, None]
        return personal, correction * known[:, None], known


def _rowwise(features: Floats, weights: Floats, rows: Integers) -> Floats:
    """Multiply each row's features with its own weights, (B, K) and (R, K, H) → (B, H).

    Windows that share a row are multiplied together: a batch of one person's day is one product.
    """
    out = np.empty((len(rows), weights.shape[2]), dtype=np.float32)
    if len(rows) == 0:
        return out
    order = np.argsort(rows, kind="stable")
    cuts = np.flatnonzero(np.diff(rows[order])) + 1
    if len(cuts) * 4 > len(rows):  # mostly different rows: one gather is cheaper than many small products
        np.einsum("bk,bkh->bh", features, weights[rows], out=out, optimize=False)
        return out
    for part in np.split(order, cuts):
        out[part] = features[part] @ weights[rows[part[0]]]
    return out


def fit_population_ridge(
    parts: Parts, train: Integers, valid: Integers, scale: Scale, penalties: Sequence[float]
) -> tuple[Floats, Floats]:
    """Fit the population ridge: window inputs → change from the last reading, streamed.

    Args:
        parts: readings and their splits.
        train: origins to learn from.
        valid: origins that choose among the penalties, horizon by horizon.
        scale: units.
        penalties: ascending.

    Returns:
        Weights (P, H) and intercepts (H,), in the value's unit.

    Raises:
        DataError: no window to learn from.
    """
    if not len(train):
        raise DataError("no gap-free window in anybody's train time: add readings or shorten task.grid.recent_length")
    panel = parts.panel

    def chunks(origins: Integers, part: str) -> Iterator[tuple[Floats, Floats]]:
        for start in range(0, len(origins), CHUNK):
            here = origins[start : start + CHUNK]
            minute = panel.minute[here].astype(np.int64)
            x = window_inputs(panel.context(here), minute, panel.grid, scale)
            yield x, parts.target(here, part) - panel.values[here][:, None]

    equations: NormalEquations | None = None
    for x, y in chunks(train, "train"):
        equations = equations or NormalEquations(x.shape[1], y.shape[1])
        equations.add(x, y)
    assert equations is not None
    return equations.solve_best(penalties, chunks(valid, "valid"))
