"""Pretrained text encoders: their weights, strategies of fine-tuning, and a classification head.

Legend of shapes: B texts, T tokens, D width, L labels.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hallmark.errors import BundleError, ConfigError
from hallmark.files import sha256

TOGETHER = 64  # texts of a batch where nothing depends on its bits


class Weights(Protocol):
    """Where a pretrained model comes from."""

    def directory(self) -> Path:
        """Return the directory of its files, after checking their digests."""

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed where it is served."""


def _check(directory: Path, digests: Mapping[str, str]) -> Path:
    for name, digest in digests.items():
        file = directory / name
        if not file.is_file():
            raise BundleError(f"{file} is missing: install the pretrained model again")
        if (found := sha256(file)) != digest:
            raise BundleError(f"{file} has sha256 {found[:12]}…, the configuration says {digest[:12]}…: not this model")
    return directory


@dataclass(frozen=True)
class PackagedWeights:
    """A pretrained model that a Python distribution carries; its code is never imported.

    Attributes:
        distribution: name and version, as `name==1.2.3`.
        module: the package it installs.
        folder: of the files within it.
        sha256: file → digest; every file that decides what the model computes.
    """

    distribution: str
    module: str
    folder: str
    sha256: Mapping[str, str]

    def directory(self) -> Path:
        """Return the directory; ConfigError if it is not installed, BundleError if it is another one."""
        name, _, version = self.distribution.partition("==")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"the pretrained model {name} is not installed: `pip install {self.distribution}`"
            ) from None
        if found != version:
            raise ConfigError(f"{name} {found} is installed, the configuration names {version}")
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"{self.distribution} installs no package {self.module!r}")
        return _check(Path(next(iter(spec.submodule_search_locations))) / self.folder, self.sha256)

    @property
    def requirements(self) -> Sequence[str]:
        """The distribution's name."""
        return (self.distribution.partition("==")[0],)


@dataclass(frozen=True)
class HubWeights:
    """A pretrained model of the Hugging Face hub, at a pinned revision.

    Attributes:
        repository: such as `sentence-transformers/all-MiniLM-L6-v2`.
        revision: a commit.
        sha256: file → digest; every file that decides what the model computes.
    """

    repository: str
    revision: str
    sha256: Mapping[str, str]

    def __post_init__(self) -> None:
        if len(self.revision) != 40 or not set(self.revision) <= set("0123456789abcdef"):
            raise ValueError(f"revision={self.revision!r} must be a whole commit, a branch may move")

    def directory(self) -> Path:
        """Return the local snapshot, fetched if there is a network; ConfigError if it is not to be had."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            offline = os.environ.get("HF_HUB_OFFLINE") == "1"
            files = list(self.sha256)
            found = snapshot_download(
                self.repository, revision=self.revision, allow_patterns=files, local_files_only=offline
            )
        except (LocalEntryNotFoundError, OSError) as error:
            raise ConfigError(
                f"{self.repository} at {self.revision[:12]} is neither in the cache nor to be fetched: "
                "set HF_HUB_OFFLINE=0 on a machine with a network, or choose a packaged model"
            ) from error
        return _check(Path(found), self.sha256)

    @property
    def requirements(self) -> Sequence[str]:
        """None: the files are fetched."""
        return ()


class Strategy(Protocol):
    """How much of a pretrained model learns."""

    def loading(self) -> Mapping[str, Any]:
        """How the pretrained model is to be loaded: arguments of transformers' `from_pretrained`."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with exactly those parameters trainable."""


class AsItIs:
    """A strategy that takes the pretrained model as it is."""

    def loading(self) -> Mapping[str, Any]:
        """Return no arguments."""
        return {}


@dataclass(frozen=True)
class Lora(AsItIs):
    """Low-rank factors beside linear layers, PEFT's.

    Attributes:
        rank: of the factors.
        alpha: numerator of their scale.
        dropout: of their inputs.
        targets: names of layers, as PEFT's `target_modules`; `all-linear` for all but the last.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | str

    def __post_init__(self) -> None:
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and add factors."""
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
        )
        model.requires_grad_(False)
        injected: nn.Module = inject_adapter_in_model(config, model)
        return injected


@dataclass(frozen=True)
class Full(AsItIs):
    """Everything learns."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Leave every parameter trainable."""
        return model.requires_grad_(True)


@dataclass(frozen=True)
class Frozen(AsItIs):
    """Nothing learns but what stands on top."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze every parameter."""
        return model.requires_grad_(False)


@dataclass(frozen=True)
class EncoderConfig:
    """A pretrained encoder that is made to fit a task.

    Attributes:
        name: among candidates.
        weights: where it comes from.
        strategy: how much of it learns.
        max_tokens: longest text that is read whole.
        dropout: before the head.
    """

    name: str
    weights: Weights
    strategy: Strategy
    max_tokens: int
    dropout: float

    @property
    def requirements(self) -> Sequence[str]:
        """What must be installed where it is served."""
        return self.weights.requirements


class Tokens:
    """A pretrained tokenizer."""

    def __init__(self, directory: Path, max_tokens: int) -> None:
        from transformers import AutoTokenizer

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self.directory = directory
        self.tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        self.max_tokens = max_tokens

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, special ones included, never cut."""
        found: list[list[int]] = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return found

    def batch(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Pad to the longest: input_ids and attention_mask, (B, T); what is longer than `max_tokens` is cut."""
        longest = min(max(map(len, ids)), self.max_tokens)
        tokens = torch.full((len(ids), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros((len(ids), longest), dtype=torch.int64)
        for row, text in enumerate(ids):
            kept = text[:longest]
            tokens[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = 1
        return {"input_ids": tokens, "attention_mask": mask}


class Encoder(nn.Module):
    """Texts → vectors: the mean over tokens of the last layer."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModel

        super().__init__()
        self.body = AutoModel.from_pretrained(str(directory), local_files_only=True, attn_implementation="sdpa")
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None  # the mean is taken here: it would be adapted and never used
        self.width = int(self.body.config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode, (B, T) → (B, D)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        pooled: Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return pooled


def by_length(encoder: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Encode a batch, (B, T) → (B, D), in passes of texts of about the same length.

    One long text would have every other padded to its own length: 32 sentences of job advertisements, about 600 tokens,
    become 4,096. Here padding adds a half to a text at most, so that what a step keeps for its gradients grows with
    the tokens that there are.
    """
    lengths = attention_mask.sum(dim=1)
    order = torch.argsort(lengths, stable=True)
    sizes: list[int] = lengths[order].tolist()
    starts = [0]
    for i, size in enumerate(sizes):
        if size > 1.5 * sizes[starts[-1]]:
            starts.append(i)
    found = []
    for start, end in zip(starts, [*starts[1:], len(sizes)], strict=True):
        rows, longest = order[start:end], sizes[end - 1]
        found.append(encoder(input_ids[rows, :longest], attention_mask[rows, :longest]))
    return torch.cat(found)[torch.argsort(order)]


@torch.no_grad()
def vectors(encoder: Encoder, tokens: Tokens, texts: Sequence[str]) -> npt.NDArray[Any]:
    """Encode many texts, (B, D) of length one; the shortest first, so that little is padded."""
    ids = tokens.ids(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = np.empty((len(ids), encoder.width), dtype=np.float32)
    for start in range(0, len(order), TOGETHER):
        part = order[start : start + TOGETHER]
        found[part] = torch.nn.functional.normalize(encoder(**tokens.batch([ids[i] for i in part])), dim=1).numpy()
    return found


class TextClassifier(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, encoder: Any, labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Classify: logits (B, L), and the cross-entropy if the targets (B,) are given."""
        vector = nn.functional.normalize(by_length(self.encoder, input_ids, attention_mask), dim=1)
        logits = self.head(self.dropout(vector))
        if target is None:
            return {"logits": logits}
        return {"logits": logits, "loss": nn.functional.cross_entropy(logits.float(), target)}


def learned(model: nn.Module) -> dict[str, Tensor]:
    """What training has changed: the trainable parameters, by name; the rest is the pretrained model's."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def take_up(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Put `learned` parameters back.

    Raises:
        BundleError: names or shapes are not those of this model.
    """
    own = dict(model.named_parameters())
    wanted = {name for name, value in own.items() if value.requires_grad}
    if odd := sorted(wanted ^ set(tensors)):
        raise BundleError(f"{odd[0]} is in the model or in the file alone: they do not belong together")
    with torch.no_grad():
        for name, value in tensors.items():
            if own[name].shape != value.shape:
                raise BundleError(f"{name} has shape {tuple(value.shape)}, the model takes {tuple(own[name].shape)}")
            own[name].copy_(value)


def merged(model: nn.Module) -> nn.Module:
    """Fold low-rank factors into their layers, for models that learn no more: a third less work a text."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.merge()
    return model
