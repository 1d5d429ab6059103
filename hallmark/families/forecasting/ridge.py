"""Ridge regression from streamed normal equations: memory grows with the inputs squared, not with the rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hallmark.arrays import Array


@dataclass
class NormalEquations:
    """Sums over rows, from which any ridge solution follows.

    A missing target (NaN) does not count in its column's cross product; the solution scales that column up by the
    share that was seen, which is unbiased when targets are missing at random.

    Attributes:
        inputs: number of inputs, without the constant.
        outputs: number of targets.
    """

    inputs: int
    outputs: int
    gram: Array = field(init=False)
    cross: Array = field(init=False)
    seen: Array = field(init=False)
    rows: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.gram = np.zeros((self.inputs + 1, self.inputs + 1))
        self.cross = np.zeros((self.inputs + 1, self.outputs))
        self.seen = np.zeros(self.outputs)

    def add(self, x: Array, y: Array) -> None:
        """Add rows: x (rows, inputs), y (rows, outputs) with NaN where unknown."""
        wide = np.concatenate([x, np.ones((len(x), 1), dtype=x.dtype)], axis=1).astype(np.float64)
        known = ~np.isnan(y)
        self.gram += wide.T @ wide
        self.cross += wide.T @ np.where(known, y, 0.0).astype(np.float64)
        self.seen += known.sum(axis=0)
        self.rows += len(x)

    def solve(self, penalty: float) -> tuple[Array, Array]:
        """Solve for weights (inputs, outputs) and intercepts (outputs,); the intercept is not penalised."""
        ridge = np.full(self.inputs + 1, penalty)
        ridge[-1] = 1e-9
        cross = self.cross * (self.rows / np.maximum(self.seen, 1.0))
        solution = np.linalg.solve(self.gram + np.diag(ridge), cross)
        return solution[:-1].astype(np.float32), solution[-1].astype(np.float32)

    def solve_best(self, penalties: Sequence[float], valid: Iterable[tuple[Array, Array]]) -> tuple[Array, Array]:
        """Solve for several penalties and keep, for each target, the one with the least error on valid rows.

        Args:
            penalties: ascending; a target that is unknown in all valid rows gets the last, the strongest.
            valid: chunks of (x, y) as in `add`.

        Returns:
            As `solve`.
        """
        weights, intercepts = (np.stack(column) for column in zip(*map(self.solve, penalties), strict=True))
        errors, seen = np.zeros((len(penalties), self.outputs)), np.zeros(self.outputs)
        for x, y in valid:
            known = ~np.isnan(y)
            seen += known.sum(axis=0)
            for i in range(len(penalties)):
                miss = np.where(known, x @ weights[i] + intercepts[i] - y, 0.0)
                errors[i] += (miss.astype(np.float64) ** 2).sum(axis=0)
        best = np.where(seen > 0, errors.argmin(axis=0), len(penalties) - 1)
        columns = np.arange(self.outputs)
        return np.ascontiguousarray(weights[best, :, columns].T), intercepts[best, columns]
