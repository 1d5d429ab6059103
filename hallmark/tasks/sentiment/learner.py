"""Learn the sentiment task: a pretrained text encoder, fine-tuned, with calibrated probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from hallmark.arrays import Array
from hallmark.contracts import Accepts, Follow, Prepared, Progress, TrainResult
from hallmark.families.classification.baselines import counted_words, regression
from hallmark.families.classification.learner import ClassLearner
from hallmark.families.classification.temperature import Temperature, TemperatureConfig
from hallmark.families.language.encoder import Encoder, EncoderConfig, merged, vectors
from hallmark.families.language.text_classifier import Classifier, fit_classifier, load_classifier, save_classifier
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.read.splits import PARTS
from hallmark.tasks.sentiment.predictor import SentimentPredictor
from hallmark.tasks.sentiment.task import SentimentTask

COMPARED = 200  # texts of test that another form of the model is compared on

Texts = tuple[list[str], list[str]]
"""Texts and their labels."""


@dataclass(frozen=True)
class Examples:
    """What candidates learn from.

    Attributes:
        labels: names, in the order of the model's outputs.
        train: to learn from.
        valid: to stop by and to choose by.
    """

    labels: tuple[str, ...]
    train: Texts
    valid: Texts


@dataclass(frozen=True)
class SentimentLearner(ClassLearner[SentimentTask, Classifier]):
    """Fine-tunes encoders."""

    accepts = Accepts(SentimentTask, (EncoderConfig,), TrainConfig, calibrate=TemperatureConfig)
    inputs: ClassVar = {
        "tfidf": "words and pairs of words of the training texts",
        "frozen": "the pretrained encoder's vectors as they are",
        "hallmark": "the text; the encoder has learned too",
    }

    def examples(self, task: SentimentTask, prepared: Prepared, train: TrainConfig, progress: Progress) -> Examples:
        """Read the texts of train and valid; see `Learner.examples`."""
        return Examples(task.labels, task.texts(prepared, "train"), task.texts(prepared, "valid"))

    def describe(self, examples: Examples) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {"train_rows": len(examples.train[0]), "valid_rows": len(examples.valid[0])}

    def fit_one(
        self, examples: Examples, candidate: EncoderConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[Classifier, TrainResult]:
        """Fine-tune an encoder; see `Learner.fit_one`."""
        quiet()
        seed_everything(train.seed, train.threads)
        return fit_classifier(candidate, examples.labels, examples.train, examples.valid, train, scratch, follow)

    def save(self, model: Classifier, candidate: EncoderConfig, directory: Path) -> dict[str, int]:
        """Write what was learned; see `Learner.save`."""
        return save_classifier(model, candidate, directory)

    def load(self, task: SentimentTask, directory: Path) -> Classifier:
        """Open a classifier; see `ClassLearner.load`."""
        quiet()
        return load_classifier(directory)

    def logits(self, task: SentimentTask, model: Classifier, prepared: Prepared, split: str) -> tuple[Array, Array]:
        """Classify the texts of a split; see `ClassLearner.logits`."""
        rows = task.rows_of(prepared, split)
        return model.logits(model.tokens.ids(rows["text"].tolist())), task.numbers(rows["label"])

    def baselines(self, task: SentimentTask, model: Classifier, prepared: Prepared) -> dict[str, Array]:
        """Counted words, and the pretrained encoder left as it is; valid chooses their penalties."""
        rows = {split: task.texts(prepared, split) for split in PARTS}
        target = {split: task.numbers(pd.Series(labels)) for split, (_, labels) in rows.items()}
        words = [(rows[split][0], target[split]) for split in ("train", "valid")]
        encoder = Encoder(model.tokens.directory).eval()
        frozen = {split: vectors(encoder, model.tokens, texts) for split, (texts, _) in rows.items()}
        seen = [(frozen[split], target[split]) for split in ("train", "valid")]
        return {
            "tfidf": counted_words(words[0], words[1], rows["test"][0]),
            "frozen": regression(seen[0], seen[1], frozen["test"]),
        }

    def predictor(
        self, task: SentimentTask, model: Classifier, calibration: Temperature, version: str, digest: str
    ) -> SentimentPredictor:
        """Return a classifier behind one call."""
        return SentimentPredictor(model, calibration, version, digest)

    def export(self, model: Path, form: Onnx) -> None:
        """Write the encoder in another form; see `Exporting`."""
        export_encoder(merged(load_classifier(model / "base").model.encoder), model / "base", form)

    def compared(self, task: SentimentTask, prepared: Prepared, model: Path) -> Array:
        """Probabilities of test texts; see `Exporting`."""
        opened = self.open(task, model, "", "")
        assert isinstance(opened, SentimentPredictor)
        return opened.probabilities(task.texts(prepared, "test")[0][:COMPARED])
