"""Memory and floating-point operations of one training step, from the code that trains."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hallmark.learn.sharding import shard
from hallmark.plan.fake import fake_processes, without_contents
from hallmark.plan.four_bit import logical
from hallmark.plan.live import LiveBytes


class DataDependent(Exception):
    """Code whose shapes depend on the contents of a tensor: nothing can be traced without numbers."""


Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class StepCost:
    """What one training step takes.

    Attributes:
        weights: bytes of parameters and buffers, those of a moving average included.
        gradients: bytes of gradients at the peak.
        optimizer: bytes of the optimiser's state.
        activations: bytes of everything else at the peak.
        evaluation: peak bytes of a validation pass.
        parameters: number of parameters, a moving average excluded.
        trainable: of them, those that learn.
        flop: floating-point operations of the step, recomputation included.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    evaluation: int
    parameters: int
    trainable: int
    flop: int

    @property
    def peak(self) -> int:
        """Peak bytes of training."""
        return max(self.weights + self.gradients + self.optimizer + self.activations, self.evaluation)


def trace_step(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    optimizer: Optimizer,
    *,
    valid: Mapping[str, Tensor] | None = None,
    accumulation: int = 1,
    autocast: torch.dtype | None = None,
    clip: float | None = None,
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor] = lambda model, batch: model(**batch)["loss"],
    compute: bool = False,
    prefetched: bool = False,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
    shards: int = 1,
) -> StepCost:
    """Run two steps without computing a number, and read the memory of the second, when the optimiser has its state.

    The contents of `model` are lost; it stays fake.

    Args:
        model: the network.
        batch: of one micro-batch.
        optimizer: makes the optimiser of the trainable parameters.
        valid: batch of a validation pass; None for none.
        accumulation: micro-batches per step.
        autocast: type of automatic mixed precision; None for none.
        clip: norm to which gradients are clipped; None for none.
        loss: how a batch becomes a loss.
        compute: whether to compute the two steps after all, for code whose shapes depend on numbers.
        prefetched: whether the next batch is in the same memory already, as it is on a CPU.
        wrap: what is trained in the end, made of the network: such as with its moving average.
        shards: processes that share the parameters (FSDP2); the cost is that of one of them, the operations too.

    Raises:
        DataDependent: the code branches on the contents of a tensor, and `compute` is false.
    """
    if compute:
        return _two_steps(wrap(model), batch, valid, optimizer, accumulation, autocast, clip, loss, prefetched, None)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    without_contents(model, mode)
    fake = {name: mode.from_tensor(value) for name, value in batch.items()}
    fake_valid = None if valid is None else {name: mode.from_tensor(value) for name, value in valid.items()}
    del batch, valid
    try:
        with _unpacked(), fake_processes(shards) if shards > 1 else nullcontext():
            trained = wrap(shard(model) if shards > 1 else model)
            return _two_steps(
                trained, fake, fake_valid, optimizer, accumulation, autocast, clip, loss, prefetched, mode
            )
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise DataDependent(str(error)) from error


@contextmanager
def _unpacked() -> Iterator[None]:
    """Let transformers know that no row of a batch holds several texts; it would read that off the numbers.

    Otherwise it makes a mask for every layer that it leaves out when it computes.
    """
    from transformers import masking_utils

    asked = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = asked


def _two_steps(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    valid: Mapping[str, Tensor] | None,
    make_optimizer: Optimizer,
    accumulation: int,
    autocast: torch.dtype | None,
    clip: float | None,
    loss: Callable[[nn.Module, Mapping[str, Tensor]], Tensor],
    prefetched: bool,
    mode: Any,
) -> StepCost:
    named = dict(model.named_parameters())
    trainable = [value for value in named.values() if value.requires_grad]
    counter = LiveBytes()
    flops = FlopCounterMode(display=False)
    with ExitStack() as context:
        if mode is not None:
            context.enter_context(mode)
        context.enter_context(counter)
        counter.assign([*named.values(), *model.buffers()], "weights")
        counter.assign(batch.values(), "activations")
        ahead = [value.clone() for value in batch.values()] if prefetched else []
        for value in trainable:
            value.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda p: counter.assign([_gradient(p)], "gradients")
            )
        optimizer = make_optimizer(trainable)

        def micro_batch() -> None:
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                value = loss(model, batch)
            (value / accumulation if accumulation > 1 else value).backward()  # type: ignore[no-untyped-call]

        def finish() -> None:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(trainable, clip)
            optimizer.step()
            counter.assign(_state(optimizer), "optimizer")
            optimizer.zero_grad(set_to_none=True)

        model.train()
        with flops:
            micro_batch()
        finish()
        counter.begin_again()
        for _ in range(min(accumulation, 2)):  # the second one meets gradients of the first
            micro_batch()
        finish()
        peak, evaluation = counter.peak, 0
        if valid is not None:
            counter.release(batch.values())
            counter.assign(valid.values(), "activations")
            ahead = [value.clone() for value in valid.values()] if prefetched else []
            counter.begin_again()
            model.eval()
            with torch.no_grad(), torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                loss(model, valid)
            evaluation = counter.peak_bytes
    del ahead
    averaged = sum(value.numel() for name, value in named.items() if name.startswith("average."))
    return StepCost(
        weights=peak["weights"],
        gradients=peak["gradients"],
        optimizer=peak["optimizer"],
        activations=peak["activations"],
        evaluation=evaluation,
        parameters=sum(value.numel() for value in named.values()) - averaged + logical(model),
        trainable=sum(value.numel() for value in trainable),
        flop=int(flops.get_total_flops()) * accumulation,
    )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # the hook runs after it was accumulated
    return parameter.grad


def _state(optimizer: torch.optim.Optimizer) -> Iterable[Tensor]:
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
