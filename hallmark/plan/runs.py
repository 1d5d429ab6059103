"""Turn an experiment into the training runs that it would make, and trace a step of each."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hallmark.contracts import Clean, Prepared, no_progress
from hallmark.errors import ConfigError
from hallmark.learn.candidates import to_fit
from hallmark.learn.moving_average import EmaModel
from hallmark.learn.trainer import (
    EVAL_BATCH_FACTOR,
    FLOP_ROWS,
    Make,
    Run,
    TrainConfig,
    observed_runs,
    recompute_activations,
    training_arguments,
)
from hallmark.plan.fake import adapted, network_of, without_contents
from hallmark.plan.step import DataDependent, StepCost, trace_step

SAMPLED = 32  # batches of which the largest is traced


@dataclass(frozen=True)
class PlannedRun:
    """What one network of an experiment needs.

    Attributes:
        name: of the candidate; networks after the first of a candidate have a number.
        cost: of a step.
        steps: at most; early stopping may end sooner.
        evaluations: validation passes, at most.
        rows: examples of a validation pass.
        flop: floating-point operations of all steps and validation passes.
        config: training settings.
        begin: bytes that each process holds before the network is shared; 0 where it is not.
    """

    name: str
    cost: StepCost
    steps: int
    evaluations: int
    rows: int
    flop: float
    config: TrainConfig
    begin: int = 0


def prepare(built: Mapping[str, Any]) -> Prepared:
    """Load, clean and split the rows of an experiment, in memory."""
    task = built["task"]
    clean = task.clean(built["data"].load(no_progress))
    return Prepared(clean.rows, clean.subjects, task.split(Clean(clean.rows, clean.subjects, {})))


def runs_of(built: Mapping[str, Any], prepared: Prepared) -> dict[str, Run]:
    """Return the runs that an experiment would make, by name; candidates without a network have none.

    Everything before and between the runs is computed; only the runs are not made.
    """
    learner, train = built["learner"], built["train"]
    if not isinstance(train, TrainConfig):
        return {}
    examples = learner.examples(built["task"], prepared, train, no_progress)
    found: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="hallmark-plan-") as scratch:
        for name, candidate in to_fit(built["model"]["candidates"]).items():
            with observed_runs() as runs:
                learner.fit_one(examples, candidate, train, Path(scratch) / name, lambda *_: None)
            for place, run in enumerate(runs, 1):
                found[name if place == len(runs) else f"{name}, run {place}"] = run
    return found


def run_of_model(built: Mapping[str, Any], file: Path) -> Run:
    """Return the run that adapts a causal language model of which there is only the configuration file.

    Raises:
        ConfigError: the experiment adapts no language model, or no model can be built of the file.
    """
    candidate, train = built["model"]["candidates"][0], built["train"]
    length = getattr(candidate, "context_length", None)
    strategy = getattr(candidate, "strategy", None)
    if length is None or strategy is None:
        raise ConfigError("--model plans the adaptation of a causal language model: add -S experiment=text")
    from hallmark.families.language.causal_lm import CausalLm

    network = network_of(file, torch.float32)
    positions = getattr(network.config, "max_position_embeddings", None)
    if positions is not None and positions < length:
        raise ConfigError(
            f"model.candidates.0.context_length={length}: {file} has {positions} positions: "
            f"-S model.candidates.0.context_length={positions}"
        )
    body = adapted(strategy, network, file)

    def make(rows: list[int]) -> dict[str, Tensor]:
        ids = torch.zeros((len(rows), length), dtype=torch.int64)
        return {"input_ids": ids, "target": ids}

    return Run(CausalLm(body), (2**20, make), (0, make), train)


def trace(name: str, run: Run, autocast: torch.dtype | None = None, on_cpu: bool = True) -> PlannedRun:
    """Trace a step and a validation pass of a run; its network is not usable afterwards.

    Nothing is computed, unless the shapes depend on numbers: then two steps are.

    Args:
        name: of the run.
        run: what would be trained.
        autocast: type of automatic mixed precision; None for none.
        on_cpu: whether batches are made in the memory in which the network is.
    """
    config, rows = run.config, run.config.batch_size
    whole = sum(t.numel() * t.element_size() for t in (*run.model.parameters(), *run.model.buffers()))
    small = run.train[1](list(range(min(FLOP_ROWS, rows))))
    arguments = training_arguments(config, 1, Path("unused"))
    kind, settings = _optimizer(arguments)
    batch = _largest(run.train, rows, config.seed)
    valid = _largest(run.valid, EVAL_BATCH_FACTOR * rows, config.seed, in_order=True) if run.valid[0] else None

    def traced(network: nn.Module, compute: bool) -> tuple[StepCost, float]:
        """Return the cost of a step, and FLOP of a row without recomputation, by which the trainer counts its steps."""
        plain = copy.deepcopy(network)
        if config.gradient_checkpointing:
            recompute_activations(network)
        cost = trace_step(
            network,
            batch,
            lambda parameters: kind(parameters, **settings),
            valid=valid,
            accumulation=config.gradient_accumulation,
            autocast=autocast,
            clip=arguments.max_grad_norm,
            compute=compute,
            prefetched=on_cpu,
            wrap=lambda model: EmaModel(model, config.ema_decay),
            shards=config.processes * config.nodes if config.distributed == "fsdp2" else 1,
        )
        if config.distributed == "ddp":  # which keeps gradients a second time, in the buckets that it exchanges
            cost = of_copies(cost)
        if valid is None and not config.gradient_checkpointing:  # all batches are alike
            return cost, cost.flop / (rows * config.gradient_accumulation)
        return cost, _flop_of_row(plain, small, compute)

    try:
        cost, per_row = traced(copy.deepcopy(run.model), False)
    except DataDependent as error:
        if any(value.is_meta for value in run.model.parameters()):
            raise ConfigError(f"{name} cannot be planned without its weights: {error}") from error
        cost, per_row = traced(run.model, True)
    micro = rows * config.gradient_accumulation * config.processes * config.nodes
    steps = max(1, round(config.budget_tflop * 1e12 / max(per_row * micro, 1.0)))
    evaluations = -(-steps // min(config.evaluate_every, steps))
    validation = evaluations * run.valid[0] * per_row / 3  # a forward pass without the two of the backward
    step = cost.flop * config.processes * config.nodes  # with recomputation
    begin = whole if config.distributed == "fsdp2" else 0
    return PlannedRun(name, cost, steps, evaluations, run.valid[0], steps * step + validation, config, begin)


def of_copies(cost: StepCost) -> StepCost:
    """Return the cost where several processes hold the network each: gradients once more, to be exchanged."""
    return replace(cost, gradients=cost.gradients + 4 * cost.trainable)


def _flop_of_row(model: nn.Module, batch: Mapping[str, Tensor], compute: bool) -> float:
    """Count the floating-point operations of a row, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    mode: Any = None if compute else FakeTensorMode(allow_non_fake_inputs=True)
    if mode is not None:
        without_contents(model, mode)
    inputs = {name: value if mode is None else mode.from_tensor(value) for name, value in batch.items()}
    with mode or nullcontext(), FlopCounterMode(display=False) as counter:
        model.train()(**inputs)["loss"].backward()
    model.zero_grad()
    return float(counter.get_total_flops()) / len(next(iter(batch.values())))


def _optimizer(arguments: Any) -> tuple[Any, dict[str, Any]]:
    from transformers import Trainer

    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return kind, {**settings, "weight_decay": arguments.weight_decay}


def _largest(source: tuple[int, Make], rows: int, seed: int, in_order: bool = False) -> dict[str, Tensor]:
    """Return the largest of some batches: texts of a batch are padded to the longest of them."""
    count, make = source
    order: Sequence[int] = np.arange(count) if in_order else np.random.default_rng(seed).permutation(count)  # type: ignore[assignment]
    starts = range(0, max(1, count - rows + 1), rows)
    batches = (make([int(i) for i in order[start : start + rows]]) for start in list(starts)[:SAMPLED])
    return max(batches, key=lambda batch: sum(value.numel() for value in batch.values()))
