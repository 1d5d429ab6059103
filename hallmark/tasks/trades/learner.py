"""Learn the trades task: boosted trees on the chosen features, with calibrated probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Accepts, Follow, Prepared, Progress, TrainResult
from hallmark.errors import DataError
from hallmark.families.classification.learner import ClassLearner
from hallmark.families.classification.selection import Selection, filled
from hallmark.families.classification.temperature import Temperature, TemperatureConfig, softmax
from hallmark.families.classification.trees import HistGradientBoosting, LightGBM
from hallmark.learn.candidates import Quick
from hallmark.tasks.trades.features import Feature, names_of
from hallmark.tasks.trades.predictor import TradesModel, TradesPredictor, load_model, save_model
from hallmark.tasks.trades.task import TradesTask

Table = tuple[Array, Array]
"""Features (B, F) and targets (B,); 1 is a buy."""


@dataclass(frozen=True)
class Examples:
    """What candidates learn from.

    Attributes:
        features: their definitions.
        memory: trades of a window.
        train: to learn from.
        valid: to choose by.
    """

    features: tuple[Feature, ...]
    memory: int
    train: Table
    valid: Table


@dataclass(frozen=True)
class TradesLearner(ClassLearner[TradesTask, TradesModel]):
    """Grows trees.

    Attributes:
        selection: which features the trees are given; chosen on train.
    """

    accepts = Accepts(TradesTask, (HistGradientBoosting, LightGBM), Quick, calibrate=TemperatureConfig)
    inputs: ClassVar = {
        "tick_rule": "the sign of the last price change",
        "logistic": "the features of hallmark",
        "hallmark": "price, size and time of the trade and of those before it, no side (base/features.md)",
    }

    selection: Selection

    def examples(self, task: TradesTask, prepared: Prepared, train: Quick, progress: Progress) -> Examples:
        """Compute the features of train and valid; see `Learner.examples`."""
        tables = (task.table(prepared, split) for split in ("train", "valid"))
        return Examples(tuple(task.features), task.memory, *tables)

    def describe(self, examples: Examples) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {"train_rows": len(examples.train[1]), "valid_rows": len(examples.valid[1])}

    def fit_one(
        self,
        examples: Examples,
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
        model = TradesModel(trees, examples.features, chosen, examples.memory)
        return model, TrainResult(loss, count, count, ((count, loss),))

    def save(self, model: TradesModel, candidate: HistGradientBoosting | LightGBM, directory: Path) -> dict[str, int]:
        """Write trees and the documentation of their features; see `Learner.save`."""
        return save_model(model, directory)

    def load(self, task: TradesTask, directory: Path) -> TradesModel:
        """Open trees; see `ClassLearner.load`."""
        return load_model(directory, task.features, task.memory)

    def logits(self, task: TradesTask, model: TradesModel, prepared: Prepared, split: str) -> tuple[Array, Array]:
        """Classify the trades of a split; see `ClassLearner.logits`."""
        x, y = task.table(prepared, split)
        return model.trees.logits(x[:, list(model.chosen)]), y

    def baselines(self, task: TradesTask, model: TradesModel, prepared: Prepared) -> dict[str, Array]:
        """The tick rule, and logistic regression on the chosen features."""
        from sklearn.linear_model import LogisticRegression

        x, target = task.table(prepared, "train")
        test, _ = task.table(prepared, "test")
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
