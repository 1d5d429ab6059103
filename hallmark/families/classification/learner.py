"""ClassLearner: base class of classification learners."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from hallmark.arrays import Array
from hallmark.contracts import Predictor, Prepared, Progress
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
    """What candidates learn from.

    Attributes:
        task: what is learned.
        train: inputs of B rows, and the numbers of their labels, (B,): to learn from.
        valid: the same, to stop by and to choose by.
    """

    task: T
    train: tuple[X, Array]
    valid: tuple[X, Array]


class ClassLearner(Generic[T, X, M]):
    """The half of a `Learner` that is the same for all of them; what raises NotImplementedError is a learner's own.

    Type variables: the task T, the inputs X of many rows, a fitted model M.
    """

    given: ClassVar[Mapping[str, str]] = {}
    """What every model is given, by name, for the report."""

    def inputs(self, task: T, prepared: Prepared, split: str) -> X:
        """Return what a model reads of the rows of `ClassTask.rows_of`."""
        raise NotImplementedError

    def load(self, task: T, directory: Path) -> M:
        """Open what `save` wrote: one candidate, without its calibration."""
        raise NotImplementedError

    def logits(self, model: M, inputs: X) -> Array:
        """Return a model's logits, (B, L)."""
        raise NotImplementedError

    def table(self, task: T, prepared: Prepared, split: str) -> tuple[X, Array]:
        """Return the inputs of a split's rows and the numbers of their labels, (B,)."""
        return self.inputs(task, prepared, split), task.numbers(task.rows_of(prepared, split)["label"])

    def examples(self, task: T, prepared: Prepared, train: object, progress: Progress) -> Examples[T, X]:
        """Read train and valid; see `Learner.examples`."""
        return Examples(task, self.table(task, prepared, "train"), self.table(task, prepared, "valid"))

    def describe(self, examples: Examples[T, X]) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {"train_rows": len(examples.train[1]), "valid_rows": len(examples.valid[1])}

    def baselines(self, task: T, model: M, prepared: Prepared) -> dict[str, Array]:
        """Return the probabilities of baselines that need not be saved, on test, (B, L)."""
        return {}

    def predictor(self, task: T, model: M, calibration: Temperature, version: str, digest: str) -> Predictor:
        """Return an opened model behind one call."""
        raise NotImplementedError

    def open(self, task: T, model: Path, version: str, digest: str) -> Predictor:
        """Open a model directory; see `Learner.open`."""
        calibration = load_temperature(model / "calibration")
        return self.predictor(task, self.load(task, model / "base"), calibration, version, digest)

    def calibrate(
        self, task: T, prepared: Prepared, model: Path, config: TemperatureConfig, progress: Progress
    ) -> dict[str, float]:
        """Fit temperature and threshold on valid; see `Calibrating`."""
        inputs, target = self.table(task, prepared, "valid")
        found = fit_temperature(self.logits(self.load(task, model / "base"), inputs), target, config)
        save_temperature(model / "calibration", found)
        return {"temperature": found.temperature, "threshold": found.threshold}
