"""Score a sentiment model and its rivals on test: figures, behaviour, segments, pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hallmark.contracts import Better, Evaluation, Metric, Prepared, Progress, Shown
from hallmark.files import read_json
from hallmark.judge.class_baselines import commonest, counted_words, frozen_vectors
from hallmark.judge.classification import classification_metrics, intervals, score_classes
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_reliability, draw_shares
from hallmark.learn.text_classifier import load_classifier, vectors
from hallmark.learn.trainer import seed_everything
from hallmark.models.encoder import Encoder
from hallmark.tasks.sentiment import behaviour
from hallmark.tasks.sentiment.predictor import SentimentPredictor

if TYPE_CHECKING:
    from hallmark.tasks.sentiment.task import SentimentTask

Array = npt.NDArray[Any]
AT = "test"
LENGTHS = ((0, 40, "under 40"), (40, 90, "40 to 89"), (90, 10**9, "90 and more"))
BEHAVIOUR: dict[str, Better] = {
    "negated_praise_turns": "higher",
    "negated_blame_rises": "higher",
    "typo_stays": "higher",
    "name_gap": "lower",
    "name_gap_by_chance": "higher",
}


@dataclass(frozen=True)
class SentimentEvaluation:
    """What evaluation looks at.

    Attributes:
        seed: of the bootstrap and the typos.
    """

    seed: int

    @property
    def shown(self) -> Shown:
        """Accuracy first."""
        names = ("accuracy", "macro_f1", "auc", "calibration_error", "answered", "accuracy_answered")
        headline = tuple((name, "all") for name in (*names, *BEHAVIOUR))
        return Shown((AT,), "", headline, (("accuracy", "all"), ("macro_f1", "all"), ("auc", "all")), "texts")

    @property
    def segmentations(self) -> Sequence[str]:
        """Source and length."""
        return ("source", "characters")

    def metrics(self, task: "SentimentTask") -> Mapping[str, Metric]:
        """Every metric that is reported, by name."""
        found = classification_metrics()
        return found | {name: Metric(name, "", better) for name, better in BEHAVIOUR.items()}

    def evaluate(
        self,
        task: "SentimentTask",
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score everything on test; see `Evaluator.evaluate`."""
        seed_everything(self.seed, 1)
        predictor = task.predictor(model)
        test = task.rows_of(prepared, "test")
        texts, target = test["text"].tolist(), task.numbers(test["label"])
        progress("evaluate", 0, 3, "baselines")
        found = _baselines(task, prepared, predictor, texts)
        progress("evaluate", 1, 3, f"{len(texts):,} texts")
        found[OURS] = predictor.probabilities(texts)
        for rival in sorted((model / "rivals").glob("*")):
            other = load_classifier(rival)
            found[rival.name] = predictor.calibration.probabilities(other.logits(other.tokens.ids(texts)))
        if champion is not None:
            found[CHAMPION] = task.predictor(champion).probabilities(texts)
        progress("evaluate", 2, 3, "behaviour")
        segments = _segments(test)
        rows: list[tuple[Any, ...]] = []
        for name, probabilities in found.items():
            threshold = predictor.calibration.threshold if name == OURS else 0.0
            for segment, inside in segments.items():
                if segment == "all" or name == OURS:
                    measure = _measure(probabilities[inside], target[inside], threshold)
                    for metric, values in intervals(measure, int(inside.sum()), self.seed).items():
                        rows.append((name, metric, AT, segment, *values, int(inside.sum())))
        classify = predictor.probabilities
        gap, by_chance, groups = behaviour.names(classify, self.seed)
        tests = (*behaviour.negation(classify), behaviour.typos(classify, texts, self.seed), gap, by_chance)
        tested = dict(zip(BEHAVIOUR, tests, strict=True))
        rows += [(OURS, metric, AT, "all", value, value, value, 1) for metric, value in tested.items()]
        columns = ["model", "metric", "at", "segment", "mean", "low", "high", "drawn"]
        summary = pd.DataFrame(rows, columns=columns).dropna(subset=["mean"])
        draw_reliability(out / "reliability.png", found[OURS], target)
        draw_shares(out / "names.png", {g[0]: float(p) for g, p in zip(behaviour.NAMES, groups, strict=True)},
                    f"mean probability of {task.labels[-1]!r}")  # fmt: skip
        pictures = {
            "reliability.png": "Measured accuracy against confidence on test",
            "names.png": "The same sentences with names of four groups (by the group's first name)",
        }
        progress("evaluate", 3, 3, "")
        return Evaluation(
            _by_source(test, found, target), summary, pictures, _notes(model, task, test), _timings(predictor, texts)
        )


def _baselines(
    task: "SentimentTask", prepared: Prepared, predictor: SentimentPredictor, texts: Sequence[str]
) -> dict[str, Array]:
    learn, valid = (task.rows_of(prepared, part) for part in ("train", "valid"))
    words = [(part["text"].tolist(), task.numbers(part["label"])) for part in (learn, valid)]
    tokens = predictor.classifier.tokens
    encoder = Encoder(tokens.directory).eval()
    frozen = [(vectors(encoder, tokens, part), target) for part, target in words]
    return {
        "commonest": commonest(words[0][1], len(task.labels), len(texts)),
        "tfidf": counted_words(words[0], words[1], texts),
        "frozen": frozen_vectors(frozen[0], frozen[1], vectors(encoder, tokens, texts)),
    }


def _measure(probabilities: Array, target: Array, threshold: float) -> Callable[[Array], dict[str, float]]:
    return lambda drawn: score_classes(probabilities[drawn], target[drawn], threshold)


def _segments(test: pd.DataFrame) -> dict[str, Array]:
    """Cut the test texts by source and by length; groups of fewer than 30 say nothing."""
    found = {"all": np.ones(len(test), dtype=bool)}
    for source in sorted(test["subject_id"].unique()):
        found[f"source:{source}"] = (test["subject_id"] == source).to_numpy()
    length = test["text"].str.len()
    for low, high, name in LENGTHS:
        found[f"characters:{name}"] = length.between(low, high - 1).to_numpy()
    return {name: inside for name, inside in found.items() if name == "all" or inside.sum() >= 30}


def _by_source(test: pd.DataFrame, found: Mapping[str, Array], target: Array) -> pd.DataFrame:
    """Accuracy of every model on every source, as scores of subjects."""
    rows = []
    for source, places in test.groupby("subject_id").indices.items():
        for name, probabilities in found.items():
            right = float((probabilities[places].argmax(axis=1) == target[places]).mean())
            rows.append((source, name, "accuracy", AT, "all", right, len(places)))
    return pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "windows"])


def _notes(model: Path, task: "SentimentTask", test: pd.DataFrame) -> dict[str, Any]:
    training = read_json(model / "training.json")
    return {
        "hallmark is": f"{training['chosen']}, the best of {len(training['candidates'])} candidates on valid",
        "loss on valid": {name: round(c["valid_loss"], 4) for name, c in training["candidates"].items()},
        "test": f"{len(test):,} texts: {test['label'].value_counts().sort_index().to_dict()}",
        "what every model is given": {
            "commonest": "no text: the shares of the labels",
            "tfidf": "words and pairs of words of the training texts",
            "frozen": "the pretrained encoder's vectors as they are",
            "hallmark": "the text; the encoder has learned too",
        },
    }


def _timings(predictor: SentimentPredictor, texts: Sequence[str]) -> list[float]:
    """Time single answers, milliseconds."""
    times = []
    for text in texts[:50]:
        start = time.perf_counter()
        predictor.probabilities([text])
        times.append((time.perf_counter() - start) * 1000)
    return times
