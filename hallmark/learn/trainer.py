"""Train a torch model with Hugging Face Trainer: FLOP budget, EMA weights, early stopping, exact resume.

Determinism: batches depend only on the seed and the step, dropout on torch's generator, whose state is in the
checkpoint; so a run that was killed and resumed ends with the same bytes as one that was not.
"""

import logging
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils import deterministic
from torch.utils.data import Dataset

from hallmark.build import Count, NotNegative, Positive, Share, configuration
from hallmark.contracts import Follow, TrainResult
from hallmark.errors import ConfigError, MemoryExhausted
from hallmark.files import read_json
from hallmark.learn.memory import is_out_of_memory, memory_now, release_memory
from hallmark.learn.moving_average import EmaModel
from hallmark.learn.precision import Precision, resolve
from hallmark.learn.processes import device, rank, world
from hallmark.learn.sharding import fill, gather_optimizer, shape_of, shard, shard_optimizer
from hallmark.learn.spent import spending

EVAL_BATCH_FACTOR = 4  # validation has no gradients, but must not need more memory than training
FLOP_ROWS = 8  # the cost is proportional to the rows
Make = Callable[[list[int]], dict[str, Tensor]]
"""Makes a batch of the indices of its examples."""
log = logging.getLogger(__name__)


@configuration
class TrainConfig:
    """Settings of training a torch model.

    Attributes:
        budget_tflop: floating point operations (10¹²) that training may cost, the same for every candidate.
        batch_size: windows (or texts) per batch and device.
        learning_rate: peak of the cosine schedule.
        weight_decay: weight decay of AdamW.
        warmup_share: share of the steps in which the learning rate rises.
        ema_decay: decay of the exponential moving average of the weights; the averaged weights are the result.
        evaluate_every: steps between two validation passes.
        patience: validation passes without improvement before training stops.
        seed: seed of initial weights, batches and dropout.
        threads: CPU threads; another number may change the last bits of the result.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 on a GPU that supports it, else fp32.
        compile: whether to use torch.compile.
        gradient_accumulation: batches per step.
        gradient_checkpointing: whether the backward pass computes activations again instead of keeping them.
        on_oom: when memory is exhausted: `raise`, or `shrink`: halve the batch, double the accumulation, and go on.
        distributed: `none`; `ddp`: every process holds the model; `fsdp2`: they share its parameters, gradients and
            optimiser state.
        processes: of each node, each with its own batch.
        nodes: machines, on each of which the same command runs; HALLMARK_RENDEZVOUS=host:port names one of them.
        restarts: how often all processes begin again from the last checkpoint after one of them has died.
        n_jobs: networks that are trained at the same time, each in its own process; results do not depend on it.
    """

    budget_tflop: Positive
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_share: Share
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    evaluate_every: Count
    patience: Count
    seed: int
    threads: Count
    precision: Precision
    compile: bool
    gradient_accumulation: Count
    gradient_checkpointing: bool
    on_oom: Literal["raise", "shrink"]
    distributed: Literal["none", "ddp", "fsdp2"]
    processes: Count
    nodes: Count
    restarts: Annotated[int, Field(ge=0)]
    n_jobs: Count

    def __post_init__(self) -> None:
        if (self.processes * self.nodes > 1) != (self.distributed != "none"):
            raise ValueError(
                f"distributed={self.distributed} with processes={self.processes} and nodes={self.nodes}: "
                "ddp and fsdp2 need several processes, and several processes need one of them"
            )
        if self.on_oom == "shrink" and self.distributed != "none":
            raise ValueError(
                f"on_oom=shrink with distributed={self.distributed}: the batch of one process is halved alone"
            )


@dataclass(frozen=True)
class Run:
    """A training run as `fit` would make it.

    Attributes:
        model: the network.
        train: number of examples, and what makes a batch of them.
        valid: the same for early stopping.
        config: training settings.
    """

    model: nn.Module
    train: tuple[int, Make]
    valid: tuple[int, Make]
    config: TrainConfig


_OBSERVER: ContextVar[list[Run] | None] = ContextVar("observer", default=None)


@contextmanager
def observed_runs() -> Iterator[list[Run]]:
    """Collect the runs that `fit` is asked for inside the block, instead of making them."""
    runs: list[Run] = []
    token = _OBSERVER.set(runs)
    try:
        yield runs
    finally:
        _OBSERVER.reset(token)


class _Indices(Dataset[int]):
    """A dataset of row indices: the collate function makes a batch of a list of them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def seed_everything(seed: int, threads: int) -> None:
    """Seed all random generators and set the thread count of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002, transformers uses the legacy generator
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # would write every new tensor twice


def flop_per_row(model: nn.Module, make: Make, rows: int) -> float:
    """Count the floating-point operations of a forward and backward pass of a row; moves the model to its device."""
    from torch.utils.flop_counter import FlopCounterMode

    there = device()
    batch = {name: tensor.to(there) for name, tensor in make(list(range(rows))).items()}
    with FlopCounterMode(display=False) as counter:
        model.to(there)(**batch)["loss"].backward()
    model.zero_grad()
    return float(counter.get_total_flops()) / rows


def steps_within(config: TrainConfig, flop_of_row: float) -> int:
    """Return the number of steps within the FLOP budget."""
    rows_per_step = config.batch_size * config.gradient_accumulation * world()
    return max(1, round(config.budget_tflop * 1e12 / max(flop_of_row * rows_per_step, 1.0)))


def fit(
    model: nn.Module,
    train: tuple[int, Make],
    valid: tuple[int, Make],
    config: TrainConfig,
    checkpoints: Path,
    progress: Follow | None = None,
) -> tuple[nn.Module, TrainResult]:
    """Train a model and return its best averaged weights.

    Inside `observed_runs`, nothing is trained: what would be is told to the observer.

    Args:
        model: `forward(**batch)` returns a dict with `loss`.
        train: number of examples, and a function that makes a batch of a list of their indices.
        valid: the same for early stopping.
        config: training settings.
        checkpoints: directory of this run alone; training resumes from a checkpoint in it.
        progress: called with (step, steps, latest loss on valid).

    Returns:
        The averaged weights of the lowest loss on valid, on the CPU and in evaluation mode; and the training record.

    Raises:
        MemoryExhausted: a step does not fit; the message has the numbers and what to set.
    """
    if (observer := _OBSERVER.get()) is not None:
        observer.append(Run(model, train, valid, config))
        return model.eval(), TrainResult(math.nan, 0, 0, ())
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    resumed = checkpoints.is_dir()
    with spending() as spent:
        seed_everything(config.seed, config.threads)
        trained, history, made, per_row, config = _fit_in_memory(model, train, valid, config, checkpoints, progress)
        cost = spent(
            flop=made * per_row * config.batch_size * config.gradient_accumulation,
            steps=made,
            resumed=resumed,
            batch_size=config.batch_size,
            gradient_accumulation=config.gradient_accumulation,
            parameters=sum(size for size, _ in sizes),
            trainable=sum(size for size, learns in sizes if learns),
        )
    curve = tuple((e["step"], e["eval_loss"]) for e in history if "eval_loss" in e)
    best_step, best_loss = min(curve, key=lambda point: point[1])
    return trained, TrainResult(best_loss, best_step, made, curve, cost)


def _fit_in_memory(
    model: nn.Module,
    train: tuple[int, Make],
    valid: tuple[int, Make],
    config: TrainConfig,
    checkpoints: Path,
    progress: Follow | None,
) -> tuple[nn.Module, list[dict[str, Any]], int, float, TrainConfig]:
    """Train; where memory is exhausted and `on_oom` allows it, with half the batch and twice the accumulation."""
    shrinks = config.on_oom == "shrink"
    learns = {name: value for name, value in model.named_parameters() if value.requires_grad} if shrinks else {}
    first = {name: value.detach().cpu().clone() for name, value in learns.items()}
    per_row: float | None = None
    while True:
        try:
            if per_row is None:  # counted once: texts of fewer rows are padded to another length
                per_row = flop_per_row(model, train[1], min(FLOP_ROWS, config.batch_size))
            steps = steps_within(config, per_row)
            return *_fit(model, train, valid, config, steps, checkpoints, progress), per_row, config
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not shrinks or config.batch_size % 2:
                raise MemoryExhausted(_advice(config)) from error
        config = replace(
            config, batch_size=config.batch_size // 2, gradient_accumulation=2 * config.gradient_accumulation
        )
        log.warning(
            "memory is exhausted: train.batch_size=%d and train.gradient_accumulation=%d from here on",
            config.batch_size,
            config.gradient_accumulation,
        )
        model.zero_grad()
        release_memory()
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in first:
                    value.copy_(first[name])


def _advice(config: TrainConfig) -> str:
    smaller = max(1, config.batch_size // 2)
    return (
        f"memory is exhausted in a step of train.batch_size={config.batch_size} ({memory_now()}): set "
        f"-S train.batch_size={smaller} -S train.gradient_accumulation={2 * config.gradient_accumulation}, or "
        "-S train.gradient_checkpointing=true; in one process, -S train.on_oom=shrink halves the batch by itself, and "
        "`hallmark plan` says what fits"
    )


def training_arguments(config: TrainConfig, steps: int, checkpoints: Path) -> Any:
    """Return the arguments of transformers' Trainer."""
    from transformers import TrainingArguments

    evaluate_every = min(config.evaluate_every, steps)
    return TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=EVAL_BATCH_FACTOR * config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, int(config.warmup_share * steps)),
        lr_scheduler_type="cosine",
        eval_strategy="steps",
        eval_steps=evaluate_every,
        save_strategy="steps",
        save_steps=evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        bf16=resolve(config.precision) == "bf16",
        torch_compile=config.compile,
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["target"],
        prediction_loss_only=True,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        save_only_model=False,
        ddp_find_unused_parameters=False,
        full_determinism=False,
    )


def recompute_activations(model: nn.Module) -> None:
    """Let the layers of a transformer compute their activations again in the backward pass.

    Raises:
        ConfigError: the network has no such layers.
    """
    part: Any
    for part in model.modules():
        if getattr(part, "supports_gradient_checkpointing", False):
            part.activation_checkpointing_enable({"use_reentrant": False})
            return
    raise ConfigError(
        "train.gradient_checkpointing=true: this network has no layers that compute their activations again: "
        "set it to false"
    )


def _fit(
    model: nn.Module,
    train: tuple[int, Make],
    valid: tuple[int, Make],
    config: TrainConfig,
    steps: int,
    checkpoints: Path,
    progress: Follow | None,
) -> tuple[nn.Module, list[dict[str, Any]], int]:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    args = training_arguments(config, steps, checkpoints)
    if world() > 1:
        _ = args.device  # starts the process group
        check_shared(checkpoints)
    if rank() == 0:
        remove_incomplete(checkpoints)
    if world() > 1:
        torch.distributed.barrier()
    sharded = config.distributed == "fsdp2" and world() > 1
    if config.gradient_checkpointing:
        recompute_activations(model)
    shape = None
    if sharded:
        model.to(args.device)  # which starts the process group
        shape = shape_of(model)
        shard(model)
    averaged = EmaModel(model, config.ema_decay)
    batches = {"train": train[1], "valid": valid[1]}

    class Averaging(TrainerCallback):  # type: ignore[misc]
        """Update the average after every step, report progress, and stop when the loss on valid stops improving."""

        def __init__(self) -> None:
            self.latest = float("nan")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            averaged.update()
            if progress is not None:
                progress(state.global_step, state.max_steps, self.latest)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            self.latest = metrics["eval_loss"]
            if _evaluations_since_best(state.log_history) >= config.patience:
                control.should_training_stop = True

    class SplitTrainer(Trainer):  # type: ignore[misc]
        """Trainer with separate collate functions for train and valid, and with parameters that may be sharded."""

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            self.data_collator = batches["valid"]
            return super().get_eval_dataloader(eval_dataset)

        def get_train_dataloader(self) -> Any:
            self.data_collator = batches["train"]
            return super().get_train_dataloader()

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            if sharded:  # DDP would wrap the shards as if they were whole
                self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if not sharded:
                super().save_model(output_dir, _internal_call)
                return
            self._save(output_dir, state_dict=self.model.state_dict())  # gathered by all, written by the first

        def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
            if not sharded:
                super()._save_optimizer_and_scheduler(output_dir)
                return
            state = gather_optimizer(self.optimizer)
            if self.args.should_save:
                torch.save(state, Path(output_dir) / "optimizer.pt")
                torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if sharded and checkpoint is not None:
                shard_optimizer(self.optimizer)

    trainer = SplitTrainer(
        model=averaged,
        args=args,
        train_dataset=_Indices(train[0]),
        eval_dataset=_Indices(valid[0]),
        data_collator=batches["train"],
        callbacks=[Averaging()],
    )
    trainer.remove_callback(_printer())
    torch.set_num_threads(config.threads)
    last_checkpoint = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last_checkpoint is not None and (finished := _finished(Path(last_checkpoint), steps, config.patience)):
        best, history, steps_made = finished  # killed after its last step: one more would change the result
        averaged.load_state_dict(load_file(str(best / "model.safetensors")))
    else:
        trainer.train(resume_from_checkpoint=last_checkpoint)
        history, steps_made = trainer.state.log_history, trainer.state.global_step
    result = averaged.averaged()
    return (result if shape is None else fill(shape, result)).cpu().eval(), history, steps_made


def check_shared(directory: Path) -> None:
    """Check that all processes see one directory; each decides by its files where to go on.

    Raises:
        ConfigError: a process does not see what the first one has written.
    """
    marker = directory / ".seen-by-all"
    if rank() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        marker.touch()
    torch.distributed.barrier()
    seen = [torch.tensor([float(marker.is_file())], device=device())]
    torch.distributed.all_reduce(seen[0], torch.distributed.ReduceOp.MIN)
    if rank() == 0:
        marker.unlink(missing_ok=True)
    if not seen[0].item():
        raise ConfigError(
            f"train.nodes: {directory} is not the same directory on all nodes: put the repository on a disk that they "
            "share, or train on one node"
        )


def remove_incomplete(checkpoints: Path) -> None:
    """Remove checkpoints whose process was killed while it wrote them; the one before is then resumed from."""
    for directory in checkpoints.glob("checkpoint-*"):
        try:
            read_json(directory / "trainer_state.json")
        except (OSError, ValueError):
            shutil.rmtree(directory, ignore_errors=True)


def _finished(checkpoint: Path, steps: int, patience: int) -> tuple[Path, list[dict[str, Any]], int] | None:
    """Return the best checkpoint, the log and the number of steps if the run of a checkpoint is complete, else None."""
    state = read_json(checkpoint / "trainer_state.json")
    if state["global_step"] < steps and _evaluations_since_best(state["log_history"]) < patience:
        return None
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    return best, state["log_history"], state["global_step"]


def _evaluations_since_best(log: list[dict[str, Any]]) -> int:
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    return len(losses) - 1 - int(np.argmin(losses)) if losses else 0


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def quiet() -> None:
    """Turn off the progress bars and messages of transformers; this library shows its own."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
