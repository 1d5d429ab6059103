"""Score a trades model and its rivals on test: figures, segments, pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hallmark.contracts import Evaluation, Metric, Prepared, Progress, Shown
from hallmark.files import read_json
from hallmark.judge.class_baselines import commonest
from hallmark.judge.classification import classification_metrics, intervals, score_classes
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_reliability
from hallmark.learn.selection import filled
from hallmark.tasks.trades.features import names_of
from hallmark.tasks.trades.messages import TradesRequest
from hallmark.tasks.trades.predictor import TradesModel, load_model

if TYPE_CHECKING:
    from hallmark.tasks.trades.task import TradesTask

Array = npt.NDArray[Any]
AT = "test"


@dataclass(frozen=True)
class TradesEvaluation:
    """What evaluation looks at.

    Attributes:
        seed: of the bootstrap.
    """

    seed: int

    @property
    def shown(self) -> Shown:
        """Accuracy first."""
        names = ("accuracy", "macro_f1", "auc", "calibration_error", "answered", "accuracy_answered")
        tables = (("accuracy", "all"), ("macro_f1", "all"), ("auc", "all"))
        return Shown((AT,), "", tuple((name, "all") for name in names), tables, "instants of trading")

    @property
    def segmentations(self) -> Sequence[str]:
        """Size of the trade, time of the day, whether the price has just changed."""
        return ("amount", "hour", "price")

    def metrics(self, task: "TradesTask") -> Mapping[str, Metric]:
        """Every metric that is reported, by name; AttributeError for a task without a memory of trades."""
        assert task.memory > 0
        return classification_metrics()

    def evaluate(
        self, task: "TradesTask", prepared: Prepared, model: Path, champion: Path | None, out: Path, progress: Progress
    ) -> Evaluation:
        """Score everything on test; see `Evaluator.evaluate`."""
        progress("evaluate", 0, 2, "features")
        x, target, rows = task.table(prepared, "test")
        predictor = task.predictor(model)
        ours = predictor.calibration.probabilities(predictor.model.trees.logits(x[:, list(predictor.model.chosen)]))
        found = {OURS: ours, **_baselines(task, prepared, predictor.model, x)}
        for rival in sorted((model / "rivals").glob("*")):
            other = load_model(rival, task.features, task.memory)
            logits = other.trees.logits(x[:, list(other.chosen)])
            found[rival.name] = predictor.calibration.probabilities(logits)
        if champion is not None:
            best = task.predictor(champion)
            found[CHAMPION] = best.calibration.probabilities(best.model.trees.logits(x[:, list(best.model.chosen)]))
        progress("evaluate", 1, 2, f"{len(rows):,} trades")
        segments = _segments(rows, x, names_of(task.features))
        instant = rows.groupby(["subject_id", "timestamp"]).ngroup().to_numpy()
        table: list[tuple[Any, ...]] = []
        for name, probabilities in found.items():
            threshold = predictor.calibration.threshold if name == OURS else 0.0
            for segment, inside in segments.items():
                if segment == "all" or name == OURS:
                    measure = _measure(probabilities[inside], target[inside], threshold)
                    count = len(np.unique(instant[inside]))
                    scored = intervals(measure, int(inside.sum()), self.seed, instant[inside])
                    table += [(name, metric, AT, segment, *values, count) for metric, values in scored.items()]
        columns = ["model", "metric", "at", "segment", "mean", "low", "high", "drawn"]
        summary = pd.DataFrame(table, columns=columns).dropna(subset=["mean"])
        draw_reliability(out / "reliability.png", ours, target)
        pictures = {"reliability.png": "Measured accuracy against confidence on test"}
        training = read_json(model / "training.json")
        notes = {
            "hallmark is": f"{training['chosen']}, the best of {len(training['candidates'])} candidates on valid",
            "loss on valid": {name: round(c["valid_loss"], 4) for name, c in training["candidates"].items()},
            "features": f"{training['features']} of {x.shape[1]}: base/features.md in the bundle says what they are",
            "test": f"{len(rows):,} trades after all others, {rows['side'].value_counts().sort_index().to_dict()}",
            "what every model is given": {
                "commonest": "nothing: the shares of the sides",
                "tick_rule": "the sign of the last price change",
                "logistic": "the features of hallmark",
                "hallmark": f"price, size and time of the trade and of {task.memory - 1} before it; no side",
            },
        }
        timings = _timings(task, prepared, model)
        progress("evaluate", 2, 2, "")
        return Evaluation(_by_instrument(rows, found, target), summary, pictures, notes, timings)


def _baselines(task: "TradesTask", prepared: Prepared, model: TradesModel, x: Array) -> dict[str, Array]:
    """The commonest side, the tick rule, and logistic regression on the chosen features."""
    from sklearn.linear_model import LogisticRegression

    learn, target, _ = task.table(prepared, "train")
    tick = x[:, names_of(task.features).index("tick_0")]
    up = np.where(tick > 0, 0.9, np.where(tick < 0, 0.1, 0.5))
    chosen = list(model.chosen)
    scaled = filled(np.concatenate([learn[:, chosen], x[:, chosen]]).astype(np.float64))
    logistic = LogisticRegression(max_iter=2000).fit(scaled[: len(learn)], target)
    return {
        "commonest": commonest(target, 2, len(x)),
        "tick_rule": np.stack([1 - up, up], axis=1),
        "logistic": logistic.predict_proba(scaled[len(learn) :]),
    }


def _measure(probabilities: Array, target: Array, threshold: float) -> Callable[[Array], dict[str, float]]:
    return lambda drawn: score_classes(probabilities[drawn], target[drawn], threshold)


def _segments(rows: pd.DataFrame, x: Array, names: Sequence[str]) -> dict[str, Array]:
    """Cut test trades; groups of fewer than 30 say nothing."""
    amount, hour = rows["amount"].to_numpy(), rows["timestamp"].to_numpy() // 3_600_000 % 24
    low, high = np.quantile(amount, [1 / 3, 2 / 3])
    moved = x[:, names.index("return_1")] != 0
    found = {
        "all": np.ones(len(rows), dtype=bool),
        "amount:small": amount <= low,
        "amount:middle": (amount > low) & (amount <= high),
        "amount:large": amount > high,
        "price:changed": moved,
        "price:same": ~moved,
    }
    found |= {f"hour:{start:02d}-{start + 5:02d} UTC": hour // 6 * 6 == start for start in (0, 6, 12, 18)}
    return {name: inside for name, inside in found.items() if inside.sum() >= 30}


def _by_instrument(rows: pd.DataFrame, found: Mapping[str, Array], target: Array) -> pd.DataFrame:
    """Accuracy of every model on every instrument, as scores of subjects."""
    scores = []
    for instrument, places in rows.groupby("subject_id").indices.items():
        for name, probabilities in found.items():
            right = float((probabilities[places].argmax(axis=1) == target[places]).mean())
            scores.append((instrument, name, "accuracy", AT, "all", right, len(places)))
    return pd.DataFrame(scores, columns=["subject_id", "model", "metric", "at", "segment", "value", "windows"])


def _timings(task: "TradesTask", prepared: Prepared, model: Path) -> list[float]:
    """Time single answers through the service's call, milliseconds."""
    rows = prepared.rows.tail(task.memory)
    trades = [
        {"timestamp_ms": int(t), "price": float(p), "amount": float(a)}
        for t, p, a in zip(rows["timestamp"], rows["price"], rows["amount"], strict=True)
    ]
    predictor = task.predictor(model, "0.0.0", "0" * 64)  # an answer must name a version: this one goes nowhere
    request = TradesRequest.model_validate({"trades": trades})
    times = []
    for _ in range(50):
        start = time.perf_counter()
        predictor.predict([request])
        times.append((time.perf_counter() - start) * 1000)
    return times
