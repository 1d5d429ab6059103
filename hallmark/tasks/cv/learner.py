"""CvLearner: fine-tune a bi-encoder for skill retrieval, calibrate its cosines, store redaction names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hallmark.arrays import Array
from hallmark.contracts import Accepts, Follow, Prepared, Progress, TrainResult
from hallmark.families.language.bi_encoder import BiEncoderConfig
from hallmark.families.language.match_curves import MatchConfig, fit_curves, load_curves, save_curves
from hallmark.families.language.retriever import Pairs, Retriever, fit_retriever, load_retriever, save_retriever
from hallmark.files import read_json, readable, write_json
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.tasks.cv.matching import read_sentences
from hallmark.tasks.cv.predictor import CvPredictor
from hallmark.tasks.cv.redaction import Redactor, redactor
from hallmark.tasks.cv.rewriting import Rewriter
from hallmark.tasks.cv.sources import FAMILY, GIVEN
from hallmark.tasks.cv.task import CvTask

NAMES = "names.json"
COMPARED = 200  # sentences of test that another form of the model is compared on


@dataclass(frozen=True)
class Examples:
    """What candidates learn from.

    Attributes:
        skills: every skill of the list.
        train: sentences with their skills, to learn from.
        valid: those that stop training.
    """

    skills: tuple[str, ...]
    train: Pairs
    valid: Pairs


@dataclass(frozen=True)
class CvLearner:
    """Trains bi-encoders. Nobody is personalised: a score must not depend on who asks.

    Attributes:
        rewriter: arranges a CV for a job.
    """

    accepts = Accepts(CvTask, (BiEncoderConfig,), TrainConfig, calibrate=MatchConfig)

    rewriter: Rewriter

    def examples(self, task: CvTask, prepared: Prepared, train: TrainConfig, progress: Progress) -> Examples:
        """Pair sentences with skills; see `Learner.examples`."""
        return Examples(task.skills(prepared), task.pairs(prepared, "train"), task.pairs(prepared, "valid"))

    def describe(self, examples: Examples) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {"train_pairs": len(examples.train), "valid_pairs": len(examples.valid)}

    def fit_one(
        self, examples: Examples, candidate: BiEncoderConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[Retriever, TrainResult]:
        """Train one bi-encoder; see `Learner.fit_one`."""
        quiet()
        seed_everything(train.seed, train.threads)
        return fit_retriever(candidate, examples.skills, examples.train, examples.valid, train, scratch, follow)

    def save(self, model: Retriever, candidate: BiEncoderConfig, directory: Path) -> dict[str, int]:
        """Write what was learned; see `Learner.save`."""
        return save_retriever(model, candidate, directory)

    def calibrate(
        self, task: CvTask, prepared: Prepared, model: Path, config: MatchConfig, progress: Progress
    ) -> dict[str, float]:
        """Turn cosines into probabilities on valid, and keep the names by which people are recognised."""
        quiet()
        retriever = load_retriever(model / "base")
        asked = task.questions(prepared, "valid")
        reading = read_sentences(asked["text"].tolist(), retriever.vectors)
        found = fit_curves(reading.similarity(retriever.known), asked["right"].tolist(), config)
        save_curves(model / "calibration", found)
        listed = {kind: sorted(set(task.of_kind(prepared, kind)["text"].str.lower())) for kind in (GIVEN, FAMILY)}
        write_json(model / "calibration" / NAMES, listed)
        return {"asks": found.asks.slope, "shows": found.shows.slope}

    def open(self, task: CvTask, model: Path, version: str, digest: str) -> CvPredictor:
        """Open a model directory; see `Learner.open`."""
        quiet()
        return CvPredictor(
            load_retriever(model / "base"),
            load_curves(model / "calibration"),
            load_redactor(model / "calibration"),
            self.rewriter,
            task.screens,
            task.most_skills,
            task.least_probability,
            version,
            digest,
        )

    def export(self, model: Path, form: Onnx) -> None:
        """Write the encoder in another form; see `Exporting`. The skills' vectors stay as they are."""
        export_encoder(load_retriever(model / "base").model.encoder, model / "base", form)

    def compared(self, task: CvTask, prepared: Prepared, model: Path) -> Array:
        """Probabilities that sentences of test show skills of test, and ask for any; see `Exporting`."""
        asked = task.questions(prepared, "test").head(COMPARED)
        retriever, curves = load_retriever(model / "base"), load_curves(model / "calibration")
        skills = sorted({skill for right in asked["right"] for skill in right})
        reading = read_sentences(asked["text"].tolist(), retriever.vectors)
        shown = curves.shows.probability(reading.similarity(retriever.known[skills]))
        asked_for = curves.asks.probability(reading.similarity(retriever.known).max(axis=1, keepdims=True))
        return np.concatenate([shown, asked_for], axis=1)


def load_redactor(directory: Path) -> Redactor:
    """Read the names that calibration has kept; BundleError if they cannot be read."""
    with readable(directory, "run `dvc repro train`"):
        return redactor(read_json(directory / NAMES))
