"""ClassLearner: base class; reads splits, fits temperature scaling, opens predictors; subclasses fit and load."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from hallmark.arrays import Array
from hallmark.contracts import AnyPredictor, Prepared, Progress
from hallmark.families.classification.task import ClassTask
from hallmark.families.classification.temperature import (
    Temperature,
    TemperatureConfig,
    fit_temperature,
    load_temperature,
    save_temperature,
)

T = TypeVar("T", bound=ClassTask)
X = TypeVar("X")
M = TypeVar("M")


@dataclass(frozen=True)
class Examples(Generic[T, X]):
    """Train and valid data of all candidates.

    Attributes:
        task: the task.
        train: inputs of B rows, and the indices of their labels, (B,), to fit on.
        valid: the same, for early stopping and model selection.
    """

    task: T
    train: tuple[X, Array]
    valid: tuple[X, Array]


class ClassLearner(Generic[T, X, M]):
    """Base class of classification learners; subclasses implement the methods that raise NotImplementedError.

    Type variables: the task T, the inputs X of many rows, a fitted model M.
    """

    given: ClassVar[Mapping[str, str]] = {}
    """Inputs of each baseline or model, by its name, for the report."""

    def inputs(self, task: T, prepared: Prepared, split: str) -> X:
        """Return the model inputs of a split, in the order of `ClassTask.rows_of`."""
        raise NotImplementedError

    def load(self, task: T, directory: Path) -> M:
        """Load one candidate that `save` wrote, without its calibration."""
        raise NotImplementedError

    def logits(self, model: M, inputs: X) -> Array:
        """Return a model's logits, (B, L)."""
        raise NotImplementedError

    def table(self, task: T, prepared: Prepared, split: str) -> tuple[X, Array]:
        """Return the inputs of a split's rows and the indices of their labels, (B,)."""
        return self.inputs(task, prepared, split), task.numbers(task.rows_of(prepared, split)["label"])

    def examples(self, task: T, prepared: Prepared, train: object, progress: Progress) -> Examples[T, X]:
        """Read train and valid; see `Learner.examples`."""
        return Examples(task, self.table(task, prepared, "train"), self.table(task, prepared, "valid"))

    def describe(self, examples: Examples[T, X]) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {"train_rows": len(examples.train[1]), "valid_rows": len(examples.valid[1])}

    def baselines(self, task: T, model: M, prepared: Prepared, inputs: X) -> dict[str, Array]:
        """Return the probabilities of further baselines on test, by name, (B, L)."""
        return {}

    def importance(self, task: T, model: M, inputs: X, target: Array, seed: int) -> Mapping[str, float]:
        """Return the importance of each input on test, the largest first; empty if inputs have no names."""
        return {}

    def predictor(self, task: T, model: M, calibration: Temperature, version: str, digest: str) -> AnyPredictor:
        """Return the predictor of a loaded model."""
        raise NotImplementedError

    def open(self, task: T, model: Path, version: str, digest: str) -> AnyPredictor:
        """Open a model directory; see `Learner.open`."""
        calibration = load_temperature(model / "calibration")
        return self.predictor(task, self.load(task, model / "base"), calibration, version, digest)

    def calibrate(
        self, task: T, prepared: Prepared, model: Path, config: TemperatureConfig, progress: Progress
    ) -> dict[str, float]:
        """Fit temperature and threshold on valid; see `Calibrating`."""
        inputs, target = self.table(task, prepared, "valid")
        calibration = fit_temperature(self.logits(self.load(task, model / "base"), inputs), target, config)
        save_temperature(model / "calibration", calibration)
        return {"temperature": calibration.temperature, "threshold": calibration.threshold}
