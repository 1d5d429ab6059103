"""Fine-tune a pretrained encoder as a text classifier; a linear probe on its embeddings initialises the head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hallmark.arrays import Array
from hallmark.contracts import Follow, TrainResult
from hallmark.families.language.encoder import Encoder, EncoderConfig, TextClassifier, Tokens, load_weights, vectors
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.learn.export import NETWORK, ExportedEncoder
from hallmark.learn.trainer import TrainConfig, fit

LARGEST = 64  # texts of a pass
SHORTEST = 8  # tokens of a text that shares a pass
FEWEST = 4  # rows of the head; products of fewer take other kernels


@dataclass(frozen=True)
class Classifier:
    """A trained text classifier.

    Attributes:
        model: encoder and head.
        tokens: its tokenizer.
        labels: names of the labels, in the order of the outputs.
    """

    model: TextClassifier
    tokens: Tokens
    labels: tuple[str, ...]

    @torch.no_grad()
    def logits(self, ids: Sequence[Sequence[int]]) -> Array:
        """Return the logits of texts, (B, L).

        Texts of the same number of tokens share a pass. Nothing is padded, and the head always has several rows, so
        that no text affects the bits of another. A network in another form has a pass per text.
        """
        embeddings = torch.zeros((max(len(ids), FEWEST), self.model.head.in_features))
        lengths: dict[int, list[int]] = {}
        for place, text in enumerate(ids):
            lengths.setdefault(min(len(text), self.tokens.max_tokens), []).append(place)
        for length, places in lengths.items():
            most = 1 if length < SHORTEST or isinstance(self.model.encoder, ExportedEncoder) else LARGEST
            for start in range(0, len(places), most):
                rows = places[start : start + most]
                embeddings[rows] = self.model.encoder(**self.tokens.batch([ids[row] for row in rows])).float()
        logits: Array = self.model.head(nn.functional.normalize(embeddings, dim=1))[: len(ids)].double().numpy()
        return logits


def fit_classifier(
    config: EncoderConfig,
    labels: tuple[str, ...],
    train_rows: tuple[Sequence[str], Array],
    valid_rows: tuple[Sequence[str], Array],
    train: TrainConfig,
    checkpoints: Path,
    follow: Follow,
) -> tuple[Classifier, TrainResult]:
    """Fit one candidate.

    Args:
        config: the candidate.
        labels: names of the labels.
        train_rows: texts, and the indices of their labels (B,).
        valid_rows: the same for early stopping and model selection.
        train: training settings.
        checkpoints: directory of this run alone.
        follow: see `Follow`.
    """
    from sklearn.linear_model import LogisticRegression

    directory = config.weights.directory()
    tokens = Tokens(directory, config.max_tokens)
    encoder = Encoder(directory).eval()
    embeddings = vectors(encoder, tokens, train_rows[0])
    probe = LogisticRegression(max_iter=1000).fit(embeddings, train_rows[1])
    torch.manual_seed(train.seed)
    model = _assemble(config, encoder, len(labels))
    with torch.no_grad():  # with two classes, scikit-learn has one row of coefficients
        weight, bias = (torch.from_numpy(np.asarray(a, dtype=np.float32)) for a in (probe.coef_, probe.intercept_))
        model.head.weight.copy_(torch.cat([-weight, weight]) / 2 if len(weight) == 1 else weight)
        model.head.bias.copy_(torch.cat([-bias, bias]) / 2 if len(bias) == 1 else bias)

    def batches(rows: tuple[Sequence[str], Array]) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
        ids = tokens.ids(rows[0])
        target = torch.tensor(rows[1], dtype=torch.int64)

        def make(chosen: list[int]) -> dict[str, Tensor]:
            return {**tokens.batch([ids[i] for i in chosen]), "target": target[chosen]}

        return len(ids), make

    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    best, result = fit(model, batches(train_rows), batches(valid_rows), train, checkpoints, follow)
    assert isinstance(best, TextClassifier)
    for name, value in best.named_parameters():  # in the average, nothing is trainable
        value.requires_grad_(name in trainable)
    return Classifier(best, tokens, labels), result


def _assemble(config: EncoderConfig, encoder: Encoder, labels: int) -> TextClassifier:
    model = TextClassifier(encoder, labels, config.dropout)
    model.encoder.body = config.strategy.apply(model.encoder.body)
    return model


def save_classifier(classifier: Classifier, config: EncoderConfig, directory: Path) -> dict[str, int]:
    """Write the fine-tuned parameters and the configuration; returns the number of parameters."""
    return save_fine_tuned(classifier.model, config, directory, {"labels": list(classifier.labels)})


def load_classifier(directory: Path) -> Classifier:
    """Open what `save_classifier` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the pretrained model is not available.
    """
    config, facts, tensors = open_fine_tuned(directory)
    pretrained, labels = config.weights.directory(), tuple(facts["labels"])
    if (directory / NETWORK).is_file():
        model = TextClassifier(ExportedEncoder(directory), len(labels), config.dropout)
        load_weights(model, {name: value for name, value in tensors.items() if name.startswith("head.")})
    else:
        model = _assemble(config, Encoder(pretrained), len(labels))
        load_weights(model, tensors)
    return Classifier(model.eval(), Tokens(pretrained, config.max_tokens), labels)
