"""PatchTST backbone (Hugging Face) on the recent window, joined with the tabular features.

Source: Nie et al. 2023, "A Time Series is Worth 64 Words", as implemented by transformers.
"""

import torch
from torch import Tensor, nn

from hallmark.build import Count, Share, configuration
from hallmark.families.forecasting.network import Shape


@configuration
class PatchTSTBodyConfig:
    """Sizes of the encoder.

    Attributes:
        patch_length: readings per patch.
        width: of the encoder.
        hidden: of its feed-forward layers.
        layers: of the encoder.
        heads: of its attention.
        joint: width of the layer that joins patches and inputs.
        dropout: everywhere.
    """

    patch_length: Count
    width: Count
    hidden: Count
    layers: Count
    heads: Count
    joint: Count
    dropout: Share
    name: str = "patchtst"
    lora_targets: str = r"body\.(encoder.*\.(q_proj|k_proj|v_proj|out_proj|ff\.0|ff\.3)|join|embed)"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")

    def build(self, shape: Shape) -> nn.Module:
        """Make the body."""
        return PatchTSTBody(self, shape)


class PatchTSTBody(nn.Module):
    """Encoder → flattened patches, joined with the embedded inputs, → head."""

    def __init__(self, config: PatchTSTBodyConfig, shape: Shape) -> None:
        super().__init__()
        from transformers import PatchTSTConfig, PatchTSTModel

        if shape.recent % config.patch_length:
            raise ValueError(f"recent_length={shape.recent} must be a multiple of patch_length={config.patch_length}")
        patches = shape.recent // config.patch_length
        encoder = PatchTSTConfig(
            num_input_channels=1,
            context_length=shape.recent,
            patch_length=config.patch_length,
            patch_stride=config.patch_length,
            d_model=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            ffn_dim=config.hidden,
            dropout=config.dropout,
            ff_dropout=config.dropout,
            attention_dropout=0.0,
            norm_type="layernorm",
            scaling=None,
            attn_implementation="sdpa",
        )
        self.encoder = PatchTSTModel(encoder)
        self.embed = nn.Linear(shape.inputs, config.joint)
        self.join = nn.Linear(patches * config.width + config.joint, config.joint)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.joint)
        self.head = nn.Linear(config.joint, shape.outputs)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, recent: Tensor) -> Tensor:
        """(B, F) and (B, T) → (B, outputs)."""
        patches = self.encoder(past_values=recent[..., None]).last_hidden_state.flatten(1)
        inputs = nn.functional.gelu(self.embed(x))
        h = self.join(torch.cat([patches, inputs], dim=1))
        out: Tensor = self.head(self.dropout(self.norm(nn.functional.gelu(h) + inputs)))
        return out
