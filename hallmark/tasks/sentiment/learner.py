"""Learn the sentiment task: a pretrained text encoder, fine-tuned, with calibrated probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hallmark.arrays import Array
from hallmark.contracts import Accepts, Follow, Prepared, TrainResult
from hallmark.families.classification.baselines import counted_words, regression
from hallmark.families.classification.learner import ClassLearner, Examples
from hallmark.families.classification.temperature import Temperature, TemperatureConfig
from hallmark.families.language.encoder import Encoder, EncoderConfig, merged, vectors
from hallmark.families.language.text_classifier import Classifier, fit_classifier, load_classifier, save_classifier
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.read.splits import PARTS
from hallmark.tasks.sentiment.predictor import SentimentPredictor
from hallmark.tasks.sentiment.task import SentimentTask

COMPARED = 200  # texts of test that another form of the model is compared on


@dataclass(frozen=True)
class SentimentLearner(ClassLearner[SentimentTask, list[str], Classifier]):
    """Fine-tunes encoders."""

    accepts = Accepts(SentimentTask, (EncoderConfig,), TrainConfig, calibrate=TemperatureConfig)
    given: ClassVar = {
        "tfidf": "words and pairs of words of the training texts",
        "frozen": "the pretrained encoder's vectors as they are",
        "hallmark": "the text; the encoder has learned too",
    }

    def inputs(self, task: SentimentTask, prepared: Prepared, split: str) -> list[str]:
        """Return the texts of a split; see `ClassLearner.inputs`."""
        return task.texts(prepared, split)

    def fit_one(
        self,
        examples: Examples[SentimentTask, list[str]],
        candidate: EncoderConfig,
        train: TrainConfig,
        scratch: Path,
        follow: Follow,
    ) -> tuple[Classifier, TrainResult]:
        """Fine-tune an encoder; see `Learner.fit_one`."""
        quiet()
        seed_everything(train.seed, train.threads)
        return fit_classifier(candidate, examples.task.labels, examples.train, examples.valid, train, scratch, follow)

    def save(self, model: Classifier, candidate: EncoderConfig, directory: Path) -> dict[str, int]:
        """Write what was learned; see `Learner.save`."""
        return save_classifier(model, candidate, directory)

    def load(self, task: SentimentTask, directory: Path) -> Classifier:
        """Open a classifier; see `ClassLearner.load`."""
        quiet()
        return load_classifier(directory)

    def logits(self, model: Classifier, inputs: list[str]) -> Array:
        """Classify texts; see `ClassLearner.logits`."""
        return model.logits(model.tokens.ids(inputs))

    def baselines(self, task: SentimentTask, model: Classifier, prepared: Prepared) -> dict[str, Array]:
        """Counted words, and the pretrained encoder left as it is; valid chooses their penalties."""
        train, valid, test = (self.table(task, prepared, split) for split in PARTS)
        encoder = Encoder(model.tokens.directory).eval()
        frozen = [(vectors(encoder, model.tokens, texts), target) for texts, target in (train, valid, test)]
        return {
            "tfidf": counted_words(train, valid, test[0]),
            "frozen": regression(frozen[0], frozen[1], frozen[2][0]),
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
        return opened.probabilities(task.texts(prepared, "test")[:COMPARED])
