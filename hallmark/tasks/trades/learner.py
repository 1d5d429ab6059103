"""Learn the trades task: boosted trees on the chosen features, with calibrated probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Accepts, Follow, Prepared, TrainResult
from hallmark.errors import DataError
from hallmark.families.classification.learner import ClassLearner, Examples
from hallmark.families.classification.selection import Selection, filled
from hallmark.families.classification.temperature import Temperature, TemperatureConfig, softmax
from hallmark.families.classification.trees import HistGradientBoosting, LightGBM
from hallmark.learn.candidates import Quick
from hallmark.tasks.trades.features import names_of
from hallmark.tasks.trades.predictor import TradesModel, TradesPredictor, load_model, save_model
from hallmark.tasks.trades.task import TradesTask


@dataclass(frozen=True)
class TradesLearner(ClassLearner[TradesTask, Array, TradesModel]):
    """Grows trees.

    Attributes:
        selection: which features the trees are given; chosen on train.
    """

    accepts = Accepts(TradesTask, (HistGradientBoosting, LightGBM), Quick, calibrate=TemperatureConfig)
    given: ClassVar = {
        "tick_rule": "the sign of the last price change",
        "logistic": "the features of hallmark",
        "hallmark": "price, size and time of the trade and of those before it, no side (base/features.md)",
    }

    selection: Selection

    def inputs(self, task: TradesTask, prepared: Prepared, split: str) -> Array:
        """Compute every feature of a split's trades, (B, F), which may look back into the split before."""
        return task.examples(prepared.rows)[task.rows_of(prepared, split).index]

    def fit_one(
        self,
        examples: Examples[TradesTask, Array],
        candidate: HistGradientBoosting | LightGBM,
        train: Quick,
        scratch: Path,
        follow: Follow,
    ) -> tuple[TradesModel, TrainResult]:
        """Grow trees on the chosen columns; see `Learner.fit_one`."""
        (x, y), (x_valid, y_valid) = examples.train, examples.valid
        chosen = self.selection.choose(x, y, train.seed)
        if not chosen:
            raise DataError("learner.selection keeps no feature: loosen it")
        trees = candidate.fit(x[:, chosen], y, train.seed)
        p = softmax(trees.logits(x_valid[:, chosen]))[np.arange(len(y_valid)), y_valid]
        loss, count = float(-np.log(np.maximum(p, 1e-12)).mean()), len(trees.roots)
        follow(count, count, loss)
        model = TradesModel(trees, examples.task.features, chosen, examples.task.memory)
        return model, TrainResult(loss, count, count, ((count, loss),))

    def save(self, model: TradesModel, candidate: HistGradientBoosting | LightGBM, directory: Path) -> dict[str, int]:
        """Write trees and the documentation of their features; see `Learner.save`."""
        return save_model(model, directory)

    def load(self, task: TradesTask, directory: Path) -> TradesModel:
        """Open trees; see `ClassLearner.load`."""
        return load_model(directory, task.features, task.memory)

    def logits(self, model: TradesModel, inputs: Array) -> Array:
        """Classify trades by their features; see `ClassLearner.logits`."""
        return model.trees.logits(inputs[:, list(model.chosen)])

    def baselines(self, task: TradesTask, model: TradesModel, prepared: Prepared) -> dict[str, Array]:
        """The tick rule, and logistic regression on the chosen features."""
        from sklearn.linear_model import LogisticRegression

        x, target = self.table(task, prepared, "train")
        test = self.inputs(task, prepared, "test")
        tick = test[:, names_of(task.features).index("tick_0")]
        up = np.where(tick > 0, 0.9, np.where(tick < 0, 0.1, 0.5))
        chosen = list(model.chosen)
        learned, asked = x[:, chosen].astype(np.float64), test[:, chosen].astype(np.float64)
        logistic = LogisticRegression(max_iter=2000).fit(filled(learned), target)
        return {
            "tick_rule": np.stack([1 - up, up], axis=1),
            "logistic": np.asarray(logistic.predict_proba(filled(asked, like=learned))),
        }

    def predictor(
        self, task: TradesTask, model: TradesModel, calibration: Temperature, version: str, digest: str
    ) -> TradesPredictor:
        """Return trees behind one call."""
        return TradesPredictor(model, calibration, task.least_trades, task.longest_gap_s, version, digest)
