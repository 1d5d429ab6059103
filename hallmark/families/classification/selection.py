"""Feature selection by correlation, forest importance, RFE or L1, fitted on the train split only.

Legend of shapes: B examples, F features.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hallmark.arrays import Array


class Selection(Protocol):
    """A way to choose columns."""

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Return the columns to keep, ascending, from (B, F) with NaN and (B,) of 0 and 1."""


def filled(x: Array, like: Array | None = None) -> Array:
    """Standardise columns and put their mean where nothing is known, (B, F).

    Args:
        x: what is standardised.
        like: rows whose mean and spread are used, such as those of training; None takes x itself.
    """
    reference = x if like is None else like
    there = ~np.isnan(reference)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, reference, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(there, reference - mean, 0.0) ** 2).sum(axis=0) / count)
    return np.asarray(np.where(np.isnan(x), 0.0, x - mean) / np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True)
class Everything:
    """All columns."""

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep all."""
        return list(range(x.shape[1]))


@dataclass(frozen=True)
class ByCorrelation:
    """Of columns that say nearly the same, the first.

    Attributes:
        limit: largest absolute correlation of two kept columns; a constant column goes too.
    """

    limit: float

    def __post_init__(self) -> None:
        if not 0 < self.limit <= 1:
            raise ValueError(f"limit={self.limit} must lie within 0…1")

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep what is not told by a kept one."""
        z = filled(x)
        correlation = np.abs(z.T @ z / len(z))
        kept: list[int] = []
        for column in range(x.shape[1]):
            if z[:, column].any() and all(correlation[column, other] <= self.limit for other in kept):
                kept.append(column)
        return kept


@dataclass(frozen=True)
class ByImportance:
    """The columns that a forest of random trees uses most.

    Attributes:
        keep: how many.
    """

    keep: int

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep the most important."""
        from sklearn.ensemble import ExtraTreesClassifier

        forest = ExtraTreesClassifier(100, min_samples_leaf=5, random_state=seed).fit(filled(x), y)
        order = np.argsort(-forest.feature_importances_, kind="stable")
        return sorted(int(i) for i in order[: self.keep])


@dataclass(frozen=True)
class Recursive:
    """Drops the columns of least weight in a logistic regression, a share at a time, and fits again.

    Attributes:
        keep: how many are left.
        step: share dropped at a time.
    """

    keep: int
    step: float

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep what is left."""
        from sklearn.feature_selection import RFE
        from sklearn.linear_model import LogisticRegression

        keep = min(self.keep, x.shape[1])
        chosen = RFE(LogisticRegression(max_iter=1000), n_features_to_select=keep, step=self.step).fit(filled(x), y)
        return [int(i) for i in chosen.get_support(indices=True)]


@dataclass(frozen=True)
class ByL1:
    """The columns to which a logistic regression with an absolute penalty gives weight.

    Attributes:
        strength: of the data against the penalty: the lower, the fewer columns.
    """

    strength: float

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep those with weight."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(l1_ratio=1.0, C=self.strength, solver="liblinear", random_state=seed, max_iter=1000)
        weight = model.fit(filled(x), y).coef_[0]
        return [int(i) for i in np.flatnonzero(np.abs(weight) > 1e-6)]
