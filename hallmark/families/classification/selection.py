"""Feature selection by correlation, forest importance, RFE or L1, fitted on the train split only.

Legend of shapes: B examples, F features.
"""

from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from hallmark.arrays import Array
from hallmark.build import Count, InnerShare, Positive, configuration


@runtime_checkable
class Selection(Protocol):
    """A method that selects columns."""

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Return the indices of the columns to keep, ascending; x is (B, F) with NaN, y is (B,) of 0 and 1."""


def standardised(x: Array, like: Array | None = None) -> Array:
    """Standardise columns and replace NaN by their mean, (B, F).

    Args:
        x: the columns, (B, F).
        like: rows whose mean and standard deviation are used, such as those of train; None takes x itself.
    """
    reference = x if like is None else like
    known = ~np.isnan(reference)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, reference, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, reference - mean, 0.0) ** 2).sum(axis=0) / count)
    return np.asarray(np.where(np.isnan(x), 0.0, x - mean) / np.where(spread > 0, spread, 1.0))


@configuration
class Everything:
    """No selection: all columns."""

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep all columns."""
        return list(range(x.shape[1]))


@configuration
class ByCorrelation:
    """Of strongly correlated columns, the first.

    Attributes:
        limit: largest absolute correlation of two kept columns; constant columns are dropped too.
    """

    limit: Annotated[float, Field(gt=0, le=1)]

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep each column that correlates with no earlier kept one above the limit."""
        z = standardised(x)
        correlation = np.abs(z.T @ z / len(z))
        kept: list[int] = []
        for column in range(x.shape[1]):
            if z[:, column].any() and all(correlation[column, other] <= self.limit for other in kept):
                kept.append(column)
        return kept


@configuration
class ByImportance:
    """The columns of largest importance in a forest of extremely randomised trees.

    Attributes:
        keep: number of columns to keep.
    """

    keep: Count

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep the most important columns."""
        from sklearn.ensemble import ExtraTreesClassifier

        forest = ExtraTreesClassifier(100, min_samples_leaf=5, random_state=seed).fit(standardised(x), y)
        order = np.argsort(-forest.feature_importances_, kind="stable")
        return sorted(int(i) for i in order[: self.keep])


@configuration
class Recursive:
    """Recursive feature elimination (RFE) by the weights of a logistic regression.

    Attributes:
        keep: number of columns to keep.
        step: share of the columns that is dropped before each new fit.
    """

    keep: Count
    step: InnerShare

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep the columns that remain."""
        from sklearn.feature_selection import RFE
        from sklearn.linear_model import LogisticRegression

        keep = min(self.keep, x.shape[1])
        chosen = RFE(LogisticRegression(max_iter=1000), n_features_to_select=keep, step=self.step).fit(
            standardised(x), y
        )
        return [int(i) for i in chosen.get_support(indices=True)]


@configuration
class ByL1:
    """The columns with a weight in a logistic regression with L1 penalty.

    Attributes:
        strength: inverse of the penalty (`C` of scikit-learn): the lower, the fewer columns.
    """

    strength: Positive

    def choose(self, x: Array, y: Array, seed: int) -> list[int]:
        """Keep the columns whose weight is not zero."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(l1_ratio=1.0, C=self.strength, solver="liblinear", random_state=seed, max_iter=1000)
        weight = model.fit(standardised(x), y).coef_[0]
        return [int(i) for i in np.flatnonzero(np.abs(weight) > 1e-6)]
