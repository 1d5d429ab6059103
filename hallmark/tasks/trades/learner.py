"""Fit the trades task: boosted trees on selected features, with calibrated probabilities."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from hallmark.arrays import Array
from hallmark.build import configuration
from hallmark.contracts import Accepts, Follow, Prepared, TrainResult
from hallmark.errors import DataError
from hallmark.families.classification.importance import permutation_importance
from hallmark.families.classification.learner import ClassLearner, Examples
from hallmark.families.classification.selection import Selection, standardised
from hallmark.families.classification.temperature import Temperature, TemperatureConfig, softmax
from hallmark.families.classification.trees import HistGradientBoosting, LightGBM
from hallmark.learn.candidates import NoTrainer
from hallmark.tasks.trades.features import names_of
from hallmark.tasks.trades.predictor import TradesModel, TradesPredictor, load_model, save_model
from hallmark.tasks.trades.task import TradesTask


@configuration
class TradesLearner(ClassLearner[TradesTask, Array, TradesModel]):
    """Fits boosted trees.

    Attributes:
        selection: selects the features that the trees read; fitted on train.
    """

    accepts = Accepts(TradesTask, (HistGradientBoosting, LightGBM), NoTrainer, calibrate=TemperatureConfig)
    given: ClassVar = {
        "tick_rule": "the sign of the last price change",
        "logistic": "the features of hallmark",
        "hallmark": "price, size and time of the trade and of those before it, no side (base/features.md)",
    }

    selection: Selection

    def inputs(self, task: TradesTask, prepared: Prepared, split: str) -> Array:
        """Compute every feature of a split's trades, (B, F); windows may reach back into the preceding split."""
        return task.examples(prepared.rows)[task.rows_of(prepared, split).index]

    def fit_one(
        self,
        examples: Examples[TradesTask, Array],
        candidate: HistGradientBoosting | LightGBM,
        train: NoTrainer,
        scratch: Path,
        follow: Follow,
    ) -> tuple[TradesModel, TrainResult]:
        """Fit trees on the selected columns; see `Learner.fit_one`."""
        (x, y), (x_valid, y_valid) = examples.train, examples.valid
        chosen = self.selection.choose(x, y, train.seed)
        if not chosen:
            raise DataError("learner.selection keeps no feature: loosen it")
        trees = candidate.fit(x[:, chosen], y, train.seed)
        curve = trees.loss_by_size(x_valid[:, chosen], y_valid)
        count, loss = curve[-1]
        follow(count, count, loss)
        model = TradesModel(trees, examples.task.features, chosen, examples.task.memory)
        return model, TrainResult(loss, count, count, curve)

    def save(self, model: TradesModel, candidate: HistGradientBoosting | LightGBM, directory: Path) -> dict[str, int]:
        """Write trees and the documentation of their features; see `Learner.save`."""
        return save_model(model, directory)

    def load(self, task: TradesTask, directory: Path) -> TradesModel:
        """Load trees; see `ClassLearner.load`."""
        return load_model(directory, task.features, task.memory)

    def logits(self, model: TradesModel, inputs: Array) -> Array:
        """Compute the logits of trades from their features, (B, 2); see `ClassLearner.logits`."""
        return model.trees.logits(inputs[:, list(model.chosen)])

    def baselines(self, task: TradesTask, model: TradesModel, prepared: Prepared, inputs: Array) -> dict[str, Array]:
        """Return test probabilities of the tick rule and of logistic regression on the selected features, (B, 2)."""
        from sklearn.linear_model import LogisticRegression

        x, target = self.table(task, prepared, "train")
        tick = inputs[:, names_of(task.features).index("tick_0")]
        buy_probability = np.where(tick > 0, 0.9, np.where(tick < 0, 0.1, 0.5))
        chosen = list(model.chosen)
        train_inputs, test_inputs = x[:, chosen].astype(np.float64), inputs[:, chosen].astype(np.float64)
        logistic = LogisticRegression(max_iter=2000).fit(standardised(train_inputs), target)
        return {
            "tick_rule": np.stack([1 - buy_probability, buy_probability], axis=1),
            "logistic": np.asarray(logistic.predict_proba(standardised(test_inputs, like=train_inputs))),
        }

    def importance(
        self, task: TradesTask, model: TradesModel, inputs: Array, target: Array, seed: int
    ) -> dict[str, float]:
        """Shuffle one chosen feature at a time; see `permutation_importance`."""
        names = names_of(task.features)
        x = inputs[:, list(model.chosen)]
        chosen = [names[column] for column in model.chosen]
        return permutation_importance(lambda x: softmax(model.trees.logits(x)), x, target, chosen, seed)

    def predictor(
        self, task: TradesTask, model: TradesModel, calibration: Temperature, version: str, digest: str
    ) -> TradesPredictor:
        """Return the predictor of a trained model."""
        return TradesPredictor(model, calibration, task.min_trades, task.max_gap_s, version, digest)
