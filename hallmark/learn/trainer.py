"""Train a torch model with Hugging Face Trainer: FLOP budget, EMA weights, early stopping, exact resume.

Determinism: batches depend only on the seed and the step, dropout on torch's generator, whose state is in the
checkpoint; so a run that was killed and resumed ends with the same bytes as one that was not.
"""

import copy
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils import deterministic
from torch.utils.data import Dataset

from hallmark.build import Count, NotNegative, Positive, Share, configuration
from hallmark.contracts import Follow, TrainResult
from hallmark.errors import BundleError
from hallmark.files import read_json
from hallmark.learn.precision import Precision, resolve
from hallmark.learn.processes import world

EVAL_BATCH_FACTOR = 4  # validation has no gradients, but must not need more memory than training


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
        processes: processes of data-parallel training (DDP), each with its own batch.
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
    processes: Count
    n_jobs: Count


class EmaModel(nn.Module):
    """A model and the moving average of its weights: the model is trained, the average evaluated, both checkpointed."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.updates: Tensor

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Run the model in training mode, its average in evaluation mode."""
        result: dict[str, Tensor] = (self.model if self.training else self.average)(**batch)
        return result

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # it has two forms
        """Return the trainable parameters of model and average, and all buffers; frozen parameters are not stored."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        trainable = {name for name, value in self.named_parameters() if value.requires_grad}
        trainable |= {name.replace("model.", "average.", 1) for name in trainable}
        everything: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {name: value for name, value in everything.items() if name in trainable or name not in parameters}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a `state_dict` of this class.

        Raises:
            BundleError: it belongs to another model.
        """
        if mismatched := sorted(set(state_dict) ^ set(self.state_dict())):
            raise BundleError(f"{mismatched[0]} is in the model or in the checkpoint alone: remove .work/checkpoints")
        super().load_state_dict(state_dict, strict=False, assign=assign)
        return _IncompatibleKeys([], [])  # no trainable parameter is missing

    @torch.no_grad()
    def update(self) -> None:
        """Update the average of the trainable weights; its decay rises at first, so that early steps are forgotten."""
        self.updates += 1
        updates = int(self.updates)
        decay = min(self.decay, (1 + updates) / (10 + updates))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        averages, weights = zip(
            *((average, weight.detach()) for average, weight in pairs if weight.requires_grad), strict=True
        )
        torch._foreach_lerp_(list(averages), list(weights), 1 - decay)
        for average, weight in zip(self.average.buffers(), self.model.buffers(), strict=True):
            average.copy_(weight)


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


def steps_within(config: TrainConfig, model: nn.Module, make: Callable[[list[int]], dict[str, Tensor]]) -> int:
    """Return the number of steps within the FLOP budget, from the cost of one forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = 8  # the cost is proportional to the rows
    with FlopCounterMode(display=False) as counter:
        model(**make(list(range(rows))))["loss"].backward()
    model.zero_grad()
    rows_per_step = config.batch_size * config.gradient_accumulation * world()
    flop_per_step = float(counter.get_total_flops()) / rows * rows_per_step
    return max(1, round(config.budget_tflop * 1e12 / max(flop_per_step, 1.0)))


def fit(
    model: nn.Module,
    train: tuple[int, Callable[[list[int]], dict[str, Tensor]]],
    valid: tuple[int, Callable[[list[int]], dict[str, Tensor]]],
    config: TrainConfig,
    checkpoints: Path,
    progress: Follow | None = None,
) -> tuple[nn.Module, TrainResult]:
    """Train a model and return its best averaged weights.

    Args:
        model: `forward(**batch)` returns a dict with `loss`.
        train: number of examples, and a function that makes a batch of a list of their indices.
        valid: the same for early stopping.
        config: training settings.
        checkpoints: directory of this run alone; training resumes from a checkpoint in it.
        progress: called with (step, steps, latest loss on valid).

    Returns:
        The averaged weights of the lowest loss on valid, on the CPU and in evaluation mode; and the training record.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    seed_everything(config.seed, config.threads)
    averaged = EmaModel(model, config.ema_decay)
    steps = steps_within(config, model, train[1])
    batches = {"train": train[1], "valid": valid[1]}
    evaluate_every = min(config.evaluate_every, steps)
    args = TrainingArguments(
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
        """Trainer with separate collate functions for train and valid."""

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            self.data_collator = batches["valid"]
            return super().get_eval_dataloader(eval_dataset)

        def get_train_dataloader(self) -> Any:
            self.data_collator = batches["train"]
            return super().get_train_dataloader()

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
        best, log, steps_made = finished  # killed after its last step: one more would change the result
        averaged.load_state_dict(load_file(str(best / "model.safetensors")))
    else:
        trainer.train(resume_from_checkpoint=last_checkpoint)
        log, steps_made = trainer.state.log_history, trainer.state.global_step
    curve = tuple((e["step"], e["eval_loss"]) for e in log if "eval_loss" in e)
    best_step, best_loss = min(curve, key=lambda point: point[1])
    return averaged.average.cpu().eval(), TrainResult(best_loss, best_step, steps_made, curve)


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
