"""python -m benchmarks.lora_memory: what the moving average of a LoRA run holds and stores, beside torch's own.

A language model with the shape of one billion parameters, fp32, LoRA on every linear layer. `AveragedModel` of torch
copies the whole model, as ours did before. Resident memory, and bytes of what a checkpoint stores.
"""

import argparse
import gc
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hallmark import kernels
from hallmark.families.language.encoder import Lora
from hallmark.learn.moving_average import EmaModel


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    options = parser.parse_args()
    model = language_model(options.layers)
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() * p.element_size() for p in model.parameters())
    print(f"{every / 4e9:.2f} billion parameters, {every / 1e6:,.0f} MB; {trainable / 1e6:,.1f} MB of them learn")
    for name, wrap in (("ours", lambda m: EmaModel(m, 0.99)), ("AveragedModel", whole)):
        before = resident()
        wrapped = wrap(model)
        held = resident() - before
        stored = size_of(wrapped.state_dict())
        print(f"{name:14} holds {held / 1e6:8,.1f} MB more, a checkpoint stores {stored / 1e6:8,.1f} MB", flush=True)
        print(f"{'':14} {held / trainable:.2f} and {stored / trainable:.2f} times what learns")
        del wrapped
        gc.collect()


def whole(model: nn.Module) -> nn.Module:
    """Average every weight, and checkpoint the model beside its average."""
    return nn.ModuleList([model, AveragedModel(model)])


def language_model(layers: int) -> nn.Module:
    """Return a model with random weights and LoRA on every linear layer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    model = empty.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            value.zero_()  # touched, so that memory is really held
    return Lora(rank=16, alpha=32.0, dropout=0.0, targets="all-linear").apply(model)


def size_of(state: Mapping[str, Any]) -> int:
    """Return the bytes of a checkpoint on disk."""
    stored, seen = dict[str, Tensor](), set[int]()
    for name, value in state.items():
        if isinstance(value, Tensor) and value.data_ptr() not in seen:  # tied weights are stored once
            seen.add(value.data_ptr())
            stored[name] = value.contiguous()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "checkpoint.safetensors"
        save_file(stored, file)
        return file.stat().st_size


def resident() -> int:
    """Return the resident memory of this process."""
    gc.collect()
    return psutil.Process().memory_info().rss


if __name__ == "__main__":
    main()
