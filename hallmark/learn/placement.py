"""Place networks of a served model on a device: inputs are taken there, outputs come back to the CPU."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.errors import ConfigError
from hallmark.learn.export import Exported


def place(network: nn.Module, device: str) -> None:
    """Move a network; whoever calls it goes on to give and to get tensors on the CPU.

    Args:
        network: a module, or one in ONNX, which goes there if onnxruntime has the provider for CUDA.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: torch or onnxruntime here knows no CUDA device.
    """
    if device == "cpu":
        return
    if isinstance(network, Exported):
        network.use_cuda()
        return
    if not torch.cuda.is_available():
        raise ConfigError(f"device={device}: torch {torch.__version__} sees no CUDA device here: choose cpu")
    attach(network.to(device), torch.device(device))


def attach(network: nn.Module, device: torch.device) -> None:
    """Take the inputs of a network to a device and its outputs to the CPU; copies of the network do the same."""
    network.register_forward_pre_hook(partial(_take, device), with_kwargs=True)
    network.register_forward_hook(_bring_back)


def _take(device: torch.device, network: nn.Module, args: Any, kwargs: Any) -> Any:
    return _moved(args, device), _moved(kwargs, device)


def _bring_back(network: nn.Module, args: Any, output: Any) -> Any:
    return _moved(output, torch.device("cpu"))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return tuple(_moved(item, device) for item in value) if isinstance(value, tuple) else value
