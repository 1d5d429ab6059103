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
from hallmark.families.language.encoder import Encoder, Tokens, load_weights, merge_lora, vectors
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.files import as_bundle_error
from hallmark.learn.export import NETWORK, ExportedEncoder
from hallmark.learn.trainer import TrainConfig, fit

Pairs = Sequence[tuple[str, str]]
"""Pairs (text, right answer); a text may have several right answers."""


@dataclass(frozen=True)
class Retriever:
    """A trained bi-encoder with precomputed embeddings of all answers.

    Attributes:
        model: the bi-encoder.
        tokens: its tokenizer.
        answers: texts of the answers, (A,).
        known: embeddings of the answers, (A, D); float16 on disk: half the size, cosines change by less than 0.001.
    """

    model: BiEncoder
    tokens: Tokens
    answers: tuple[str, ...]
    known: Array

    def vectors(self, texts: Sequence[str]) -> Array:
        """Encode texts as vectors of length one, (Q, D); texts longer than `max_tokens` are truncated."""
        return vectors(self.model.encoder, self.tokens, texts)

    def cosines(self, questions: Array) -> Array:
        """Compute the cosines (Q, A) of encoded texts (Q, D) with all answers."""
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
        answers: texts of all answers.
        train_pairs: pairs to fit on.
        valid_pairs: pairs for early stopping.
        train: training settings.
        checkpoints: directory of this run alone.
        follow: see `Follow`.
    """
    directory = config.weights.directory()
    tokens = Tokens(directory, config.max_tokens)
    encoder = Encoder(directory).eval()
    answer_ids = tokens.ids(answers)
    answer_index = {answer: i for i, answer in enumerate(answers)}
    initial_vectors = vectors(encoder, tokens, answers)

    def batches(pairs: Pairs) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
        texts = sorted({text for text, _ in pairs})
        text_index = {text: i for i, text in enumerate(texts)}
        text_ids = tokens.ids(texts)
        right: list[set[int]] = [set() for _ in texts]
        for text, answer in pairs:
            right[text_index[text]].add(answer_index[answer])
        wrong = _nearest(vectors(encoder, tokens, texts) @ initial_vectors.T, right, config.hardest)

        def make(chosen: list[int]) -> dict[str, Tensor]:
            questions = [text_index[pairs[i][0]] for i in chosen]
            rng = np.random.default_rng([train.seed, *chosen])  # seeded by the batch: a resumed run samples the same
            negatives = [
                rng.choice(wrong[q], min(config.hard_negatives, len(wrong[q])), replace=False) for q in questions
            ]
            targets = [answer_index[pairs[i][1]] for i in chosen]
            pool = sorted({*targets, *(int(a) for row in negatives for a in row)})
            column = {a: i for i, a in enumerate(pool)}
            also = [[a in right[q] and a != t for a in pool] for q, t in zip(questions, targets, strict=True)]
            encoded = tokens.batch([answer_ids[a] for a in pool])
            return {
                **tokens.batch([text_ids[q] for q in questions]),
                "answer_ids": encoded["input_ids"],
                "answer_mask": encoded["attention_mask"],
                "target": torch.tensor([column[t] for t in targets]),
                "also_right": torch.tensor(also),
            }

        return len(pairs), make

    batched = batches(train_pairs), batches(valid_pairs)
    torch.manual_seed(train.seed)
    model = _assemble(config, encoder)
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    best, result = fit(model, *batched, train, checkpoints, follow)
    assert isinstance(best, BiEncoder)
    for name, value in best.named_parameters():  # in the average, nothing is trainable
        value.requires_grad_(name in trainable)
    embeddings = vectors(best.encoder, tokens, answers).astype(np.float16)  # the precision on disk
    return Retriever(best, tokens, tuple(answers), embeddings.astype(np.float32)), result


def _nearest(cosines: Array, right: Sequence[set[int]], count: int) -> list[Array]:
    """Return the indices of the nearest wrong answers of every question, the nearest first."""
    nearest = []
    for row, answers in zip(cosines, right, strict=True):
        order = np.argsort(-row, kind="stable")[: count + len(answers)]
        nearest.append(np.asarray([a for a in order if int(a) not in answers][:count], dtype=np.int64))
    return nearest


def _assemble(config: BiEncoderConfig, encoder: Encoder) -> BiEncoder:
    model = BiEncoder(encoder, config.temperature, config.dropout)
    model.encoder.body = config.strategy.apply(model.encoder.body)
    return model


def save_retriever(retriever: Retriever, config: BiEncoderConfig, directory: Path) -> dict[str, int]:
    """Write the fine-tuned parameters and the embeddings of all answers; returns the number of parameters."""
    counts = save_fine_tuned(retriever.model, config, directory, {"answers": list(retriever.answers)})
    save_file({"answers": retriever.known.astype(np.float16)}, directory / "answers.safetensors")
    return counts


def load_retriever(directory: Path) -> Retriever:
    """Open what `save_retriever` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the pretrained model is not available.
    """
    config, facts, tensors = open_fine_tuned(directory)
    with as_bundle_error(directory, "run `dvc repro train`"):
        known = load_file(directory / "answers.safetensors")["answers"].astype(np.float32)
    pretrained = config.weights.directory()
    if (directory / NETWORK).is_file():
        model = BiEncoder(ExportedEncoder(directory), config.temperature, config.dropout)
    else:
        model = _assemble(config, Encoder(pretrained))
        load_weights(model, tensors)
        merge_lora(model)
    if known.shape != (len(facts["answers"]), model.encoder.width):
        raise BundleError(f"{directory}: {len(facts['answers']):,} answers have vectors of shape {known.shape}")
    return Retriever(model.eval(), Tokens(pretrained, config.max_tokens), tuple(facts["answers"]), known)
