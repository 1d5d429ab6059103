"""Turn readings and a subject's history into the tensors of a forecaster, in training and in serving alike.

Training gathers contexts from a panel, serving from a request; both call `Assembler.batch`.
Legend of shapes: B windows, C context, F inputs, H horizons.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hallmark.arrays import Array, Floats, Integers
from hallmark.errors import DataError
from hallmark.families.forecasting.history import BINS, HOURS, STATISTICS, History, HistoryConfig
from hallmark.families.forecasting.inputs import ridge_features, window_inputs
from hallmark.families.forecasting.panel import MINUTES_A_DAY, TimeGrid, ValueScale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import SplitPanel

CHUNK = 8192  # windows held at once
MATURE_DAYS = 60  # days of history after which the trust in the online ridge no longer grows


@dataclass(frozen=True)
class Assembler:
    """Preprocessing between readings and a forecaster's inputs.

    Attributes:
        grid: the grid.
        scale: units.
        history: how a subject's past is summarised.
        weights: (P, H) of the population ridge on the window inputs, in the value's unit.
        intercept: (H,) of the population ridge.
    """

    grid: TimeGrid
    scale: ValueScale
    history: HistoryConfig
    weights: Floats
    intercept: Floats

    def window(self, context: Floats, minute: Array) -> Floats:
        """Compute the window inputs of contexts, (B, C) → (B, P)."""
        return window_inputs(context, minute, self.grid, self.scale)

    def population(self, window: Floats) -> Floats:
        """Forecast the change from the last reading by the population ridge, (B, P) → (B, H)."""
        return (window @ self.weights + self.intercept).astype(np.float32)

    def batch(self, context: Floats, minute: Array, history: History | None, rows: Integers | None) -> dict[str, Array]:
        """Assemble what `Forecaster.forward` takes.

        Args:
            context: (B, C) readings, oldest first.
            minute: (B,) local wall-clock minute of the last reading.
            history: past of the subjects in the batch; None if all are newcomers.
            rows: (B,) row of each window in `history`, -1 for a newcomer.
        """
        window = self.window(context, minute)
        change = self.population(window)
        last = context[:, -1:]
        anchor = last + change
        input_horizons = self.history.ridge.input_horizons(self.grid)
        if history is None or rows is None:
            personal = np.zeros((len(context), self.personal_size), dtype=np.float32)
            correction, habit = np.zeros_like(anchor), anchor
            known = maturity = np.zeros(len(context), dtype=np.float32)
        else:
            personal, correction, known = self._personal(context, minute, last, history, rows, input_horizons)
            habit = history.habit(np.maximum(rows, 0), minute, self.grid.horizons_minutes, self.scale)
            maturity = np.minimum(personal[:, STATISTICS - 1] / np.float32(np.log1p(MATURE_DAYS)), 1)
        hint = change[:, input_horizons] / self.scale.spread
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

    @cached_property
    def digest(self) -> str:
        """sha256 of the population ridge as it is in memory."""
        return hashlib.sha256(self.weights.tobytes() + self.intercept.tobytes()).hexdigest()

    @property
    def personal_size(self) -> int:
        """Number of personal inputs; they are the last columns of the inputs."""
        input_horizons = len(self.history.ridge.input_horizons_minutes)
        return STATISTICS + 1 + HOURS + 2 + input_horizons * (2 + len(self.history.ridge.other_penalties))

    @property
    def adapter_size(self) -> int:
        """Number of personal inputs from the online ridge; they are the last columns of the personal inputs."""
        return len(self.history.ridge.input_horizons_minutes) * (2 + len(self.history.ridge.other_penalties))

    @property
    def input_size(self) -> int:
        """Number of all inputs, F."""
        return len(self.weights) + len(self.history.ridge.input_horizons_minutes) + self.personal_size

    def _personal(
        self, context: Floats, minute: Array, last: Array, history: History, rows: Integers, input_horizons: list[int]
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
        other_corrections = _rowwise(features, history.other_weights, safe)
        blocks = [
            statistics,
            offset,
            profile,
            history.change[safe, now],
            correction[:, input_horizons] / self.scale.spread,
            other_corrections / self.scale.spread,
            history.residual[safe][:, input_horizons],
        ]
        personal = np.concatenate(blocks, axis=1).astype(np.float32) * known[:, None]
        return personal, correction * known[:, None], known


def _rowwise(features: Floats, weights: Floats, rows: Integers) -> Floats:
    """Multiply the features of each window by the weights of its row, (B, K) and (R, K, H) → (B, H).

    Windows that share a row are multiplied together: a batch of one subject's day is one product.
    """
    out = np.empty((len(rows), weights.shape[2]), dtype=np.float32)
    if len(rows) == 0:
        return out
    order = np.argsort(rows, kind="stable")
    cuts = np.flatnonzero(np.diff(rows[order])) + 1
    if len(cuts) * 4 > len(rows):  # mostly different rows: one gather is cheaper than many small products
        np.einsum("bk,bkh->bh", features, weights[rows], out=out, optimize=False)
        return out
    for shared in np.split(order, cuts):
        out[shared] = features[shared] @ weights[rows[shared[0]]]
    return out


def fit_population_ridge(
    split_panel: SplitPanel, train: Integers, valid: Integers, scale: ValueScale, penalties: Sequence[float]
) -> tuple[Floats, Floats]:
    """Fit the population ridge, window inputs → change from the last reading, chunk by chunk.

    Args:
        split_panel: readings and their splits.
        train: origins of the training windows.
        valid: origins of the validation windows, which choose one penalty for every horizon.
        scale: units.
        penalties: ascending.

    Returns:
        Weights (P, H) and intercepts (H,), in the value's unit.

    Raises:
        DataError: there is no training window.
    """
    if not len(train):
        raise DataError("no gap-free window in the train split: add readings or shorten task.grid.recent_length")
    panel = split_panel.panel

    def chunks(origins: Integers, split: str) -> Iterator[tuple[Floats, Floats]]:
        for start in range(0, len(origins), CHUNK):
            chunk = origins[start : start + CHUNK]
            minute = panel.minute[chunk].astype(np.int64)
            x = window_inputs(panel.context(chunk), minute, panel.grid, scale)
            yield x, split_panel.target(chunk, split) - panel.values[chunk][:, None]

    equations: NormalEquations | None = None
    for x, y in chunks(train, "train"):
        equations = equations or NormalEquations(x.shape[1], y.shape[1])
        equations.add(x, y)
    assert equations is not None
    return equations.solve_best(penalties, chunks(valid, "valid"))
