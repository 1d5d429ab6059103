"""Networks that have shapes and no contents: of any size, in seconds, without their weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hallmark.errors import ConfigError
from hallmark.plan.four_bit import in_four_bits


def network_of(file: Path, dtype: torch.dtype) -> nn.Module:
    """Build a causal language model from its configuration file alone, on the `meta` device.

    Args:
        file: `config.json` of a model of the Hugging Face Hub.
        dtype: of the parameters.

    Raises:
        ConfigError: the file is missing, is no configuration of a causal language model, or the model needs code that
            is not part of transformers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        kind = values.pop("model_type")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{file} is no configuration of a model ({type(error).__name__}): give the config.json of a repository of "
            "the Hugging Face Hub; it names a model_type"
        ) from error
    if "auto_map" in values:
        raise ConfigError(f"{file}: {kind} needs code of its repository (auto_map), which is never run: not known")
    try:
        config = AutoConfig.for_model(kind, **values)
        config.use_cache = False
        with torch.device("meta"):
            network: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    except Exception as error:  # every architecture has its own errors
        raise ConfigError(
            f"{file}: no causal language model can be built of model_type {kind!r} without its weights: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return network


def adapted(strategy: Any, network: nn.Module, file: Path) -> nn.Module:
    """Return a network as a strategy adapts it; in four bits where the strategy says so.

    Raises:
        ConfigError: the network has none of the layers that the strategy names.
    """
    try:
        body: nn.Module = strategy.apply(network)
    except Exception as error:  # PEFT's own errors have no common class
        why = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{type(strategy).__name__} does not fit {file} ({why}): choose -S strategy@model.strategy=lora_all"
        ) from error
    return in_four_bits(body) if strategy.four_bit else body


@contextmanager
def fake_processes(count: int) -> Iterator[None]:
    """Be the first of so many processes that exchange nothing: collective operations have shapes and no contents.

    Raises:
        ConfigError: this process is one of several real ones.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise ConfigError("a plan for several processes is made by one alone: run `hallmark plan` without torchrun")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield
    finally:
        dist.destroy_process_group()


def without_contents(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Replace every parameter and buffer by a fake one on the CPU, in place; what was shared stays shared.

    Args:
        model: on any device, `meta` too.
        mode: of the fake tensors.
    """
    replaced: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in replaced:
            with mode:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                is_parameter = isinstance(tensor, nn.Parameter)
                new = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
            replaced[id(tensor)] = (new, tensor)  # the old one is kept, so that its id stays its own
        found: Tensor = replaced[id(tensor)][0]
        return found

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in list(tensors.items()):
                if value is not None:
                    tensors[name] = fake(value)  # type: ignore[assignment]
    return model
