"""Save and load LoRA adapters: one PEFT directory per subject, or one safetensors file for all.

A packed file is a safetensors file with one row per subject: the subject's factors one after the other in the order
of the layers' names, A before B; in memory a row has the order of its spec. Its metadata hold the spec, the subjects
and the sha256 of every row, so that a flipped bit in a row makes the adapter of one subject unusable and no other. The
digests hang in a hash tree (tree.py), whose root is kept elsewhere: whoever trusts the root trusts every row. Legend of
shapes: P subjects, F numbers of one adapter.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch
from torch import Tensor

from hallmark.adapters.bank import AdapterSpec, Factors
from hallmark.adapters.tree import HashTree, Proof, check_proof
from hallmark.arrays import Floats, Integers
from hallmark.errors import BundleError
from hallmark.files import read_json, sha256, write_json

PREFIX = "base_model.model."


class AdapterStore(Protocol):
    """Source of adapters; an adapter is read at its subject's first request."""

    def read(self, subject_id: str) -> Floats:
        """Read one adapter as a flat row, (F,).

        Raises:
            KeyError: the subject has no adapter.
            BundleError: the adapter must not be used; the message says why.
        """


def flatten(factors: Factors, spec: AdapterSpec) -> Floats:
    """Concatenate factors into one row, (F,).

    Raises:
        BundleError: other layers or shapes than the spec's, or numbers that are not finite.
    """
    if set(factors) != set(spec.shapes):
        wrong = sorted(set(factors) ^ set(spec.shapes))[0]
        raise BundleError(f"adapter and base differ in their target layers, first in {wrong!r}: train it on this base")
    blocks = []
    for name, (outputs, inputs) in spec.shapes.items():
        a, b = factors[name]
        if a.shape != (spec.rank, inputs) or b.shape != (outputs, spec.rank):
            raise BundleError(
                f"adapter has factors {tuple(a.shape)} and {tuple(b.shape)} for {name!r}: the base takes rank "
                f"{spec.rank}, {inputs} inputs and {outputs} outputs"
            )
        blocks += [a.reshape(-1), b.reshape(-1)]
    row: Floats = torch.cat(blocks).to(torch.float32).numpy()
    if not np.isfinite(row).all():
        raise BundleError("adapter holds numbers that are not finite")
    return row


def unflatten(row: Floats, spec: AdapterSpec) -> dict[str, tuple[Tensor, Tensor]]:
    """Return views of one row as factors."""
    flat, offset, factors = torch.from_numpy(row), 0, {}
    for name, (outputs, inputs) in spec.shapes.items():
        a = flat[offset : offset + spec.rank * inputs].view(spec.rank, inputs)
        offset += a.numel()
        factors[name] = (a, flat[offset : offset + spec.rank * outputs].view(outputs, spec.rank))
        offset += spec.rank * outputs
    return factors


def write_peft(factors: Factors, spec: AdapterSpec, directory: Path, targets: str) -> None:
    """Write one adapter in PEFT's format, so that `PeftModel.from_pretrained` reads it."""
    from peft import LoraConfig

    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.to(torch.float32).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.to(torch.float32).contiguous()
    save_torch(tensors, str(directory / "adapter_model.safetensors"), {"format": "pt"})
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=targets, bias="none", inference_mode=True)
    config.base_model_name_or_path = spec.base
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    write_json(directory / "adapter_config.json", plain)


def read_peft(directory: Path, spec: AdapterSpec, digest: str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Read a PEFT directory.

    Args:
        directory: with adapter_config.json and adapter_model.safetensors.
        spec: what the base takes.
        digest: sha256 that the directory must have.

    Raises:
        BundleError: missing, changed, truncated, or made for another base, rank or scale.
    """
    try:
        if not directory.is_dir():
            raise BundleError("adapter is missing")
        if digest is not None and sha256(directory) != digest:
            raise BundleError("adapter was changed after it was made (sha256)")
        config = read_json(directory / "adapter_config.json")
        tensors = load_file(str(directory / "adapter_model.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise BundleError(f"adapter cannot be read ({type(error).__name__})") from error
    base = config.get("base_model_name_or_path")
    if base and base != spec.base:
        raise BundleError(f"adapter was made for base {base[:12]}, this one is {spec.base[:12]}: train it on this base")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if (rank, alpha) != (spec.rank, spec.alpha):
        raise BundleError(f"adapter has rank {rank} and alpha {alpha}, this base takes {spec.rank} and {spec.alpha:g}")
    pairs: dict[str, list[Tensor]] = {}
    for key, tensor in sorted(tensors.items()):  # lora_A comes before lora_B
        pairs.setdefault(key.removeprefix(PREFIX).rsplit(".lora_", 1)[0], []).append(tensor)
    return {name: (pair[0], pair[-1]) for name, pair in pairs.items()}


@dataclass(frozen=True)
class PeftStore:
    """One PEFT directory per subject.

    Attributes:
        directories: subject_id → directory.
        digests: subject_id → sha256 of the directory.
        spec: what the base takes.
    """

    directories: Mapping[str, Path]
    digests: Mapping[str, str]
    spec: AdapterSpec

    def read(self, subject_id: str) -> Floats:
        """Read one adapter; see `AdapterStore.read`."""
        directory = self.directories[subject_id]
        return flatten(read_peft(directory, self.spec, self.digests.get(subject_id)), self.spec)


def write_packed(rows: Iterator[tuple[str, Floats]], count: int, spec: AdapterSpec, file: Path) -> str:
    """Write many adapters into one file; returns the root of their hash tree."""
    block = np.empty((count, spec.size), dtype=np.float32)
    subjects = []
    for i, (subject_id, row) in enumerate(rows):
        block[i] = by_name(row, spec)
        subjects.append(subject_id)
    if len(set(subjects)) != count:
        raise BundleError(f"{count - len(set(subjects))} subjects stand twice or are missing: ids must be unique")
    digests = [row_digest(row) for row in block]
    metadata = {"spec": spec.plain(), "subjects": subjects, "sha256": digests}
    file.parent.mkdir(parents=True, exist_ok=True)
    # One entry: safetensors writes several entries in any order, so the bytes would differ between runs.
    save_file({"factors": block}, str(file), {"hallmark": json.dumps(metadata, sort_keys=True)})
    return HashTree(dict(zip(subjects, digests, strict=True))).root


@dataclass(frozen=True)
class PackedStore:
    """Many adapters in one file.

    Attributes:
        file: written by `write_packed`.
        spec: what the base takes.
        root: of the hash tree that vouches for every adapter; None trusts the digests in the file itself.
    """

    file: Path
    spec: AdapterSpec
    root: str | None = None

    @property
    def _open(self) -> tuple[Any, dict[str, int], HashTree]:
        if isinstance(self._opened, BundleError):
            raise self._opened
        return self._opened

    @cached_property
    def _opened(self) -> tuple[Any, dict[str, int], HashTree] | BundleError:
        """Open the file once: what is wrong with it stays wrong, and every subject asks."""
        try:
            return self._read_header()
        except BundleError as error:
            return error
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            # The text of the error may hold a path, and the reason goes into answers.
            return BundleError(f"{self.file.name} cannot be read ({type(error).__name__}): pack it again")

    def _read_header(self) -> tuple[Any, dict[str, int], HashTree]:
        opened: Any = safe_open(str(self.file), framework="numpy")
        metadata = json.loads(opened.metadata()["hallmark"])
        rows = opened.get_slice("factors")
        packed, expected = metadata["spec"], self.spec.plain()
        for key in ("base", "rank", "alpha"):
            if packed[key] != expected[key]:
                raise BundleError(
                    f"{self.file.name} was packed for {key} {packed[key]}, this base takes {expected[key]}"
                )
        if packed["shapes"] != expected["shapes"]:
            raise BundleError(f"{self.file.name} was packed for other target layers than this base's")
        tree = HashTree(dict(zip(metadata["subjects"], metadata["sha256"], strict=True)))
        if self.root is not None and tree.root != self.root:
            raise BundleError(f"{self.file.name} holds other adapters than its bundle names (hash tree): pack it again")
        return rows, {s: i for i, s in enumerate(metadata["subjects"])}, tree

    @property
    def subjects(self) -> Sequence[str]:
        """Subjects whose adapters the file holds."""
        return list(self._open[1])

    def read(self, subject_id: str) -> Floats:
        """Read one adapter and prove that it hangs in the tree; see `AdapterStore.read`."""
        rows, positions, tree = self._open
        position = positions[subject_id]
        row: Floats = rows[position : position + 1][0]
        check_proof(self.root or tree.root, subject_id, row_digest(row), tree.prove(subject_id))
        if self._places is None:
            return row
        ordered = np.empty_like(row)
        ordered[self._places] = row
        return ordered

    @cached_property
    def _places(self) -> Integers | None:
        return _places_by_name(self.spec)

    def prove(self, subject_id: str) -> Proof:
        """Return what shows to whoever knows the root that an adapter is in the file."""
        return self._open[2].prove(subject_id)


def by_name(row: Floats, spec: AdapterSpec) -> Floats:
    """Return a row with the layers in the order of their names, (F,)."""
    places = _places_by_name(spec)
    return row if places is None else np.ascontiguousarray(row[places])


def _places_by_name(spec: AdapterSpec) -> Integers | None:
    """Return where in a row of the spec's order each number of a row by name is, (F,); None if the order is the same.

    A spec that was read from a file has its layers by name, one of a model in the order of its modules.
    """
    names = list(spec.shapes)
    if names == sorted(names):
        return None
    sizes = [spec.rank * (outputs + inputs) for outputs, inputs in spec.shapes.values()]
    starts = dict(zip(names, np.cumsum([0, *sizes[:-1]]), strict=True))
    length = dict(zip(names, sizes, strict=True))
    return np.concatenate([np.arange(starts[name], starts[name] + length[name]) for name in sorted(names)])


def row_digest(row: Floats) -> str:
    """Return the sha256 of one adapter's numbers, float32, (F,)."""
    return hashlib.sha256(np.ascontiguousarray(row).data).hexdigest()
