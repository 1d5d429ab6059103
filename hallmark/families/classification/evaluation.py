"""Evaluator for classification: model, other candidates, baselines and released champion on the test split."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Evaluation, Metric, Prepared, Progress, Shown
from hallmark.families.classification.baselines import commonest
from hallmark.families.classification.learner import ClassLearner
from hallmark.families.classification.metrics import by_confidence, classification_metrics
from hallmark.families.classification.scores import Spread, scores_by_subject, shown_classes, single, summarise_classes
from hallmark.families.classification.task import ClassTask
from hallmark.families.classification.temperature import TemperatureConfig, fit_temperature, load_temperature
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_reliability
from hallmark.judge.report import training_notes

TIMED = 50  # single answers
ANSWERS_ALL = TemperatureConfig(wanted_accuracy=0.0, most_abstained=0.0)

AnyLearner = ClassLearner[Any, Any, Any]
Tested = tuple[dict[str, float | Spread], dict[str, str]]
"""Figures by metric, some with their interval, and captions by the name of a picture."""


@dataclass(frozen=True)
class ClassEvaluation:
    """What evaluation looks at. A task with tests of its own extends `further` and `tests`.

    Attributes:
        drawn: what the bootstrap draws, such as `texts`.
        segmentations: what comes before the colon in the names of the task's segments.
        seed: of the bootstrap.
    """

    evaluates: ClassVar[tuple[type, type]] = (ClassTask, ClassLearner)

    drawn: str
    segmentations: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "segmentations", tuple(self.segmentations))

    @property
    def further(self) -> Mapping[str, Metric]:
        """Metrics beyond the shared ones."""
        return {}

    @property
    def shown(self) -> Shown:
        """Accuracy first."""
        return shown_classes(self.drawn, tuple(self.further))

    def metrics(self, task: ClassTask, learner: AnyLearner) -> Mapping[str, Metric]:
        """Every metric that is reported, by name."""
        return classification_metrics() | dict(self.further)

    def tests(self, task: Any, prepared: Prepared, predictor: Any, out: Path) -> Tested:
        """Measure `further`, and draw into `out`."""
        return {}, {}

    def evaluate(
        self,
        task: ClassTask,
        learner: AnyLearner,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score everything on test; see `Evaluator.evaluate`. Every model is opened once."""
        rows = task.rows_of(prepared, "test")
        calibration = load_temperature(model / "calibration")
        progress("evaluate", 0, 3, f"{len(rows):,} {self.drawn}")
        ours = learner.load(task, model / "base")
        inputs, target = learner.table(task, prepared, "test")
        found: dict[str, Array] = {OURS: calibration.probabilities(learner.logits(ours, inputs))}
        for directory in sorted((model / "candidates").glob("*")):
            other = learner.load(task, directory)
            on_valid, known = learner.table(task, prepared, "valid")
            own = fit_temperature(learner.logits(other, on_valid), known, ANSWERS_ALL)
            found[directory.name] = own.probabilities(learner.logits(other, inputs))
        if champion is not None:
            theirs, other = load_temperature(champion / "calibration"), learner.load(task, champion / "base")
            found[CHAMPION] = theirs.probabilities(learner.logits(other, inputs))
        progress("evaluate", 1, 3, "baselines")
        learned = task.numbers(task.rows_of(prepared, "train")["label"])
        found["commonest"] = commonest(learned, len(task.labels), len(rows))
        found |= learner.baselines(task, ours, prepared)
        segments, together = task.segments(rows), task.drawn_together(rows)
        summary = summarise_classes(found, target, segments, calibration.threshold, self.seed, together)
        progress("evaluate", 2, 3, "tests")
        # An answer must name a version: these go nowhere.
        predictor = learner.predictor(task, ours, calibration, "0.0.0", "0" * 64)
        figures, pictures = self.tests(task, prepared, predictor, out)
        if figures:
            summary = pd.concat([summary, pd.DataFrame([single(*f) for f in figures.items()])], ignore_index=True)
        sure, right = found[OURS].max(axis=1), found[OURS].argmax(axis=1) == target
        draw_reliability(out / "reliability.png", *by_confidence(sure, right))
        pictures = {"reliability.png": "Measured accuracy against confidence on test", **pictures}
        notes = {
            **training_notes(model),
            "test": f"{len(rows):,} {self.drawn}: {rows['label'].value_counts().sort_index().to_dict()}",
            "what every model is given": {"commonest": "nothing: the shares of the labels", **learner.given},
        }
        timings = _timings(predictor, task.requests(prepared, rows.head(TIMED)))
        progress("evaluate", 3, 3, "")
        return Evaluation(scores_by_subject(rows["subject_id"], found, target), summary, pictures, notes, timings)


def _timings(predictor: Any, requests: Sequence[Any]) -> list[float]:
    """Time single answers through the service's call, milliseconds."""
    times = []
    for request in requests:
        start = time.perf_counter()
        predictor.predict([request])
        times.append((time.perf_counter() - start) * 1000)
    return times
