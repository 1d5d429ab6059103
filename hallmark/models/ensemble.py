"""Several bodies that answer together: each learns by its own loss, forecasts are their average."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hallmark.models.forecaster import BodyConfig, Shape


@dataclass(frozen=True)
class EnsembleConfig:
    """Which bodies.

    Attributes:
        members: at least two.
    """

    members: Sequence[BodyConfig]
    name: str = "ensemble"

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2:
            raise ValueError(f"members holds {len(self.members)} bodies, an ensemble needs at least 2")

    @property
    def lora_targets(self) -> str:
        """The members' layers, wherever they stand in the ensemble."""
        parts = (m.lora_targets.replace(r"body\.", rf"body\.members\.{i}\.", 1) for i, m in enumerate(self.members))
        return "|".join(f"({part})" for part in parts)

    def build(self, shape: Shape) -> nn.Module:
        """Make the body."""
        return Ensemble([member.build(shape) for member in self.members])


class Ensemble(nn.Module):
    """The body: its members side by side."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, recent: Tensor) -> Tensor:
        """(B, F) and (B, T) → (members, B, outputs)."""
        return torch.stack([member(x, recent) for member in self.members])
