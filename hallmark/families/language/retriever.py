"""Retriever: bi-encoder with precomputed answer embeddings (exact cosine search); fit, save, load.

Legend of shapes: Q questions, A answers, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from hallmark.arrays import Array
from hallmark.contracts import Follow, TrainResult
from hallmark.errors import BundleError
from hallmark.families.language.bi_encoder import BiEncoder, BiEncoderConfig
from hallmark.families.language.encoder import Encoder, Tokens, merged, take_up, vectors
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.files import readable
from hallmark.learn.export import NETWORK, ExportedEncoder
from hallmark.learn.trainer import TrainConfig, fit

Pairs = Sequence[tuple[str, str]]
"""(text, the answer that belongs to it); a text may have several."""


@dataclass(frozen=True)
class Retriever:
    """A trained bi-encoder with every answer's vector.

    Attributes:
        model: the encoder.
        tokens: its tokenizer.
        answers: texts, (A,).
        known: their vectors, (A, D); on disk float16: half the bytes, and cosines move by less than 0.001.
    """

    model: BiEncoder
    tokens: Tokens
    answers: tuple[str, ...]
    known: Array

    def vectors(self, texts: Sequence[str]) -> Array:
        """Encode texts, (Q, D) of length one; what is longer than the model reads is cut."""
        return vectors(self.model.encoder, self.tokens, texts)

    def cosines(self, questions: Array) -> Array:
        """Compare encoded texts (Q, D) with every answer, (Q, A)."""
        return np.asarray(questions @ self.known.T)


def fit_retriever(
    config: BiEncoderConfig,
    answers: Sequence[str],
    train_pairs: Pairs,
    valid_pairs: Pairs,
    train: TrainConfig,
    checkpoints: Path,
    follow: Follow,
) -> tuple[Retriever, TrainResult]:
    """Fit one candidate.

    Args:
        config: the candidate.
        answers: all there are.
        train_pairs: to learn from.
        valid_pairs: to stop by.
        train: how.
        checkpoints: of this run alone.
        follow: see `Follow`.
    """
    directory = config.weights.directory()
    tokens = Tokens(directory, config.max_tokens)
    encoder = Encoder(directory).eval()
    answer_ids = tokens.ids(answers)
    number = {answer: i for i, answer in enumerate(answers)}
    known = vectors(encoder, tokens, answers)

    def batches(pairs: Pairs) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
        texts = sorted({text for text, _ in pairs})
        place = {text: i for i, text in enumerate(texts)}
        text_ids = tokens.ids(texts)
        right: list[set[int]] = [set() for _ in texts]
        for text, answer in pairs:
            right[place[text]].add(number[answer])
        wrong = _nearest(vectors(encoder, tokens, texts) @ known.T, right, config.hardest)

        def make(chosen: list[int]) -> dict[str, Tensor]:
            asked = [place[pairs[i][0]] for i in chosen]
            rng = np.random.default_rng([train.seed, *chosen])  # the batch alone decides: a resumed run draws the same
            drawn = [rng.choice(wrong[q], min(config.hard_negatives, len(wrong[q])), replace=False) for q in asked]
            wanted = [number[pairs[i][1]] for i in chosen]
            several = sorted({*wanted, *(int(a) for row in drawn for a in row)})
            at = {a: i for i, a in enumerate(several)}
            also = [[a in right[q] and a != w for a in several] for q, w in zip(asked, wanted, strict=True)]
            theirs = tokens.batch([answer_ids[a] for a in several])
            return {
                **tokens.batch([text_ids[q] for q in asked]),
                "answer_ids": theirs["input_ids"],
                "answer_mask": theirs["attention_mask"],
                "target": torch.tensor([at[w] for w in wanted]),
                "also_right": torch.tensor(also),
            }

        return len(pairs), make

    fed = batches(train_pairs), batches(valid_pairs)
    torch.manual_seed(train.seed)
    model = _assemble(config, encoder)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    best, result = fit(model, *fed, train, checkpoints, follow)
    assert isinstance(best, BiEncoder)
    for name, value in best.named_parameters():  # an average comes back with nothing marked
        value.requires_grad_(name in learning)
    found = vectors(best.encoder, tokens, answers).astype(np.float16)  # as it will be read again
    return Retriever(best, tokens, tuple(answers), found.astype(np.float32)), result


def _nearest(cosines: Array, right: Sequence[set[int]], count: int) -> list[Array]:
    """Name the nearest wrong answers of every question."""
    found = []
    for row, mine in zip(cosines, right, strict=True):
        order = np.argsort(-row, kind="stable")[: count + len(mine)]
        found.append(np.asarray([a for a in order if int(a) not in mine][:count], dtype=np.int64))
    return found


def _assemble(config: BiEncoderConfig, encoder: Encoder) -> BiEncoder:
    model = BiEncoder(encoder, config.temperature, config.dropout)
    model.encoder.body = config.strategy.apply(model.encoder.body)
    return model


def save_retriever(retriever: Retriever, config: BiEncoderConfig, directory: Path) -> dict[str, int]:
    """Write what was learned and every answer; returns how many parameters were learned."""
    said = save_fine_tuned(retriever.model, config, directory, {"answers": list(retriever.answers)})
    save_file({"answers": retriever.known.astype(np.float16)}, directory / "answers.safetensors")
    return said


def load_retriever(directory: Path) -> Retriever:
    """Open what `save_retriever` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the pretrained model is not to be had.
    """
    config, facts, tensors = open_fine_tuned(directory)
    with readable(directory, "run `dvc repro train`"):
        known = load_file(directory / "answers.safetensors")["answers"].astype(np.float32)
    source = config.weights.directory()
    if (directory / NETWORK).is_file():
        model = BiEncoder(ExportedEncoder(directory), config.temperature, config.dropout)
    else:
        model = _assemble(config, Encoder(source))
        take_up(model, tensors)
        merged(model)
    if known.shape != (len(facts["answers"]), model.encoder.width):
        raise BundleError(f"{directory}: {len(facts['answers']):,} answers have vectors of shape {known.shape}")
    return Retriever(model.eval(), Tokens(source, config.max_tokens), tuple(facts["answers"]), known)
