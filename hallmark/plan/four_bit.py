"""Linear layers in four bits, as a plan sees them: their bytes and the work of a step, without numbers.

What bitsandbytes' NF4 layers with double quantisation hold and do: a byte for two weights, a byte for the scale of 64,
four bytes for 256 of such scales; forward and backward pass each make the weights whole for as long as they multiply.

Source: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, 2023; bitsandbytes 0.50, `MatMul4Bit`.
"""

from typing import Any

import torch
from torch import Tensor, nn

BLOCK, BLOCKS = 64, 256  # weights of a scale, scales of a scale of scales
HEAD = "lm_head"  # transformers leaves the output layer as it is


class _Product(torch.autograd.Function):
    """Inputs (…, in) times weights (out, in) that are held in four bits."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.packed, ctx.shape, ctx.kind = packed, shape, inputs.dtype
        return inputs @ _whole(packed, shape, inputs.dtype).t()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] @ _whole(ctx.packed, ctx.shape, ctx.kind), None, None


def _whole(packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    scales = packed.new_empty(shape[0] * shape[1] // BLOCK, dtype=torch.float32)  # made whole first
    weight = packed.new_empty(shape, dtype=dtype)
    del scales
    return weight


class FourBit(nn.Module):
    """A frozen linear layer whose weights are held in four bits.

    Args:
        layer: whose shapes it has.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features, self.logical = layer.in_features, layer.out_features, layer.weight.numel()
        count, device = self.logical, layer.weight.device
        self.register_buffer("packed", torch.empty(-(-count // 2), dtype=torch.uint8, device=device))
        self.register_buffer("scales", torch.empty(-(-count // BLOCK), dtype=torch.uint8, device=device))
        self.register_buffer("second", torch.empty(-(-count // (BLOCK * BLOCKS)), device=device))
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply, (…, in) → (…, out), in the type of automatic mixed precision where there is one."""
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
        with torch.autocast("cpu", enabled=False):
            shape = (self.out_features, self.in_features)
            found: Tensor = _Product.apply(inputs.to(kind), self.packed, shape)  # type: ignore[no-untyped-call]
        return (found if self.bias is None else found + self.bias.to(kind)).to(inputs.dtype)


def in_four_bits(model: nn.Module) -> nn.Module:
    """Replace every frozen linear layer but the output layer, in place, adapters' base layers too."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and not child.weight.requires_grad and HEAD not in name:
                setattr(module, name, FourBit(child))
    return model


def logical(model: nn.Module) -> int:
    """Return how many weights are held in four bits."""
    return sum(module.logical for module in model.modules() if isinstance(module, FourBit))
