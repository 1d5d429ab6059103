"""Ensemble backbone: stacks the outputs of trained members, which the Forecaster averages; copies their weights.

Averaging trained networks costs no training of its own: a member that is also a candidate is trained once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hallmark.build import configuration
from hallmark.families.forecasting.network import BackboneConfig, Forecaster, Shape


@configuration
class EnsembleConfig:
    """Configuration of an ensemble.

    Attributes:
        members: at least two networks.
        lora_members: positions of the members whose layers LoRA adapts; the others are the same for all subjects. The
            cost of training LoRA is that of these members.
    """

    members: Sequence[BackboneConfig]
    lora_members: Sequence[int]
    name: str = "ensemble"

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"members holds {len(self.members)} bodies, an ensemble needs at least 2")
        if not self.lora_members or not set(self.lora_members) <= set(range(len(self.members))):
            raise ValueError(f"lora_members={list(self.lora_members)} must name places of members, the first is 0")

    @property
    def lora_targets(self) -> str:
        """Regular expression of the adapted members' layers in the ensemble."""
        adapted = ((i, self.members[i].lora_targets) for i in self.lora_members)
        patterns = (targets.replace(r"body\.", rf"body\.members\.{i}\.", 1) for i, targets in adapted)
        return "|".join(f"({pattern})" for pattern in patterns)

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


@torch.no_grad()
def copy_members(ensemble: Forecaster, members: Sequence[Forecaster]) -> None:
    """Fill an untouched ensemble from trained forecasters of the same inputs, so that it forecasts their average.

    Skip and trust enter a forecast linearly: their averages give the average. The blend is not averaged: each member's
    was fitted to that member.
    """
    assert isinstance(ensemble.body, Ensemble)
    for name, buffer in ensemble.named_buffers():
        if "." not in name and name != "blend":  # scales and weights, which all members have alike
            buffer.copy_(members[0].get_buffer(name))
    for body, member in zip(ensemble.body.members, members, strict=True):
        body.load_state_dict(member.body.state_dict())
    for name, parameter in ensemble.named_parameters():
        if not name.startswith("body."):
            parameter.copy_(torch.stack([member.get_parameter(name) for member in members]).mean(0))
