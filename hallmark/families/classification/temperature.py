"""Temperature scaling of logits, and the confidence below which the model abstains.

Legend of shapes: B examples, L labels.
Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (temperature scaling).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hallmark.arrays import Array
from hallmark.build import Share, configuration
from hallmark.errors import DataError
from hallmark.files import as_bundle_error, read_json, write_json


@configuration
class TemperatureConfig:
    """Settings of calibration.

    Attributes:
        target_accuracy: accuracy of the answered rows of valid; the threshold is the lowest that reaches it.
        max_abstained_share: largest share of valid on which the model may abstain to reach it.
    """

    target_accuracy: Share
    max_abstained_share: Share


@dataclass(frozen=True)
class Temperature:
    """A fitted calibration.

    Attributes:
        temperature: divisor of the logits.
        threshold: the model abstains if its largest probability is lower.
    """

    temperature: float
    threshold: float

    def probabilities(self, logits: Array) -> Array:
        """Convert logits to calibrated probabilities, both (B, L)."""
        return softmax(logits / self.temperature)


def softmax(logits: Array) -> Array:
    """Compute the softmax of each row, (B, L)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def fit_temperature(logits: Array, target: Array, config: TemperatureConfig) -> Temperature:
    """Fit the temperature by cross-entropy, then the threshold of confidence.

    Args:
        logits: (B, L) on valid.
        target: (B,) indices of the labels.
        config: settings.

    Raises:
        DataError: valid is empty.
    """
    from scipy.optimize import minimize_scalar

    if not len(logits):
        raise DataError("no valid row: nothing to calibrate on")
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        likelihood = softmax(logits / np.exp(log_temperature))[rows, target]
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    probabilities = softmax(logits / temperature)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    min_answered = max(1, int(np.ceil(len(order) * (1 - config.max_abstained_share))))
    sufficient = np.flatnonzero(accuracy[min_answered - 1 :] >= config.target_accuracy)
    answered = int(sufficient[-1]) + min_answered if len(sufficient) else min_answered
    threshold = 0.0 if answered == len(order) else float(confidence[order[answered - 1]])
    return Temperature(round(temperature, 6), round(threshold, 6))


def save_temperature(out: Path, calibration: Temperature) -> None:
    """Write a fitted calibration."""
    write_json(out / "temperature.json", {"temperature": calibration.temperature, "threshold": calibration.threshold})


def load_temperature(directory: Path) -> Temperature:
    """Read what `save_temperature` wrote; BundleError if that cannot be read."""
    with as_bundle_error(directory, "run `dvc repro train`"):
        return Temperature(**read_json(directory / "temperature.json"))
