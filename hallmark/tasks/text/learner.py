"""Fit the text task: adapt a causal language model from the source corpus to the target corpus."""

from collections.abc import Mapping
from pathlib import Path

from hallmark.build import configuration
from hallmark.contracts import Accepts, Follow, Prepared, Progress, TrainResult
from hallmark.families.language.adaptation import (
    CorpusSplits,
    LanguageModel,
    fit_language_model,
    load_language_model,
    save_language_model,
)
from hallmark.families.language.causal_lm import CausalLmConfig
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything
from hallmark.tasks.text.predictor import TextPredictor
from hallmark.tasks.text.sources import DOMAINS, SOURCE, TARGET
from hallmark.tasks.text.task import TextTask

Examples = Mapping[str, CorpusSplits]
"""Domain → its texts of train and valid."""


@configuration
class TextLearner:
    """Adapts language models. Nothing is calibrated: tokens are sampled from the model's own probabilities."""

    accepts = Accepts(TextTask, (CausalLmConfig,), TrainConfig)

    def examples(self, task: TextTask, prepared: Prepared, train: TrainConfig, progress: Progress) -> Examples:
        """Read the texts of train and valid; see `Learner.examples`."""
        return {
            domain: CorpusSplits(task.texts(prepared, domain, "train"), task.texts(prepared, domain, "valid"))
            for domain in DOMAINS
        }

    def describe(self, examples: Examples) -> dict[str, int]:
        """Count the examples; see `Learner.describe`."""
        return {f"{name}_train_texts": len(domain.train) for name, domain in examples.items()}

    def fit_one(
        self, examples: Examples, candidate: CausalLmConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[LanguageModel, TrainResult]:
        """Adapt one model; see `Learner.fit_one`."""
        quiet()
        seed_everything(train.seed, train.threads)
        return fit_language_model(candidate, examples[SOURCE], examples[TARGET], train, scratch, follow)

    def save(self, model: LanguageModel, candidate: CausalLmConfig, directory: Path) -> dict[str, int]:
        """Write the adapted model; see `Learner.save`."""
        return save_language_model(model, candidate, directory)

    def open(self, task: TextTask, model: Path, version: str, digest: str) -> TextPredictor:
        """Open a model directory; see `Learner.open`."""
        quiet()
        return TextPredictor(load_language_model(model / "base"), task.screens, version, digest)
