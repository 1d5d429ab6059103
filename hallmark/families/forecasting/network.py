"""Forecaster (nn.Module): adds skip and backbone residuals to given ridge forecasts; non-crossing quantiles.

mean = anchor + trust(maturity) × correction + skip(inputs) + body(inputs); quantiles are the mean plus
a median offset and cumulative positive spacings, so they never cross. The anchor is the population
ridge, the correction that of the subject's online ridge; `skip` starts at its own ridge solution. After training
the network's output is shrunk, and mixed with the subject's time-of-day mean, by two weights per horizon fitted on
valid (stacking: Breiman 1996, "Stacked Regressions"); a newcomer gets the network's output unchanged.
Legend of shapes: B windows, F inputs, P of them personal (the last ones), T recent readings, H horizons, Q quantiles;
the body's own outputs have the members of an ensemble in front.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes that depend on the data: inputs, personal inputs, recent readings, horizons, quantile levels."""

    inputs: int
    personal: int
    recent: int
    horizons: int
    quantile_levels: tuple[float, ...]

    def __post_init__(self) -> None:
        q = tuple(self.quantile_levels)
        object.__setattr__(self, "quantile_levels", q)
        if 0.5 not in q or list(q) != sorted(set(q)) or not (q[0] > 0 and q[-1] < 1):
            raise ValueError(f"quantile_levels must ascend within (0, 1) and hold 0.5, got {q}")

    @property
    def outputs(self) -> int:
        """Number of outputs of a body per window: a mean and all quantiles at every horizon."""
        return self.horizons * (1 + len(self.quantile_levels))


@runtime_checkable
class BackboneConfig(Protocol):
    """What `conf/model/*.yaml` builds: the component that differs between forecasters."""

    @property
    def name(self) -> str:
        """Name in reports."""

    @property
    def lora_targets(self) -> str:
        """Regular expression of the linear layers that LoRA adapts."""

    def build(self, shape: Shape) -> nn.Module:
        """Make the body: (x (B, F), recent (B, T)) → (B, shape.outputs), about zero at first.

        An ensemble gives (members, B, shape.outputs), whose forecasts are averaged.
        """


class Forecaster(nn.Module):
    """A body with its anchor, skip and loss.

    Args:
        body: made by a `BackboneConfig`.
        shape: sizes.
        lora_targets: regular expression of the layers that LoRA adapts.
        history_dropout: share of training windows that lose all personal inputs, so that newcomers get good forecasts.
        adapter_dropout: share that keep their statistics but lose the online ridge.
        pinball_weight: weight of the quantile loss beside the squared error.
    """

    horizon_scale: Tensor
    horizon_weight: Tensor
    x_mean: Tensor
    x_sd: Tensor
    adapter_columns: Tensor
    levels: Tensor
    gap_bias: Tensor
    blend: Tensor

    def __init__(
        self,
        body: nn.Module,
        shape: Shape,
        lora_targets: str,
        history_dropout: float,
        adapter_dropout: float,
        pinball_weight: float,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.lora_targets = lora_targets
        self.history_dropout, self.adapter_dropout, self.pinball_weight = (
            history_dropout,
            adapter_dropout,
            pinball_weight,
        )
        self.body = body
        self.skip = nn.Linear(shape.inputs, shape.horizons)
        self.trust = nn.Parameter(torch.zeros(2, shape.horizons))
        nn.init.zeros_(self.skip.weight)
        nn.init.zeros_(self.skip.bias)
        self.register_buffer("horizon_scale", torch.ones(shape.horizons))
        self.register_buffer("horizon_weight", torch.ones(shape.horizons))
        self.register_buffer("x_mean", torch.zeros(shape.inputs))
        self.register_buffer("x_sd", torch.ones(shape.inputs))
        self.register_buffer("adapter_columns", torch.zeros(shape.inputs))
        self.register_buffer("blend", torch.tensor([[1.0], [0.0]]).repeat(1, shape.horizons))
        self.register_buffer("levels", torch.tensor(shape.quantile_levels), persistent=False)
        self.median = shape.quantile_levels.index(0.5)
        # Spacings that make the untrained quantiles those of a normal distribution with the horizon's scale.
        normal = torch.special.ndtri(torch.tensor(shape.quantile_levels, dtype=torch.float64))
        gaps = torch.diff(normal).to(torch.float32)
        self.register_buffer("gap_bias", torch.log(torch.expm1(gaps)), persistent=False)

    def mask(self, known: Tensor, adapted: Tensor) -> tuple[Tensor, Tensor]:
        """Drop history at random while training; returns both masks, (B,) each."""
        if not self.training:
            return known, adapted * known
        uniform = torch.rand(2, len(known), device=known.device)
        known = known * (uniform[0] >= self.history_dropout)
        return known, adapted * known * (uniform[1] >= self.adapter_dropout)

    def forward(
        self,
        x: Tensor,
        recent: Tensor,
        anchor: Tensor,
        correction: Tensor,
        habit: Tensor,
        known: Tensor,
        adapted: Tensor,
        maturity: Tensor,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Forecast, and score when a target is given.

        Args:
            x: (B, F) inputs, the personal ones last.
            recent: (B, T) recent readings minus the last one, in units of the spread.
            anchor: (B, H) population forecast, in the value's unit.
            correction: (B, H) the online ridge's correction, same unit.
            habit: (B, H) the subject's mean at the horizons' times of day minus the anchor, same unit.
            known: (B,) 1 where the subject has a history.
            adapted: (B,) 1 where the subject's online ridge is in use.
            maturity: (B,) 0…1, how much history the online ridge was fitted on.
            target: (B, H) the real values, NaN where unknown.

        Returns:
            mean (B, H) and quantiles (B, H, Q) in the value's unit. With a target also loss, row_loss (B,) and
            row_weight (B,): the loss of any rows is the sum of their row_loss over the sum of their row_weight.
        """
        known, adapted = self.mask(known, adapted)
        z = self.standardise(x, known, adapted)
        out = self.body(z, recent).float().view(-1, x.shape[0], self.shape.horizons, 1 + len(self.levels))
        linear = self.trusted(correction, adapted, maturity) / self.horizon_scale
        network, usual = self.skip(z) + out[..., 0], habit / self.horizon_scale - linear
        known = known[:, None]
        step = linear + network * (1 + known * (self.blend[0] - 1)) + usual * known * self.blend[1]
        q = self._quantiles(step, out[..., 1:]).mean(0)
        step = step.mean(0)
        result = {
            "mean": anchor + step * self.horizon_scale,
            "quantiles": anchor[..., None] + q * self.horizon_scale[:, None],
        }
        if target is not None:
            losses, weights = self._losses(step, q, (target - anchor) / self.horizon_scale)
            result |= {"row_loss": losses, "row_weight": weights, "loss": losses.sum() / weights.sum().clamp_min(1.0)}
        return result

    def standardise(self, x: Tensor, known: Tensor, adapted: Tensor) -> Tensor:
        """Standardise the inputs and set the personal ones to 0 where they are dropped or absent, (B, F)."""
        z = ((x - self.x_mean) / self.x_sd).clamp(-8, 8)
        split = self.shape.inputs - self.shape.personal
        keep = torch.where(self.adapter_columns[split:] > 0, adapted[:, None], known[:, None])
        return torch.cat([z[:, :split], z[:, split:] * keep], dim=1)

    def trusted(self, correction: Tensor, adapted: Tensor, maturity: Tensor) -> Tensor:
        """Multiply the online ridge's correction by its trust, which depends on the maturity, (B, H)."""
        return (self.trust[0] + self.trust[1] * maturity[:, None]) * correction * adapted[:, None]

    def _quantiles(self, step: Tensor, raw: Tensor) -> Tensor:
        m = self.median
        middle = (step + raw[..., m])[..., None]
        gaps = nn.functional.softplus(torch.cat([raw[..., :m], raw[..., m + 1 :]], dim=-1) + self.gap_bias)
        below = middle - gaps[..., :m].flip(-1).cumsum(-1).flip(-1)
        return torch.cat([below, middle, middle + gaps[..., m:].cumsum(-1)], dim=-1)

    def _losses(self, step: Tensor, q: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        known = ~torch.isnan(y)
        y = torch.where(known, y, 0.0)
        weight = known * self.horizon_weight
        error = y[..., None] - q
        pinball = torch.maximum(self.levels * error, (self.levels - 1) * error).mean(-1)
        loss = (y - step) ** 2 + self.pinball_weight * pinball
        return (loss * weight).sum(dim=1), weight.sum(dim=1)
