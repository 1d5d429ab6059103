"""Save and load fine-tuned parameters only; the configuration names the pretrained checkpoint of the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hallmark.build import build, dump
from hallmark.families.language.encoder import learned
from hallmark.files import as_bundle_error, read_json, write_json


def save_fine_tuned(model: nn.Module, config: object, directory: Path, facts: Mapping[str, Any]) -> dict[str, int]:
    """Write the fine-tuned parameters, the candidate's configuration and further facts; returns the parameter count."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in learned(model).items()}
    save_file(tensors, str(directory / "learned.safetensors"))
    write_json(directory / "spec.json", {"model": dump(config), **facts})
    return {"parameters": sum(value.numel() for value in tensors.values())}


def open_fine_tuned(directory: Path) -> tuple[Any, dict[str, Any], dict[str, Tensor]]:
    """Read what `save_fine_tuned` wrote.

    Returns:
        The candidate's configuration object, the facts, and the tensors by name.

    Raises:
        BundleError: files are missing or cannot be read.
    """
    with as_bundle_error(directory, "run `dvc repro train`"):
        facts = read_json(directory / "spec.json")
        return build(facts.pop("model"), "model"), facts, load_file(str(directory / "learned.safetensors"))
