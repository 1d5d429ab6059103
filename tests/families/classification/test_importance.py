"""Importance and equal opportunity, beside what must come out and beside scikit-learn."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from hallmark.families.classification.importance import opportunity_difference, permutation_importance
from hallmark.families.classification.metrics import confusion_matrix, score_classes
from hallmark.families.classification.scores import opportunity_rows


def probabilities_of(x: Any) -> Any:
    positive = 1 / (1 + np.exp(-3 * x[:, 0]))
    return np.stack([1 - positive, positive], axis=1)


def test_only_the_column_that_is_used_matters() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3))
    target = (rng.random(2000) < probabilities_of(x)[:, 1]).astype(int)
    found = permutation_importance(probabilities_of, x, target, ["used", "b", "c"], 0)
    assert next(iter(found)) == "used"
    assert found["used"] > 0.3
    assert found["b"] == found["c"] == 0.0
    assert found == permutation_importance(probabilities_of, x, target, ["used", "b", "c"], 0)


def test_precision_recall_and_pr_auc_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    raw = np.round(rng.random((500, 3)), 1) + 0.01  # rounded: many equal scores
    probabilities, target = raw / raw.sum(axis=1, keepdims=True), rng.integers(0, 3, 500)
    scored = score_classes(probabilities, target, 0.0)
    guess = probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(target, guess, average="macro")
    areas = [average_precision_score(target == label, probabilities[:, label]) for label in range(3)]
    expected = {"precision": precision, "recall": recall, "macro_f1": f1, "pr_auc": np.mean(areas)}
    assert {name: scored[name] for name in expected} == pytest.approx(expected)


def test_a_confusion_matrix_has_a_row_a_right_label() -> None:
    counts = confusion_matrix(np.array([0, 1, 1, 1]), np.array([0, 0, 0, 1]), 2)
    assert counts.tolist() == [[1, 2], [0, 1]]


def test_equal_opportunity_is_the_largest_difference_of_recall() -> None:
    target = np.array([1] * 100 + [0] * 100)
    group = np.tile([True, False], 100)
    guess = np.where((target == 1) & group & (np.arange(200) < 40), 0, target)  # 20 of the first group are missed
    assert opportunity_difference(guess, target, [group, ~group], 30) == pytest.approx(0.4)
    assert np.isnan(opportunity_difference(guess, target, [group], 30))
    assert np.isnan(opportunity_difference(guess, target, [group, ~group], 60))


def test_a_segmentation_with_one_segment_gets_no_row() -> None:
    target = np.tile([0, 1], 100)
    probabilities = np.stack([1 - target, target], axis=1).astype(float)
    whole = np.ones(200, dtype=bool)
    half = np.arange(200) < 100
    segments = {"source:a": whole, "length:short": half, "length:long": ~half}
    [row] = opportunity_rows(probabilities, target, segments, ["source", "length"], 0)
    assert (row["segment"], row["mean"], row["n_units"]) == ("length", 0.0, 200)
