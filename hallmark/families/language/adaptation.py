"""Domain adaptation of a causal language model: learn or load the source corpus, then adapt to the target corpus."""

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
from hallmark.families.language.causal_lm import TOKENIZER, CausalLm, CausalLmConfig, FromScratch, Text, open_body
from hallmark.families.language.encoder import take_up
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.files import replacing
from hallmark.learn.trainer import TrainConfig, fit

START = "start"
TOGETHER = 16  # windows of a batch that only looks


@dataclass(frozen=True)
class Domain:
    """Texts of one kind.

    Attributes:
        train: to learn from.
        valid: to stop by.
    """

    train: Sequence[str]
    valid: Sequence[str]


@dataclass(frozen=True)
class LanguageModel:
    """A trained language model.

    Attributes:
        model: it.
        text: its tokenizer.
        context_length: tokens read at once.
        start: the directory of what was there before.
    """

    model: CausalLm
    text: Text
    context_length: int
    start: Path

    def before(self) -> "LanguageModel":
        """What was there before the new domain was learned."""
        return replace(self, model=CausalLm(open_body(self.start)).eval())

    @torch.no_grad()
    def nats(self, text: str) -> float:
        """Cost of a text and its end, in nats: read in windows that do not overlap, each from its own context alone."""
        rows = windows([text], self.text, self.context_length)
        found = 0.0
        for start in range(0, len(rows), TOGETHER):
            found += float(self.model(**_batch(rows[start : start + TOGETHER]))["nats"].double().sum())
        return found


def windows(texts: Sequence[str], text: Text, context_length: int) -> Array:
    """Cut texts, one after the other and each closed, into windows (N, context_length + 1), -1 beyond the last text.

    A window begins with the token before its first target; the very first one with the closing token.
    """
    joined = [text.end, *(token for ids in text.ids(texts) for token in (*ids, text.end))]
    count = -(-(len(joined) - 1) // context_length)
    rows = np.full((count, context_length + 1), -1, dtype=np.int64)
    flat = np.asarray(joined, dtype=np.int64)
    for i in range(count):
        part = flat[i * context_length : (i + 1) * context_length + 1]
        rows[i, : len(part)] = part
    return rows


def _batch(rows: Array) -> dict[str, Tensor]:
    tokens = torch.from_numpy(rows)
    target = tokens[:, 1:]
    return {"input_ids": tokens[:, :-1].clamp(min=0), "target": target.masked_fill(target < 0, -100)}


def _batches(rows: Array) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
    return len(rows), lambda chosen: _batch(rows[chosen])


def _mixed(new: Array, old: Array, share: float, seed: int) -> Array:
    """Put as many old windows behind the new ones as make up a share of all."""
    count = min(len(old), round(len(new) * share / (1 - share)))
    return np.concatenate([new, old[np.random.default_rng(seed).permutation(len(old))[:count]]])


def fit_language_model(
    config: CausalLmConfig, old: Domain, new: Domain, train: TrainConfig, checkpoints: Path, follow: Follow
) -> tuple[LanguageModel, TrainResult]:
    """Fit one candidate.

    Args:
        config: the candidate.
        old: what it knows already, or learns first.
        new: what it adapts to.
        train: how; what is made from scratch has a budget and a rate of its own for the old texts.
        checkpoints: of this run alone.
        follow: see `Follow`; steps count from the beginning of adaptation.

    Raises:
        ConfigError: the strategy or the pretrained model is not to be had.
    """
    loading = config.strategy.loading()  # first of all: it may be refused
    if isinstance(config.start, FromScratch):
        directory = checkpoints / START
        if not directory.is_dir():
            _learn_old(config, config.start, old, train, checkpoints, directory)
    else:
        directory = config.start.weights.directory()
    text = Text(directory)
    torch.manual_seed(train.seed)
    model = CausalLm(config.strategy.apply(open_body(directory, loading)))
    rows = {}
    for part in ("train", "valid"):
        cut = [windows(getattr(domain, part), text, config.context_length) for domain in (new, old)]
        rows[part] = _mixed(cut[0], cut[1], config.replay_share, train.seed)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    fed = _batches(rows["train"]), _batches(rows["valid"])
    best, result = fit(model, *fed, train, checkpoints / "new", follow)
    assert isinstance(best, CausalLm)
    for name, value in best.named_parameters():  # an average comes back with nothing marked
        value.requires_grad_(name in learning)
    return LanguageModel(best, text, config.context_length, directory), result


def _learn_old(
    config: CausalLmConfig, start: FromScratch, old: Domain, train: TrainConfig, checkpoints: Path, directory: Path
) -> None:
    """Train tokenizer and model on the old texts and write both, as pretrained ones lie on disk."""
    tokenizer = start.tokenizer(iter(old.train))
    with replacing(directory) as fresh:
        tokenizer.save(str(fresh / TOKENIZER))
        text = Text(fresh)
        torch.manual_seed(train.seed)
        body = start.model(text.end, config.context_length)
        rows = [windows(part, text, config.context_length) for part in (old.train, old.valid)]
        own = replace(train, budget_tflop=start.budget_tflop, learning_rate=start.learning_rate)
        best, _ = fit(CausalLm(body), _batches(rows[0]), _batches(rows[1]), own, checkpoints / "old")
        best.body.save_pretrained(str(fresh))  # type: ignore[operator,union-attr]


def save_language_model(made: LanguageModel, config: CausalLmConfig, directory: Path) -> dict[str, int]:
    """Write what was learned, and what it started from if nobody else keeps that; returns how many parameters."""
    facts: dict[str, Any] = {"context_length": made.context_length}
    said = save_fine_tuned(made.model, config, directory, facts)
    if isinstance(config.start, FromScratch):
        shutil.copytree(made.start, directory / START, dirs_exist_ok=True)
    return said


def load_language_model(directory: Path) -> LanguageModel:
    """Open what `save_language_model` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the strategy or the pretrained model is not to be had.
    """
    config, facts, tensors = open_fine_tuned(directory)
    own = isinstance(config.start, FromScratch)
    source = directory / START if own else config.start.weights.directory()
    model = CausalLm(config.strategy.apply(open_body(source, config.strategy.loading())))
    take_up(model, tensors)
    return LanguageModel(model.eval(), Text(source), int(facts["context_length"]), source)
