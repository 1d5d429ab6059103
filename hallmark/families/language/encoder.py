"""Pretrained text encoders: their weights, strategies of fine-tuning, and a classification head.

Legend of shapes: B texts, T tokens, D width, L labels.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from hallmark.build import Count, Positive, Share, Tuple, configuration
from hallmark.errors import BundleError, ConfigError
from hallmark.files import sha256

ENCODE_BATCH_SIZE = 64  # texts of a batch where the last bits of the result do not matter


@runtime_checkable
class Weights(Protocol):
    """Source of a pretrained model's files."""

    def directory(self) -> Path:
        """Check the digests of the files and return their directory."""

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed to serve the model."""


def _check(directory: Path, digests: Mapping[str, str]) -> Path:
    for name, digest in digests.items():
        file = directory / name
        if not file.is_file():
            raise BundleError(f"{file} is missing: install the pretrained model again")
        if (actual := sha256(file)) != digest:
            raise BundleError(
                f"{file} has sha256 {actual[:12]}…, the configuration says {digest[:12]}…: not this model"
            )
    return directory


@configuration
class PackagedWeights:
    """A pretrained model whose files are in a Python distribution; its code is never imported.

    Attributes:
        distribution: name and version, as `name==1.2.3`.
        module: the package that the distribution installs.
        folder: directory of the files within the package.
        sha256: file → digest, for every file that affects the model's outputs.
    """

    distribution: str
    module: str
    folder: str
    sha256: Mapping[str, str]

    def directory(self) -> Path:
        """Check the digests of the files and return their directory.

        Raises:
            ConfigError: the distribution is not installed, or in another version.
            BundleError: a file is missing or has another digest.
        """
        name, _, version = self.distribution.partition("==")
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(
                f"the pretrained model {name} is not installed: `pip install {self.distribution}`"
            ) from None
        if installed != version:
            raise ConfigError(f"{name} {installed} is installed, the configuration names {version}")
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"{self.distribution} installs no package {self.module!r}")
        return _check(Path(next(iter(spec.submodule_search_locations))) / self.folder, self.sha256)

    @property
    def requirements(self) -> Sequence[str]:
        """Return the name of the distribution."""
        return (self.distribution.partition("==")[0],)


@configuration
class HubWeights:
    """A pretrained model of the Hugging Face Hub, at a pinned revision.

    Attributes:
        repository: such as `sentence-transformers/all-MiniLM-L6-v2`.
        revision: a whole commit hash.
        sha256: file → digest, for every file that affects the model's outputs.
    """

    repository: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    sha256: Mapping[str, str]

    def directory(self) -> Path:
        """Return the local snapshot, downloaded unless HF_HUB_OFFLINE=1, after checking its digests.

        Raises:
            ConfigError: the snapshot is neither cached nor can it be downloaded.
            BundleError: a file is missing or has another digest.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            offline = os.environ.get("HF_HUB_OFFLINE") == "1"
            files = list(self.sha256)
            snapshot = snapshot_download(
                self.repository, revision=self.revision, allow_patterns=files, local_files_only=offline
            )
        except (LocalEntryNotFoundError, OSError) as error:
            raise ConfigError(
                f"{self.repository} at {self.revision[:12]} is neither in the cache nor to be fetched: "
                "set HF_HUB_OFFLINE=0 on a machine with a network, or choose a packaged model"
            ) from error
        return _check(Path(snapshot), self.sha256)

    @property
    def requirements(self) -> Sequence[str]:
        """Return no distribution: the files are downloaded."""
        return ()


@runtime_checkable
class Strategy(Protocol):
    """Fine-tuning method: which parameters of a pretrained model are trainable.

    Attributes:
        four_bit: whether the linear layers of the pretrained model are held in four bits.
    """

    four_bit: ClassVar[bool]

    def loading(self) -> Mapping[str, Any]:
        """Return the arguments of transformers' `from_pretrained` that load the pretrained model."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Return the model with only the parameters of this method trainable."""


class DefaultLoading:
    """Base class of strategies that load the pretrained model without further arguments."""

    four_bit: ClassVar[bool] = False

    def loading(self) -> Mapping[str, Any]:
        """Return no arguments."""
        return {}


@configuration
class Lora(DefaultLoading):
    """LoRA: low-rank factors beside linear layers, by PEFT.

    Attributes:
        rank: rank of the factors.
        alpha: numerator of their scale, alpha / rank.
        dropout: dropout of their inputs.
        targets: names of layers, as PEFT's `target_modules`; `all-linear` for all but the last.
    """

    rank: Count
    alpha: Positive
    dropout: Share
    targets: Tuple[str] | str

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze the model and add low-rank factors."""
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


@configuration
class Full(DefaultLoading):
    """Full fine-tuning: every parameter is trainable."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Make every parameter trainable."""
        return model.requires_grad_(True)


@configuration
class Frozen(DefaultLoading):
    """Frozen encoder: only a head on top is trainable."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Freeze every parameter."""
        return model.requires_grad_(False)


@configuration
class EncoderConfig:
    """A pretrained encoder and how it is fine-tuned.

    Attributes:
        name: name among the candidates.
        weights: source of its files.
        strategy: which parameters are trainable.
        max_tokens: longer texts are truncated to so many tokens.
        dropout: dropout before the head.
    """

    name: str
    weights: Weights
    strategy: Strategy
    max_tokens: Count
    dropout: Share

    @property
    def requirements(self) -> Sequence[str]:
        """Distributions that must be installed to serve the model."""
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
        """Encode texts as token ids, with special tokens, without truncation."""
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return ids

    def batch(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Truncate to `max_tokens` and pad to the longest text: input_ids and attention_mask, (B, T)."""
        longest = min(max(map(len, ids)), self.max_tokens)
        tokens = torch.full((len(ids), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros((len(ids), longest), dtype=torch.int64)
        for row, text in enumerate(ids):
            kept = text[:longest]
            tokens[row, : len(kept)] = torch.tensor(kept)
            mask[row, : len(kept)] = 1
        return {"input_ids": tokens, "attention_mask": mask}


class Encoder(nn.Module):
    """Encode texts as the mean of the last hidden states over their tokens."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModel

        super().__init__()
        self.body = AutoModel.from_pretrained(str(directory), local_files_only=True, attn_implementation="sdpa")
        if getattr(self.body, "pooler", None) is not None:
            self.body.pooler = None  # `forward` takes the mean instead: the pooler would never be used
        self.width = int(self.body.config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts, (B, T) → (B, D)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        pooled: Tensor = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        return pooled


def encode_by_length(encoder: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Encode a batch, (B, T) → (B, D), in several forward passes over texts of similar length.

    In one pass, all texts would be padded to the longest: 32 sentences of job advertisements, about 600 tokens, become
    4,096. Grouped by length, a text grows by at most half, so that the memory for gradients depends on the real tokens.
    """
    lengths = attention_mask.sum(dim=1)
    order = torch.argsort(lengths, stable=True)
    sizes: list[int] = lengths[order].tolist()
    starts = [0]
    for i, size in enumerate(sizes):
        if size > 1.5 * sizes[starts[-1]]:
            starts.append(i)
    encoded = []
    for start, end in zip(starts, [*starts[1:], len(sizes)], strict=True):
        rows, longest = order[start:end], sizes[end - 1]
        encoded.append(encoder(input_ids[rows, :longest], attention_mask[rows, :longest]))
    return torch.cat(encoded)[torch.argsort(order)]


@torch.no_grad()
def vectors(encoder: Encoder, tokens: Tokens, texts: Sequence[str]) -> npt.NDArray[Any]:
    """Encode many texts as vectors of length one, (B, D); sorted by length, so that padding is short."""
    ids = tokens.ids(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    encoded = np.empty((len(ids), encoder.width), dtype=np.float32)
    for start in range(0, len(order), ENCODE_BATCH_SIZE):
        batch = order[start : start + ENCODE_BATCH_SIZE]
        encoded[batch] = torch.nn.functional.normalize(encoder(**tokens.batch([ids[i] for i in batch])), dim=1).numpy()
    return encoded


class TextClassifier(nn.Module):
    """An encoder with a linear head."""

    def __init__(self, encoder: Any, labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Return `logits`, (B, L), and the cross-entropy `loss` if the targets (B,) are given."""
        vector = nn.functional.normalize(encode_by_length(self.encoder, input_ids, attention_mask), dim=1)
        logits = self.head(self.dropout(vector))
        if target is None:
            return {"logits": logits}
        return {"logits": logits, "loss": nn.functional.cross_entropy(logits.float(), target)}


def learned(model: nn.Module) -> dict[str, Tensor]:
    """Copy the trainable parameters, by name; all others are those of the pretrained model."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def load_weights(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Load parameters that `learned` returned.

    Raises:
        BundleError: names or shapes differ from those of the model's trainable parameters.
    """
    named = dict(model.named_parameters())
    trainable = {name for name, value in named.items() if value.requires_grad}
    if mismatched := sorted(trainable ^ set(tensors)):
        raise BundleError(f"{mismatched[0]} is in the model or in the file alone: they do not belong together")
    with torch.no_grad():
        for name, value in tensors.items():
            if named[name].shape != value.shape:
                raise BundleError(f"{name} has shape {tuple(value.shape)}, the model takes {tuple(named[name].shape)}")
            named[name].copy_(value)


def merge_lora(model: nn.Module) -> nn.Module:
    """Merge low-rank factors into their layers for inference: a third less computation per text."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.merge()
    return model
