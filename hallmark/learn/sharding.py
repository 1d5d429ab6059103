"""Shard parameters, gradients and optimiser state over the processes of a training run (FSDP2).

Source: Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023; the second interface is
`torch.distributed.fsdp.fully_shard`.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hallmark.errors import HallmarkError


def shard(model: nn.Module) -> nn.Module:
    """Shard every layer of a model over all processes, in place.

    Layers are the modules that transformers never splits over devices, such as the blocks of a language model; a model
    without such modules is one unit.

    Raises:
        HallmarkError: a parameter was left whole; every process would hold all of it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in list(_layers(model)):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if left := [name for name, value in model.named_parameters() if not hasattr(value, "full_tensor")]:
        raise HallmarkError(f"train.distributed=fsdp2: {left[0]} was not sharded: train this network with ddp")
    return model


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    yield from (part for part in model.modules() if type(part).__name__ in names)


def reshard(model: nn.Module) -> None:
    """Free the whole parameters that the last forward pass gathered."""
    for part in model.modules():
        free = getattr(part, "reshard", None)
        if free is not None:
            free()


def shape_of(model: nn.Module) -> nn.Module:
    """Copy a model without its parameters, which are on the `meta` device; buffers are copied."""
    empty: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def fill(shape: nn.Module, model: nn.Module) -> nn.Module:
    """Give a copy of `shape_of` the parameters of the model, on the CPU; sharded ones are gathered one by one."""
    pairs = zip(shape.named_parameters(), model.parameters(), strict=True)
    for (_, empty), value in pairs:
        full = nn.Parameter(whole(value).detach().cpu().clone(), requires_grad=value.requires_grad)
        torch.utils.swap_tensors(empty, full)  # type: ignore[no-untyped-call]  # wherever a shared parameter is used, it is the same one
    return shape


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor that a sharded one is a part of; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered


def distributed_like(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, sharded like another one; as it is if that is whole."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    return distribute_tensor(value.to(sharded.device), sharded.device_mesh, sharded.placements, src_data_rank=None)


def gather_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimiser's `state_dict` with whole tensors; all processes call it together."""
    state: dict[str, Any] = optimizer.state_dict()
    every = {
        key: {name: whole(value) if isinstance(value, Tensor) else value for name, value in values.items()}
        for key, values in state["state"].items()
    }
    return {**state, "state": every}


def shard_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Shard whole tensors of an optimiser's state like their parameters, after `load_state_dict`."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = distributed_like(whole(value), parameter)
