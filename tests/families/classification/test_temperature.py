"""Calibration finds the temperature that was planted, and a threshold that keeps its word."""

from pathlib import Path

import numpy as np
import pytest

from hallmark.errors import BundleError, DataError
from hallmark.families.classification.temperature import (
    Temperature,
    TemperatureConfig,
    fit_temperature,
    load_temperature,
    save_temperature,
    softmax,
)

CONFIG = TemperatureConfig(0.9, 0.5)


def planted(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 2)) * 2
    drawn = (rng.random(len(logits)) > softmax(logits)[:, 0]).astype(int)
    return logits * temperature, drawn


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(*planted(temperature), CONFIG).temperature == pytest.approx(temperature, rel=0.03)


def test_the_threshold_is_the_lowest_that_reaches_the_wanted_accuracy() -> None:
    logits, target = planted(1.0)
    found = fit_temperature(logits, target, CONFIG)
    sure, right = found.probabilities(logits).max(axis=1), logits.argmax(axis=1) == target
    answered = sure >= found.threshold
    assert right.mean() < 0.9 <= right[answered].mean() < 0.91
    assert answered.mean() > 0.5


def test_no_more_may_abstain_than_is_allowed() -> None:
    logits, target = planted(1.0)
    found = fit_temperature(logits, target, TemperatureConfig(0.999, 0.1))
    assert (found.probabilities(logits).max(axis=1) >= found.threshold).mean() == pytest.approx(0.9, abs=0.001)


def test_a_model_that_is_good_enough_answers_everything() -> None:
    logits, target = planted(1.0)
    assert fit_temperature(logits, target, TemperatureConfig(0.5, 0.5)).threshold == 0.0


def test_it_is_stored(tmp_path: Path) -> None:
    save_temperature(tmp_path, Temperature(1.5, 0.7))
    assert load_temperature(tmp_path) == Temperature(1.5, 0.7)
    with pytest.raises(BundleError, match="run `dvc repro train`"):
        load_temperature(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no valid row"):
        fit_temperature(np.empty((0, 2)), np.empty(0, dtype=int), CONFIG)
