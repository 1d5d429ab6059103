"""Residual MLP backbone of the forecaster (LayerNorm, GELU, skip connections)."""

from torch import Tensor, nn

from hallmark.build import Count, Share, configuration
from hallmark.families.forecasting.network import Shape


@configuration
class ResidualMLPConfig:
    """Sizes of the residual MLP.

    Attributes:
        width: of the residual stream.
        hidden: of each block.
        blocks: how many.
        dropout: within blocks.
        input_dropout: on the inputs.
    """

    width: Count
    hidden: Count
    blocks: Count
    dropout: Share
    input_dropout: Share
    name: str = "residual_mlp"
    lora_targets: str = r"body\.(embed|blocks\.\d+\.(up|down))"

    def build(self, shape: Shape) -> nn.Module:
        """Make the body."""
        return ResidualMLP(self, shape)


class Block(nn.Module):
    """LayerNorm → GELU layer → back, added to the stream."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        """(B, width) → (B, width)."""
        out: Tensor = h + self.dropout(self.down(nn.functional.gelu(self.up(self.norm(h)))))
        return out


class ResidualMLP(nn.Module):
    """The body: embed, blocks, head; the head starts near zero, so first forecasts are close to the anchor."""

    def __init__(self, config: ResidualMLPConfig, shape: Shape) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.input_dropout)
        self.embed = nn.Linear(shape.inputs, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.hidden, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, shape.outputs)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, recent: Tensor) -> Tensor:
        """(B, F) → (B, outputs); the recent window is already among the inputs."""
        h = self.embed(self.drop(x))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm(h))
        return out
