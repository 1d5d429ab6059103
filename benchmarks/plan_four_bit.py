"""python -m benchmarks.plan_four_bit: planned memory of a step with weights in four bits, beside bitsandbytes.

Needs the extra `gpu`. On a CPU, bitsandbytes makes weights whole in another way than on a GPU; what is compared is what
is held: weights, gradients, optimiser; and the peak. Layers as in a language model, with LoRA on each.
"""

import argparse
import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hallmark import kernels
from hallmark.families.language.encoder import Lora
from hallmark.plan.four_bit import in_four_bits
from hallmark.plan.step import StepCost, trace_step


class Layers(nn.Module):
    """Linear layers with a nonlinearity after each, and a loss."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(layer for _ in range(count) for layer in (nn.Linear(width, width), nn.SiLU())))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the loss."""
        return {"loss": self.body(x).square().mean()}


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2048)
    options = parser.parse_args()
    lora = Lora(rank=16, alpha=32.0, dropout=0.0, targets=["0", *map(str, range(2, 2 * options.layers, 2))])
    batch = {"x": torch.zeros(options.rows, options.width)}
    plain = Layers(options.width, options.layers)
    planned = step(in_four_bits(lora.apply(copy.deepcopy(plain))), batch, False)
    layers = quantised(plain)
    scales = sum(scales_of(layer) for layer in layers.body if not isinstance(layer, nn.SiLU))
    real = step(lora.apply(layers), batch, True)
    real = replace(real, weights=real.weights + scales)  # which lie beside the parameters
    for name in ("weights", "gradients", "optimizer", "activations", "peak"):
        told, taken = getattr(planned, name) / 1e6, getattr(real, name) / 1e6
        apart = f"{told / taken - 1:+.1%}" if taken else ""
        print(f"{name:12} planned {told:8.2f} MB, bitsandbytes {taken:8.2f} MB {apart}")


def step(model: nn.Module, batch: dict[str, Tensor], compute: bool) -> StepCost:
    """Trace a step, or compute it."""
    return trace_step(model, batch, lambda p: torch.optim.AdamW(p, fused=True), compute=compute)


def scales_of(layer: Any) -> int:
    """Return the bytes of the scales of a layer of bitsandbytes."""
    state = layer.weight.quant_state
    found = [state.absmax, *([state.state2.absmax, state.state2.code] if state.nested else [])]
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


def quantised(model: nn.Module) -> nn.Module:
    """Return the model with bitsandbytes' layers."""
    import bitsandbytes

    for place, layer in enumerate(model.body):
        if isinstance(layer, nn.Linear):
            made = bitsandbytes.nn.Linear4bit(
                layer.in_features, layer.out_features, compute_dtype=torch.float32, quant_type="nf4"
            )
            made.load_state_dict(layer.state_dict())
            model.body[place] = made.to("cpu")
    return model


if __name__ == "__main__":
    main()
