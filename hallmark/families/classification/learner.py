"""What learners share that choose among the labels of a `ClassTask`."""

from collections.abc import Mapping
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
M = TypeVar("M")


class ClassLearner(Generic[T, M]):
    """The half of a `Learner` that is the same for all of them; what raises NotImplementedError is a learner's own."""

    inputs: ClassVar[Mapping[str, str]] = {}
    """What every model is given, by name, for the report."""

    def load(self, task: T, directory: Path) -> M:
        """Open what `save` wrote: one candidate, without its calibration."""
        raise NotImplementedError

    def logits(self, task: T, model: M, prepared: Prepared, split: str) -> tuple[Array, Array]:
        """Return a model's logits of the rows of `ClassTask.rows_of`, (B, L), and their targets, (B,)."""
        raise NotImplementedError

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
        logits, target = self.logits(task, self.load(task, model / "base"), prepared, "valid")
        found = fit_temperature(logits, target, config)
        save_temperature(model / "calibration", found)
        return {"temperature": found.temperature, "threshold": found.threshold}
