"""One subject's LoRA adapter, by PEFT: trained on the subject's own windows, kept in PEFT's format."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hallmark.models.forecaster import Forecaster
from hallmark.read.panel import Integers


@dataclass(frozen=True)
class LoraSettings:
    """How a LoRA adapter is trained.

    Attributes:
        rank: of its matrices.
        alpha: their scale.
        steps: of AdamW.
        batch_size: windows a step; a subject with fewer gets no adapter.
        learning_rate: constant.
        seed: of initial weights and batches.
    """

    rank: int
    alpha: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


def fit_lora(
    base: Forecaster,
    batch: Callable[[Integers], dict[str, torch.Tensor]],
    origins: Integers,
    settings: LoraSettings,
    directory: Path,
) -> Forecaster:
    """Train one subject's adapter and write it in PEFT's format.

    Args:
        base: stays as it is.
        batch: makes a batch with targets of some origins.
        origins: the subject's windows to learn from.
        settings: how.
        directory: where the adapter goes.

    Returns:
        The adapted forecaster.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=base.lora_targets, bias="none")
    model = get_peft_model(copy.deepcopy(base), config)
    model.train()
    forecaster = model.get_base_model()
    assert isinstance(forecaster, Forecaster)
    forecaster.history_dropout = forecaster.adapter_dropout = 0.0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)
    generator = np.random.default_rng(settings.seed)
    for _ in range(settings.steps):
        model(**batch(generator.choice(origins, settings.batch_size)))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(directory), safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's model card carries versions and dates
    return forecaster.eval()


def load_lora(forecaster: Forecaster, directory: Path) -> Forecaster:
    """Merge a PEFT adapter into a copy of the forecaster."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(copy.deepcopy(forecaster), str(directory)).merge_and_unload()
    assert isinstance(merged, Forecaster)
    return merged.eval()
