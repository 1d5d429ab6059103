"""Temperature scaling of logits, and the confidence below which the model abstains.

Legend of shapes: B examples, L labels.
Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (temperature scaling).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hallmark.arrays import Array
from hallmark.errors import DataError
from hallmark.files import read_json, readable, write_json


@dataclass(frozen=True)
class TemperatureConfig:
    """How probabilities are calibrated.

    Attributes:
        wanted_accuracy: of what is answered on valid; the threshold of confidence is the lowest that reaches it.
        most_abstained: share of valid that may be left unanswered for it.
    """

    wanted_accuracy: float
    most_abstained: float

    def __post_init__(self) -> None:
        for name in ("wanted_accuracy", "most_abstained"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie within 0…1")


@dataclass(frozen=True)
class Temperature:
    """Calibrated probabilities.

    Attributes:
        temperature: that logits are divided by.
        threshold: an answer whose probability is lower is not given.
    """

    temperature: float
    threshold: float

    def probabilities(self, logits: Array) -> Array:
        """Turn logits into probabilities, both (B, L)."""
        return softmax(logits / self.temperature)


def softmax(logits: Array) -> Array:
    """Normalise the exponentials of each row, (B, L)."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def fit_temperature(logits: Array, target: Array, config: TemperatureConfig) -> Temperature:
    """Choose the temperature of least cross-entropy, then the threshold.

    Args:
        logits: (B, L) on valid.
        target: (B,) numbers of the labels.
        config: what is wanted.

    Raises:
        DataError: valid is empty.
    """
    from scipy.optimize import minimize_scalar

    if not len(logits):
        raise DataError("no valid row: nothing to calibrate on")
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        found = softmax(logits / np.exp(log_temperature))[rows, target]
        return float(-np.log(np.maximum(found, 1e-12)).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    probabilities = softmax(logits / temperature)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    order = np.argsort(-sure, kind="stable")
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    least = max(1, int(np.ceil(len(order) * (1 - config.most_abstained))))
    enough = np.flatnonzero(accuracy[least - 1 :] >= config.wanted_accuracy)
    answered = int(enough[-1]) + least if len(enough) else least
    threshold = 0.0 if answered == len(order) else float(sure[order[answered - 1]])
    return Temperature(round(temperature, 6), round(threshold, 6))


def save_temperature(out: Path, found: Temperature) -> None:
    """Write it."""
    write_json(out / "temperature.json", {"temperature": found.temperature, "threshold": found.threshold})


def load_temperature(directory: Path) -> Temperature:
    """Read what `save_temperature` wrote; BundleError if that cannot be read."""
    with readable(directory, "run `dvc repro train`"):
        return Temperature(**read_json(directory / "temperature.json"))
