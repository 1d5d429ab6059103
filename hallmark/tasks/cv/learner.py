"""CvLearner: fine-tune a bi-encoder for skill retrieval, calibrate its cosines, store redaction names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hallmark.arrays import Array
from hallmark.build import configuration
from hallmark.contracts import Accepts, Follow, Prepared, Progress, TrainResult
from hallmark.families.language.bi_encoder import BiEncoderConfig
from hallmark.families.language.match_curves import MatchConfig, fit_curves, load_curves, save_curves
from hallmark.families.language.retriever import Pairs, Retriever, fit_retriever, load_retriever, save_retriever
from hallmark.files import as_bundle_error, read_json, write_json
from hallmark.learn.export import Onnx, export_encoder
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.tasks.cv.matching import read_sentences
from hallmark.tasks.cv.predictor import CvPredictor
from hallmark.tasks.cv.redaction import Redactor, redactor
from hallmark.tasks.cv.rewriting import Rewriter
from hallmark.tasks.cv.sources import FAMILY, GIVEN
from hallmark.tasks.cv.task import CvTask

NAMES = "names.json"
COMPARED = 200  # test sentences on which an exported model is compared with the trained one


@dataclass(frozen=True)
class Examples:
    """Data that candidates are fitted on.

    Attributes:
        skills: every skill of the list.
        train: sentences with their skills, for fitting.
        valid: sentences with their skills, for early stopping.
    """

    skills: tuple[str, ...]
    train: Pairs
    valid: Pairs


@configuration
class CvLearner:
    """Trains bi-encoders. Nothing is personalised: a score must not depend on the requester.

    Attributes:
        rewriter: rewrites a CV for a job.
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
        """Write a bi-encoder; see `Learner.save`."""
        return save_retriever(model, candidate, directory)

    def calibrate(
        self, task: CvTask, prepared: Prepared, model: Path, config: MatchConfig, progress: Progress
    ) -> dict[str, float]:
        """Fit the curves from cosines to probabilities on valid, and store the name lists for redaction."""
        quiet()
        retriever = load_retriever(model / "base")
        questions = task.questions(prepared, "valid")
        reading = read_sentences(questions["text"].tolist(), retriever.vectors)
        curves = fit_curves(reading.similarity(retriever.known), questions["right"].tolist(), config)
        save_curves(model / "calibration", curves)
        name_lists = {kind: sorted(set(task.of_kind(prepared, kind)["text"].str.lower())) for kind in (GIVEN, FAMILY)}
        write_json(model / "calibration" / NAMES, name_lists)
        return {"requirement": curves.requirement.slope, "evidence": curves.evidence.slope}

    def open(self, task: CvTask, model: Path, version: str, digest: str) -> CvPredictor:
        """Open a model directory; see `Learner.open`."""
        quiet()
        return CvPredictor(
            load_retriever(model / "base"),
            load_curves(model / "calibration"),
            load_redactor(model / "calibration"),
            self.rewriter,
            task.screens,
            task.max_skills,
            task.min_probability,
            version,
            digest,
        )

    def export(self, model: Path, form: Onnx) -> None:
        """Export the encoder to another format; see `Exporting`. The skills' vectors stay as they are."""
        export_encoder(load_retriever(model / "base").model.encoder, model / "base", form)

    def raw_outputs(self, task: CvTask, prepared: Prepared, model: Path) -> Array:
        """Return the probabilities that test sentences show test skills, and ask for any; see `Exporting`."""
        questions = task.questions(prepared, "test").head(COMPARED)
        retriever, curves = load_retriever(model / "base"), load_curves(model / "calibration")
        skills = sorted({skill for skill_ids in questions["right"] for skill in skill_ids})
        reading = read_sentences(questions["text"].tolist(), retriever.vectors)
        evidence = curves.evidence.probability(reading.similarity(retriever.known[skills]))
        requirement = curves.requirement.probability(reading.similarity(retriever.known).max(axis=1, keepdims=True))
        return np.concatenate([evidence, requirement], axis=1)


def load_redactor(directory: Path) -> Redactor:
    """Read the name lists that calibration has stored; raises BundleError if they cannot be read."""
    with as_bundle_error(directory, "run `dvc repro train`"):
        return redactor(read_json(directory / NAMES))
