"""Platt scaling of cosine similarity: for one sentence, and for the best sentence of a document.

A cosine has no unit: two logistic curves, fitted on valid, turn it into probabilities that can be added up.

Legend of shapes: Q questions, A answers.
Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999 (the curve).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.arrays import Array
from hallmark.build import Count, configuration
from hallmark.errors import DataError
from hallmark.files import as_bundle_error, read_json, write_json


@configuration
class MatchConfig:
    """Settings of fitting the two curves.

    Attributes:
        nearest: nearest answers per question that the first curve is fitted on.
        sentences_per_document: questions that are sampled as one document for the second curve.
        samples: sampled documents per pair.
        seed: seed of the sampling.
    """

    nearest: Count
    sentences_per_document: Count
    samples: Count
    seed: int


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
        """Return the probabilities of cosines, in the same shape."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * np.asarray(cosine, dtype=np.float64) + self.intercept))))


@dataclass(frozen=True)
class Curves:
    """Calibration curves of a sentence and of a document.

    Attributes:
        requirement: probability that one of the nearest answers belongs to a sentence.
        evidence: probability that a document has a line that belongs to an answer, by the cosine of its nearest line,
            if half of all documents have such a line.
    """

    requirement: Curve
    evidence: Curve


def fit_curves(cosines: Array, right: Sequence[set[int]], config: MatchConfig) -> Curves:
    """Fit both curves.

    Args:
        cosines: cosines of valid, (Q, A).
        right: indices of each question's right answers.
        config: settings.

    Raises:
        DataError: valid has no right or no wrong pair.
    """
    near = np.argsort(-cosines, axis=1, kind="stable")[:, : config.nearest]
    near_cosines = np.take_along_axis(cosines, near, axis=1).ravel()
    belongs = np.asarray([int(a) in answers for row, answers in zip(near, right, strict=True) for a in row])
    rng = np.random.default_rng(config.seed)
    best_cosines, present = [], []
    for q, answers in enumerate(right):
        for answer in sorted(answers):
            others = np.asarray([i for i, other_answers in enumerate(right) if answer not in other_answers])
            if not len(others):
                continue
            for _ in range(config.samples):
                nearest = float(cosines[rng.choice(others, config.sentences_per_document), answer].max())
                best_cosines += [nearest, max(nearest, float(cosines[q, answer]))]
                present += [False, True]
    return Curves(_curve(near_cosines, belongs), _curve(np.asarray(best_cosines), np.asarray(present)))


def _curve(cosine: Array, right: Array) -> Curve:
    from sklearn.linear_model import LogisticRegression

    if not len(right) or right.all() or not right.any():
        raise DataError(
            f"valid has {int(right.sum())} right of {len(right)} pairs: too few to calibrate on (task.split_config)"
        )
    regression = LogisticRegression(C=100.0).fit(cosine[:, None], right)
    return Curve(round(float(regression.coef_[0, 0]), 6), round(float(regression.intercept_[0]), 6))


def save_curves(out: Path, curves: Curves) -> None:
    """Write both curves."""
    write_json(out / "curves.json", asdict(curves))


def load_curves(directory: Path) -> Curves:
    """Read what `save_curves` wrote; BundleError if that cannot be read."""
    with as_bundle_error(directory, "run `dvc repro train`"):
        curves = read_json(directory / "curves.json")
        return Curves(Curve(**curves["requirement"]), Curve(**curves["evidence"]))
