"""Memory of serving a language model to several people, and what a thousand answers cost on machines with a price."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from hallmark.errors import ConfigError
from hallmark.files import read_json
from hallmark.plan.fake import adapted, network_of, without_contents
from hallmark.plan.live import LiveBytes
from hallmark.plan.plan import MARGIN, USABLE
from hallmark.plan.prices import Gpu, Price

SERVED = Path(".work/served.json")
"""What `python -m benchmarks.service_load` has measured on this machine."""
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ServingCost:
    """Memory of serving.

    Attributes:
        weights: bytes of the model, as it is held.
        adapter: bytes of one person's adapter.
        adapters: bytes of all that are held at once.
        cache: bytes of keys and values of all texts at their longest.
        work: bytes of everything else at the peak: reading all texts at once, then writing a token each.
    """

    weights: int
    adapter: int
    adapters: int
    cache: int
    work: int

    @property
    def peak(self) -> int:
        """Bytes in all."""
        return self.weights + self.adapters + self.cache + self.work


@dataclass(frozen=True)
class Replica:
    """A kind of machine that serves.

    Attributes:
        price: of the machine.
        gpu: its kind.
        fits: whether each of its GPUs holds a replica.
    """

    price: Price
    gpu: Gpu
    fits: bool


@dataclass(frozen=True)
class Load:
    """What the service carries on the machine where it was measured.

    Attributes:
        bundle: version and digest of what was served.
        machine: its CPU.
        clients: that asked at once.
        per_second: answers of one replica.
        p95_ms: of an answer.
    """

    bundle: str
    machine: str
    clients: int
    per_second: float
    p95_ms: float


def serving_cost(
    file: Path, strategy: Any, adapters: int, context: int, at_once: int, precision: str = "bf16"
) -> ServingCost:
    """Trace what serving holds, without weights.

    Args:
        file: `config.json` of a causal language model.
        strategy: how it is adapted to a person; see `hallmark.families.language.encoder.Strategy`.
        adapters: that are held at once.
        context: tokens of a text.
        at_once: texts at once.
        precision: `bf16` or `fp32`, of the weights.

    Raises:
        ConfigError: no model can be built of the file, or its positions are fewer than `context`.
    """
    if precision not in TYPES:
        raise ConfigError(f"--precision {precision}: known are {', '.join(TYPES)}")
    network: Any = network_of(file, TYPES[precision])
    network.config.use_cache = True
    positions = getattr(network.config, "max_position_embeddings", None)
    if positions is not None and positions < context:
        raise ConfigError(f"--context {context}: {file} has {positions} positions")
    frozen = {id(parameter) for parameter in network.parameters()}
    body = adapted(strategy, network, file)
    if hasattr(body, "prompt_encoder"):
        raise ConfigError("serving a learned prefix is not planned: choose -S strategy@model.strategy=lora_all")
    learned = [p for p in body.parameters() if p.requires_grad]
    if any(id(parameter) in frozen for parameter in learned):
        raise ConfigError("every person would have a whole model: choose -S strategy@model.strategy=lora_all")
    size = TYPES[precision].itemsize
    adapter = size * sum(parameter.numel() for parameter in learned)
    weights, cache, work = _traced(body, context, at_once, learned)
    return ServingCost(weights, adapter, adapter * adapters, cache, work)


@torch.no_grad()
def _traced(body: nn.Module, context: int, at_once: int, learned: Sequence[Tensor]) -> tuple[int, int, int]:
    """Return bytes of the weights without adapters, of the cache, and of the rest at the peak."""
    of_adapter = {name for name, parameter in body.named_parameters() if any(parameter is one for one in learned)}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    without_contents(body, mode)
    body.eval()
    with mode, LiveBytes() as counter:
        named = dict(body.named_parameters())
        counter.assign([*named.values(), *body.buffers()], "weights")
        ids = torch.zeros((at_once, context - 1), dtype=torch.int64)
        read = body(input_ids=ids, use_cache=True, logits_to_keep=1)
        wrote = body(input_ids=ids[:, -1:], past_key_values=read.past_key_values, use_cache=True)
        held = [tensor for tensor in tree_leaves(_tensors(wrote.past_key_values)) if isinstance(tensor, Tensor)]
        counter.assign(held, "activations")
        weights = counter.live["weights"] - sum(named[name].numel() * named[name].element_size() for name in of_adapter)
        cache = sum(tensor.untyped_storage().nbytes() for tensor in held)
        peak = counter.peak_bytes - counter.live["weights"]
    return weights, cache, max(0, peak - cache)


def _tensors(cache: Any) -> Any:
    """Return keys and values of a cache of transformers."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def replicas(
    cost: ServingCost, prices: Iterable[Price], gpus: Mapping[str, Gpu], precision: str = "bf16"
) -> list[Replica]:
    """Return every machine with one GPU that computes in a precision, the cheapest that holds a replica first."""
    needs = cost.peak * (1 + MARGIN) / 1e9
    able = [price for price in prices if price.gpus == 1 and (precision != "bf16" or gpus[price.gpu].bf16)]
    found = [Replica(price, gpus[price.gpu], needs <= USABLE * gpus[price.gpu].memory_gb) for price in able]
    return sorted(found, key=lambda replica: (not replica.fits, replica.price.usd_per_hour))


def read_load(p95_ms: float | None, file: Path = SERVED) -> Load:
    """Return the largest load that was measured here with an answer's p95 within a bound.

    Raises:
        ConfigError: nothing was measured here, or nothing within the bound.
    """
    remedy = "`python -m benchmarks.service_load --bundle BUNDLE` measures the service"
    if not file.is_file():
        raise ConfigError(f"{file} is not there: {remedy}")
    try:
        loads = [Load(**entry) for entry in read_json(file)]
        if not loads or not all(load.per_second > 0 for load in loads):
            raise ValueError("it has no load, or one without an answer")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{file} is damaged ({str(error)[:100]}): measure again, {remedy}") from error
    within = [load for load in loads if p95_ms is None or load.p95_ms <= p95_ms]
    if not within:
        best = min(load.p95_ms for load in loads)
        raise ConfigError(f"--p95 {p95_ms:g}: no measured load answers so fast; the fastest took {best:.1f} ms")
    return max(within, key=lambda load: load.per_second)


def per_thousand(load: Load, asked_per_second: float, usd_per_hour: float) -> tuple[int, float]:
    """Return the replicas that carry a load, and what a thousand answers cost, US dollars.

    Args:
        load: of one replica.
        asked_per_second: requests, day and night.
        usd_per_hour: of the machine of a replica.
    """
    count = max(1, math.ceil(asked_per_second / load.per_second))
    return count, 1000 * count * usd_per_hour / (3600 * asked_per_second)
