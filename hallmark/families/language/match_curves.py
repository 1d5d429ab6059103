"""Platt scaling of cosine similarity: for one sentence, and for the best sentence of a document.

A cosine has no unit: two logistic curves, fitted on valid, turn it into what can be weighed and added up.

Legend of shapes: Q questions, A answers.
Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999 (the curve).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.arrays import Array
from hallmark.errors import DataError
from hallmark.files import read_json, readable, write_json


@dataclass(frozen=True)
class MatchConfig:
    """How the curves are fitted.

    Attributes:
        retrieved: nearest answers a question that the first curve is fitted on.
        bag: questions that stand for a document when the second one is.
        draws: bags a pair.
        seed: of the draw.
    """

    retrieved: int
    bag: int
    draws: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("retrieved", "bag", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Curve:
    """A logistic curve.

    Attributes:
        slope: of the log-odds, per unit of cosine.
        intercept: log-odds at cosine 0.
    """

    slope: float
    intercept: float

    def probability(self, cosine: Any) -> Array:
        """Turn cosines into probabilities, of the same shape."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * np.asarray(cosine, dtype=np.float64) + self.intercept))))


@dataclass(frozen=True)
class Curves:
    """Both curves.

    Attributes:
        asks: probability that a retrieved answer belongs to a sentence.
        shows: probability that one of a document's lines belongs to an answer, by the nearest line's cosine, where
            half of all documents have one.
    """

    asks: Curve
    shows: Curve


def fit_curves(cosines: Array, right: Sequence[set[int]], config: MatchConfig) -> Curves:
    """Fit both.

    Args:
        cosines: of valid, (Q, A).
        right: the answers that belong to each question.
        config: how.

    Raises:
        DataError: valid is too small to tell right from wrong.
    """
    near = np.argsort(-cosines, axis=1, kind="stable")[:, : config.retrieved]
    asked = np.take_along_axis(cosines, near, axis=1).ravel()
    belongs = np.asarray([int(a) in mine for row, mine in zip(near, right, strict=True) for a in row])
    rng = np.random.default_rng(config.seed)
    best, there = [], []
    for q, mine in enumerate(right):
        for answer in sorted(mine):
            others = np.asarray([i for i, theirs in enumerate(right) if answer not in theirs])
            if not len(others):
                continue
            for _ in range(config.draws):
                nearest = float(cosines[rng.choice(others, config.bag), answer].max())
                best += [nearest, max(nearest, float(cosines[q, answer]))]
                there += [False, True]
    return Curves(_curve(asked, belongs), _curve(np.asarray(best), np.asarray(there)))


def _curve(cosine: Array, right: Array) -> Curve:
    from sklearn.linear_model import LogisticRegression

    if not len(right) or right.all() or not right.any():
        raise DataError(
            f"valid has {int(right.sum())} right of {len(right)} pairs: too few to calibrate on (task.parts)"
        )
    found = LogisticRegression(C=100.0).fit(cosine[:, None], right)
    return Curve(round(float(found.coef_[0, 0]), 6), round(float(found.intercept_[0]), 6))


def save_curves(out: Path, found: Curves) -> None:
    """Write them."""
    write_json(out / "curves.json", asdict(found))


def load_curves(directory: Path) -> Curves:
    """Read what `save_curves` wrote; BundleError if that cannot be read."""
    with readable(directory, "run `dvc repro train`"):
        found = read_json(directory / "curves.json")
        return Curves(Curve(**found["asks"]), Curve(**found["shows"]))
