"""Fit the sentiment task: a pretrained text encoder, fine-tuned, with calibrated probabilities."""

from pathlib import Path
from typing import ClassVar

from hallmark.arrays import Array
from hallmark.build import configuration
from hallmark.contracts import Accepts, Follow, Prepared, TrainResult
from hallmark.families.classification.baselines import logistic_regression, tfidf_logistic
from hallmark.families.classification.learner import ClassLearner, Examples
from hallmark.families.classification.temperature import Temperature, TemperatureConfig
from hallmark.families.language.encoder import Encoder, EncoderConfig, merge_lora, vectors
from hallmark.families.language.text_classifier import Classifier, fit_classifier, load_classifier, save_classifier
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.tasks.sentiment.predictor import SentimentPredictor
from hallmark.tasks.sentiment.task import SentimentTask

COMPARED = 200  # test texts on which an exported model is compared with the trained one


@configuration
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
        """Write a classifier; see `Learner.save`."""
        return save_classifier(model, candidate, directory)

    def load(self, task: SentimentTask, directory: Path) -> Classifier:
        """Load a classifier; see `ClassLearner.load`."""
        quiet()
        return load_classifier(directory)

    def logits(self, model: Classifier, inputs: list[str]) -> Array:
        """Compute the logits of texts, (B, labels); see `ClassLearner.logits`."""
        return model.logits(model.tokens.ids(inputs))

    def baselines(
        self, task: SentimentTask, model: Classifier, prepared: Prepared, inputs: list[str]
    ) -> dict[str, Array]:
        """Return test probabilities of TF-IDF and of the frozen encoder; their penalties are chosen on valid."""
        train, valid = (self.table(task, prepared, split) for split in ("train", "valid"))
        encoder = Encoder(model.tokens.directory).eval()
        frozen = [(vectors(encoder, model.tokens, texts), target) for texts, target in (train, valid)]
        return {
            "tfidf": tfidf_logistic(train, valid, inputs),
            "frozen": logistic_regression(frozen[0], frozen[1], vectors(encoder, model.tokens, inputs)),
        }

    def predictor(
        self, task: SentimentTask, model: Classifier, calibration: Temperature, version: str, digest: str
    ) -> SentimentPredictor:
        """Return the predictor of a trained model."""
        return SentimentPredictor(model, calibration, version, digest)

    def export(self, model: Path, form: Onnx) -> None:
        """Export the encoder to another format; see `Exporting`."""
        export_encoder(merge_lora(load_classifier(model / "base").model.encoder), model / "base", form)

    def raw_outputs(self, task: SentimentTask, prepared: Prepared, model: Path) -> Array:
        """Return the probabilities of test texts, (B, labels); see `Exporting`."""
        predictor = self.open(task, model, "", "")
        assert isinstance(predictor, SentimentPredictor)
        return predictor.probabilities(task.texts(prepared, "test")[:COMPARED])
