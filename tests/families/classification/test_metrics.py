"""Figures of a classifier, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from hallmark.families.classification.baselines import majority_class, tfidf_logistic
from hallmark.families.classification.metrics import classification_metrics, intervals, score_classes


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 400)
    logits = rng.normal(size=(400, 3)) + 1.2 * np.eye(3)[target]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), target


def test_figures_are_scikit_learns(sample: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, target = sample
    found = score_classes(probabilities, target, 0.0)
    guess = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(target, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(target, guess, average="macro"))
    assert found["auc"] == pytest.approx(roc_auc_score(target, probabilities, multi_class="ovr"))
    assert set(found) == set(classification_metrics())


def test_a_calibrated_model_has_a_small_error_and_a_boastful_one_a_large(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    probabilities, _ = sample
    rng = np.random.default_rng(1)
    many = np.repeat(probabilities, 50, axis=0)
    drawn = (rng.random((len(many), 1)) > many.cumsum(axis=1)).sum(axis=1)
    assert score_classes(many, drawn, 0.0)["calibration_error"] < 0.02
    boastful = many**4 / (many**4).sum(axis=1, keepdims=True)
    assert score_classes(boastful, drawn, 0.0)["calibration_error"] > 0.15


def test_abstention_counts_what_is_answered() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    found = score_classes(probabilities, np.array([0, 1, 1, 0]), 0.7)
    assert (found["answered"], found["accuracy_answered"], found["accuracy"]) == (0.5, 1.0, 0.5)


def test_a_single_class_has_no_auc_and_its_interval_none_either() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    found = intervals(lambda drawn: score_classes(probabilities[drawn], np.zeros(2, dtype=int), 0.0), 2, 0)
    assert all(np.isnan(value) for value in found["auc"])
    assert found["accuracy"] == (1.0, 1.0, 1.0)


def test_an_interval_of_shares_is_as_wide_as_the_binomial_says() -> None:
    target = np.zeros(400, dtype=int)
    probabilities = np.where((np.arange(400) < 300)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    value, low, high = intervals(lambda d: score_classes(probabilities[d], target[d], 0.0), 400, 0)["accuracy"]
    assert value == 0.75
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 400), rel=0.15)


def test_baselines_learn_what_can_be_counted() -> None:
    texts = ["good film", "bad film", "good food", "bad food"] * 5
    target = np.array([1, 0, 1, 0] * 5)
    words = tfidf_logistic((texts, target), (texts, target), ["a good day", "a bad day"])
    assert words.argmax(axis=1).tolist() == [1, 0]
    assert majority_class(np.array([0, 0, 0, 1]), 2, 3).tolist() == [[0.75, 0.25]] * 3
