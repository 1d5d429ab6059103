"""Fine-tune a pretrained encoder as text classifier; a linear probe on its embeddings initialises the head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hallmark.arrays import Array
from hallmark.contracts import Follow, TrainResult
from hallmark.families.language.encoder import Encoder, EncoderConfig, TextClassifier, Tokens, take_up, vectors
from hallmark.families.language.fine_tuned import open_fine_tuned, save_fine_tuned
from hallmark.learn.export import NETWORK, ExportedEncoder
from hallmark.learn.trainer import TrainConfig, fit


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        model: encoder and head.
        tokens: its tokenizer.
        labels: names, in the order of its outputs.
    """

    model: TextClassifier
    tokens: Tokens
    labels: tuple[str, ...]

    @torch.no_grad()
    def logits(self, ids: Sequence[Sequence[int]]) -> Array:
        """Classify texts by their token ids, (B, L); one text a pass, so that its bits depend on nothing else."""
        found = [self.model(**self.tokens.batch([text]))["logits"] for text in ids]
        return torch.cat(found).double().numpy() if found else np.empty((0, len(self.labels)))


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
        labels: names.
        train_rows: texts and the numbers of their labels.
        valid_rows: those that stop and choose.
        train: how.
        checkpoints: of this run alone.
        follow: see `Follow`.
    """
    from sklearn.linear_model import LogisticRegression

    directory = config.weights.directory()
    tokens = Tokens(directory, config.max_tokens)
    encoder = Encoder(directory).eval()
    frozen = vectors(encoder, tokens, train_rows[0])
    start = LogisticRegression(max_iter=1000).fit(frozen, train_rows[1])
    torch.manual_seed(train.seed)
    model = _assemble(config, encoder, len(labels))
    with torch.no_grad():  # two classes share one row of coefficients
        weight, bias = (torch.from_numpy(np.asarray(a, dtype=np.float32)) for a in (start.coef_, start.intercept_))
        model.head.weight.copy_(torch.cat([-weight, weight]) / 2 if len(weight) == 1 else weight)
        model.head.bias.copy_(torch.cat([-bias, bias]) / 2 if len(bias) == 1 else bias)

    def batches(rows: tuple[Sequence[str], Array]) -> tuple[int, Callable[[list[int]], dict[str, Tensor]]]:
        ids = tokens.ids(rows[0])
        wanted = torch.tensor(rows[1], dtype=torch.int64)

        def make(chosen: list[int]) -> dict[str, Tensor]:
            return {**tokens.batch([ids[i] for i in chosen]), "target": wanted[chosen]}

        return len(ids), make

    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    best, result = fit(model, batches(train_rows), batches(valid_rows), train, checkpoints, follow)
    assert isinstance(best, TextClassifier)
    for name, value in best.named_parameters():  # an average comes back with nothing marked
        value.requires_grad_(name in learning)
    return Classifier(best, tokens, labels), result


def _assemble(config: EncoderConfig, encoder: Encoder, labels: int) -> TextClassifier:
    model = TextClassifier(encoder, labels, config.dropout)
    model.encoder.body = config.strategy.apply(model.encoder.body)
    return model


def save_classifier(classifier: Classifier, config: EncoderConfig, directory: Path) -> dict[str, int]:
    """Write what was learned and where the rest comes from; returns how many parameters that is."""
    return save_fine_tuned(classifier.model, config, directory, {"labels": list(classifier.labels)})


def load_classifier(directory: Path) -> Classifier:
    """Open what `save_classifier` wrote.

    Raises:
        BundleError: files are missing or do not belong together.
        ConfigError: the pretrained model is not to be had.
    """
    config, facts, tensors = open_fine_tuned(directory)
    source, labels = config.weights.directory(), tuple(facts["labels"])
    if (directory / NETWORK).is_file():
        model = TextClassifier(ExportedEncoder(directory), len(labels), config.dropout)
        take_up(model, {name: value for name, value in tensors.items() if name.startswith("head.")})
    else:
        model = _assemble(config, Encoder(source), len(labels))
        take_up(model, tensors)
    return Classifier(model.eval(), Tokens(source, config.max_tokens), labels)
