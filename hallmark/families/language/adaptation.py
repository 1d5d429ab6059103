"""Adapt a causal LM: load a checkpoint or pretrain one on the source corpus, then fine-tune on the target corpus."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hallmark.arrays import Array
from hallmark.contracts import Follow, TrainResult
from hallmark.families.language.causal_lm import (
    TOKENIZER,
    CausalLm,
    CausalLmConfig,
    FromScratch,
    LmTokenizer,
    open_body,
)
from hallmark.families.language.encoder import load_weights
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.files import replacing
from hallmark.learn.trainer import TrainConfig, fit

INITIAL = "initial_checkpoint"
EVAL_BATCH_SIZE = 16  # windows of a batch without gradients


@dataclass(frozen=True)
class CorpusSplits:
    """Texts of one corpus (source or target).

    Attributes:
        train: texts to fit on.
        valid: texts for early stopping.
    """

    train: Sequence[str]
    valid: Sequence[str]


@dataclass(frozen=True)
class LanguageModel:
    """A trained language model.

    Attributes:
        model: the network.
        text: its tokenizer.
        context_length: tokens that the model reads at once.
        initial_checkpoint: directory of the model before adaptation.
    """

    model: CausalLm
    text: LmTokenizer
    context_length: int
    initial_checkpoint: Path

    def before(self) -> "LanguageModel":
        """Return the model before adaptation."""
        return replace(self, model=CausalLm(open_body(self.initial_checkpoint)).eval())

    @torch.no_grad()
    def nats(self, text: str) -> float:
        """Return the negative log-likelihood of a text and its closing token, in nats.

        The text is read in windows that do not overlap; a window has no context from the window before.
        """
        rows = windows([text], self.text, self.context_length)
        total = 0.0
        for start in range(0, len(rows), EVAL_BATCH_SIZE):
            total += float(self.model(**_batch(rows[start : start + EVAL_BATCH_SIZE]))["nats"].double().sum())
        return total


def windows(texts: Sequence[str], text: LmTokenizer, context_length: int) -> Array:
    """Concatenate texts, each with a closing token, and cut them into windows (N, context_length + 1).

    A window begins with the token before its first target, the very first window with the closing token. Positions
    after the last text are -1.
    """
    joined = [text.end, *(token for ids in text.ids(texts) for token in (*ids, text.end))]
    count = -(-(len(joined) - 1) // context_length)
    rows = np.full((count, context_length + 1), -1, dtype=np.int64)
    flat = np.asarray(joined, dtype=np.int64)
    for i in range(count):
        window = flat[i * context_length : (i + 1) * context_length + 1]
        rows[i, : len(window)] = window
    return rows


def _batch(rows: Array) -> dict[str, Tensor]:
    tokens = torch.from_numpy(rows)
    target = tokens[:, 1:]
    return {"input_ids": tokens[:, :-1].clamp(min=0), "target": target.masked_fill(target < 0, -100)}


def _batches(rows: Array) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
    return len(rows), lambda chosen: _batch(rows[chosen])


def _mixed(target: Array, source: Array, share: float, seed: int) -> Array:
    """Append source windows to the target windows until they are `share` of all windows."""
    count = min(len(source), round(len(target) * share / (1 - share)))
    return np.concatenate([target, source[np.random.default_rng(seed).permutation(len(source))[:count]]])


def fit_language_model(
    config: CausalLmConfig,
    source: CorpusSplits,
    target: CorpusSplits,
    train: TrainConfig,
    checkpoints: Path,
    follow: Follow,
) -> tuple[LanguageModel, TrainResult]:
    """Fit one candidate on the target corpus.

    Args:
        config: the candidate.
        source: source corpus, which a model from scratch is trained on first, and from which windows are replayed.
        target: target corpus of the adaptation.
        train: training settings; training from scratch has its own FLOP budget and learning rate.
        checkpoints: directory of this run alone.
        follow: see `Follow`; steps count from the beginning of adaptation.

    Raises:
        ConfigError: the strategy or the pretrained model is not available.
    """
    loading = config.strategy.loading()  # first, because it may raise
    if isinstance(config.initial_checkpoint, FromScratch):
        directory = checkpoints / INITIAL
        if not directory.is_dir():
            _train_from_scratch(config, config.initial_checkpoint, source, train, checkpoints, directory)
    else:
        directory = config.initial_checkpoint.weights.directory()
    text = LmTokenizer(directory)
    torch.manual_seed(train.seed)
    model = CausalLm(config.strategy.apply(open_body(directory, loading)))
    rows = {}
    for split in ("train", "valid"):
        by_corpus = [windows(getattr(corpus, split), text, config.context_length) for corpus in (target, source)]
        rows[split] = _mixed(by_corpus[0], by_corpus[1], config.replay_share, train.seed)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    batches = _batches(rows["train"]), _batches(rows["valid"])
    best, result = fit(model, *batches, train, checkpoints / "target", follow)
    assert isinstance(best, CausalLm)
    for name, value in best.named_parameters():  # in the average, nothing is trainable
        value.requires_grad_(name in trainable)
    return LanguageModel(best, text, config.context_length, directory), result


def _train_from_scratch(
    config: CausalLmConfig,
    initial: FromScratch,
    source: CorpusSplits,
    train: TrainConfig,
    checkpoints: Path,
    directory: Path,
) -> None:
    """Train tokenizer and model on the source corpus and write them in the layout of a pretrained checkpoint."""
    tokenizer = initial.tokenizer(iter(source.train))
    with replacing(directory) as temporary:
        tokenizer.save(str(temporary / TOKENIZER))
        text = LmTokenizer(temporary)
        torch.manual_seed(train.seed)
        network = initial.model(text.end, config.context_length)
        rows = [windows(texts, text, config.context_length) for texts in (source.train, source.valid)]
        source_train = replace(train, budget_tflop=initial.budget_tflop, learning_rate=initial.learning_rate)
        best, _ = fit(CausalLm(network), _batches(rows[0]), _batches(rows[1]), source_train, checkpoints / "source")
        best.body.save_pretrained(str(temporary))  # type: ignore[operator,union-attr]


def save_language_model(made: LanguageModel, config: CausalLmConfig, directory: Path) -> dict[str, int]:
    """Write the fine-tuned parameters, and the initial checkpoint if it was trained from scratch.

    Returns:
        The number of fine-tuned parameters.
    """
    facts: dict[str, Any] = {"context_length": made.context_length}
    counts = save_fine_tuned(made.model, config, directory, facts)
    if isinstance(config.initial_checkpoint, FromScratch):
        shutil.copytree(made.initial_checkpoint, directory / INITIAL, dirs_exist_ok=True)
    return counts


def load_language_model(directory: Path) -> LanguageModel:
    """Open what `save_language_model` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the strategy or the pretrained model is not available.
    """
    config, facts, tensors = open_fine_tuned(directory)
    from_scratch = isinstance(config.initial_checkpoint, FromScratch)
    checkpoint = directory / INITIAL if from_scratch else config.initial_checkpoint.weights.directory()
    model = CausalLm(config.strategy.apply(open_body(checkpoint, config.strategy.loading())))
    load_weights(model, tensors)
    return LanguageModel(model.eval(), LmTokenizer(checkpoint), int(facts["context_length"]), checkpoint)
