"""Evaluator for classification: model, other candidates, baselines and released champion on the test split."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from hallmark.arrays import Array
from hallmark.build import Tuple, configuration
from hallmark.contracts import CHAMPION, OURS, Evaluation, Metric, Prepared, Progress, ReportLayout
from hallmark.families.classification.baselines import majority_class
from hallmark.families.classification.learner import ClassLearner
from hallmark.families.classification.metrics import classification_metrics, confidence_bins, confusion_matrix
from hallmark.families.classification.scores import (
    OPPORTUNITY,
    Spread,
    class_layout,
    opportunity_rows,
    scores_by_subject,
    summarise_classes,
    summary_row,
)
from hallmark.families.classification.task import ClassTask
from hallmark.families.classification.temperature import TemperatureConfig, fit_temperature, load_temperature
from hallmark.judge.pictures import draw_changes, draw_confusion, draw_reliability
from hallmark.judge.report import training_notes

TIMED = 50  # requests whose latency is measured, one at a time
SHOWN_FEATURES = 20
ANSWERS_ALL = TemperatureConfig(target_accuracy=0.0, max_abstained_share=0.0)

AnyLearner = ClassLearner[Any, Any, Any]
Tested = tuple[dict[str, float | Spread], dict[str, str]]
"""Values by metric, some with their interval, and captions by file name of a picture."""


@configuration
class ClassEvaluation:
    """Evaluator for classification on test. A task with metrics of its own extends `further` and `tests`.

    Attributes:
        resampling_unit: what the bootstrap resamples, such as `texts`.
        segmentations: prefixes of the task's segment names, before the colon.
        seed: seed of the bootstrap.
    """

    evaluates: ClassVar[tuple[type, type]] = (ClassTask, ClassLearner)

    resampling_unit: str
    segmentations: Tuple[str]
    seed: int

    @property
    def further(self) -> Mapping[str, Metric]:
        """Metrics of the task beyond the shared ones, by name."""
        return {}

    @property
    def layout(self) -> ReportLayout:
        """Layout of the report, with accuracy first."""
        return class_layout(self.resampling_unit, self.segmentations)

    def metrics(self, task: ClassTask, learner: AnyLearner) -> Mapping[str, Metric]:
        """Return every metric that is reported, by name."""
        return classification_metrics() | {OPPORTUNITY: Metric(OPPORTUNITY, "", "lower")} | dict(self.further)

    def tests(self, task: Any, prepared: Prepared, predictor: Any, out: Path) -> Tested:
        """Measure the metrics of `further`; write pictures into `out`."""
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
        """Evaluate all models on test, see `Evaluator.evaluate`; every model is loaded once."""
        rows = task.rows_of(prepared, "test")
        calibration = load_temperature(model / "calibration")
        progress("evaluate", 0, 3, f"{len(rows):,} {self.resampling_unit}")
        fitted = learner.load(task, model / "base")
        inputs, target = learner.table(task, prepared, "test")
        probabilities: dict[str, Array] = {OURS: calibration.probabilities(learner.logits(fitted, inputs))}
        directories = sorted((model / "candidates").glob("*"))
        if directories:
            valid_inputs, valid_target = learner.table(task, prepared, "valid")
        for directory in directories:
            other = learner.load(task, directory)
            candidate_calibration = fit_temperature(learner.logits(other, valid_inputs), valid_target, ANSWERS_ALL)
            probabilities[directory.name] = candidate_calibration.probabilities(learner.logits(other, inputs))
        if champion is not None:
            released, other = load_temperature(champion / "calibration"), learner.load(task, champion / "base")
            probabilities[CHAMPION] = released.probabilities(learner.logits(other, inputs))
        progress("evaluate", 1, 3, "baselines")
        train_target = task.numbers(task.rows_of(prepared, "train")["label"])
        baselines = {"majority_class": majority_class(train_target, len(task.labels), len(rows))}
        baselines |= learner.baselines(task, fitted, prepared, inputs)
        probabilities |= baselines
        segments, units = task.segments(rows), task.resampling_units(rows)
        summary = summarise_classes(probabilities, target, segments, calibration.threshold, self.seed, units)
        progress("evaluate", 2, 3, "tests")
        # An answer must have a version and a digest; these answers are not kept.
        predictor = learner.predictor(task, fitted, calibration, "0.0.0", "0" * 64)
        figures, pictures = self.tests(task, prepared, predictor, out)
        further_rows = [summary_row(*figure) for figure in figures.items()]
        further_rows += opportunity_rows(probabilities[OURS], target, segments, self.segmentations, self.seed, units)
        summary = pd.concat([summary, *([pd.DataFrame(further_rows)] if further_rows else [])], ignore_index=True)
        importance = learner.importance(task, fitted, inputs, target, self.seed)
        pictures = _draw_pictures(probabilities[OURS], target, task.labels, importance, out) | pictures
        notes = {
            **training_notes(model),
            "test": f"{len(rows):,} {self.resampling_unit}: {rows['label'].value_counts().sort_index().to_dict()}",
            "what every model is given": {"majority_class": "nothing: the shares of the labels", **learner.given},
        }
        timings = _timings(predictor, task.requests(prepared, rows.head(TIMED)))
        progress("evaluate", 3, 3, "")
        scores = scores_by_subject(rows["subject_id"], probabilities, target)
        return Evaluation(scores, summary, tuple(baselines), pictures, notes, timings)


def _draw_pictures(
    probabilities: Array, target: Array, labels: Sequence[str], importance: Mapping[str, float], out: Path
) -> dict[str, str]:
    """Draw the pictures of every classifier; returns file name → caption."""
    confidence, guess = probabilities.max(axis=1), probabilities.argmax(axis=1)
    draw_confusion(out / "confusion.png", confusion_matrix(guess, target, len(labels)), labels)
    draw_reliability(out / "reliability.png", *confidence_bins(confidence, guess == target))
    captions = {
        "confusion.png": "Confusion matrix on test: counts, and shares of each right label",
        "reliability.png": "Measured accuracy against confidence on test",
    }
    if importance:
        draw_changes(out / "importance.png", dict(list(importance.items())[:SHOWN_FEATURES]), "rise of the log loss")
        captions["importance.png"] = f"Permutation importance on test: the {SHOWN_FEATURES} features that matter most"
    return captions


def _timings(predictor: Any, requests: Sequence[Any]) -> list[float]:
    """Measure the latency of single predictions, in milliseconds."""
    times = []
    for request in requests:
        start = time.perf_counter()
        predictor.predict([request])
        times.append((time.perf_counter() - start) * 1000)
    return times
