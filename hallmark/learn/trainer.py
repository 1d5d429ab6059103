"""Train a torch model with Hugging Face Trainer: FLOP budget, EMA weights, early stopping, exact resume.

Determinism: batches depend on the seed and the step alone, dropout on torch's generator, which the
checkpoint carries; so a run that was killed ends with the same bytes as one that was not.
"""

import copy
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils import deterministic
from torch.utils.data import Dataset

from hallmark.contracts import Follow, TrainResult
from hallmark.errors import BundleError
from hallmark.files import read_json
from hallmark.learn.precision import CHOICES, resolve
from hallmark.learn.processes import world

LOOKED_AT = 4  # batches of valid that share a pass: no gradients are kept, but memory must stay that of training


@dataclass(frozen=True)
class TrainConfig:
    """How a torch model is trained.

    Attributes:
        budget_tflop: floating point operations (10¹²) that training may cost, the same for every candidate.
        batch_size: windows (or texts) a step and device.
        learning_rate: peak of the cosine schedule.
        weight_decay: of AdamW.
        warmup_share: share of the steps in which the rate rises.
        ema_decay: of the exponential moving average of the weights, which is what is kept.
        evaluate_every: steps between two looks at valid.
        patience: looks without improvement before stopping.
        seed: of initial weights, batches and dropout.
        threads: of the CPU; part of what makes bytes reproducible.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 on a GPU that has it, else fp32.
        compile: torch.compile the model.
        gradient_accumulation: batches a step.
        processes: that share every step by DDP, each with its own batch.
        side_by_side: networks that are trained at the same time, each in a process of its own: the same bytes.
    """

    budget_tflop: float
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    ema_decay: float
    evaluate_every: int
    patience: int
    seed: int
    threads: int
    precision: str
    compile: bool
    gradient_accumulation: int
    processes: int
    side_by_side: int

    def __post_init__(self) -> None:
        for name in (
            "batch_size",
            "evaluate_every",
            "patience",
            "threads",
            "gradient_accumulation",
            "processes",
            "side_by_side",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "budget_tflop"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.precision not in CHOICES:
            raise ValueError(f"precision={self.precision!r} must be one of {', '.join(CHOICES)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must be in 0…1, 1 excluded")


class Averaged(nn.Module):
    """A model beside its moving average: trains the one, evaluates the other, checkpoints both."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.updates: Tensor

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Forward of the trained weights while training, of their average otherwise."""
        result: dict[str, Tensor] = (self.model if self.training else self.average)(**batch)
        return result

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # it has two forms
        """What a checkpoint needs: what learns, once each, and the buffers; what is frozen is known already."""
        parameters = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        learning = {name for name, value in self.named_parameters() if value.requires_grad}
        learning |= {name.replace("model.", "average.", 1) for name in learning}
        whole: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {name: value for name, value in whole.items() if name in learning or name not in parameters}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take up a `state_dict`.

        Raises:
            BundleError: it is that of another model.
        """
        if odd := sorted(set(state_dict) ^ set(self.state_dict())):
            raise BundleError(f"{odd[0]} is in the model or in the checkpoint alone: remove .work/checkpoints")
        super().load_state_dict(state_dict, strict=False, assign=assign)
        return _IncompatibleKeys([], [])  # nothing that learns is missing

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights that learn; it warms up so that early steps are forgotten."""
        self.updates += 1
        n = int(self.updates)
        decay = min(self.decay, (1 + n) / (10 + n))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        ours, theirs = zip(*((mine, his.detach()) for mine, his in pairs if his.requires_grad), strict=True)
        torch._foreach_lerp_(list(ours), list(theirs), 1 - decay)
        for mine, his in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(his)


class _Indices(Dataset[int]):
    """A dataset of positions: the collate function turns a list of them into one batch."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def seed_everything(seed: int, threads: int) -> None:
    """Fix every generator and the thread count of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002, transformers draws from the legacy generator
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over every new tensor


def steps_within(config: TrainConfig, model: nn.Module, make: Callable[[list[int]], dict[str, Tensor]]) -> int:
    """Count the steps that the budget pays for, from the floating point operations of one forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = 8  # operations grow with the rows, so a few tell
    with FlopCounterMode(display=False) as counter:
        model(**make(list(range(rows))))["loss"].backward()
    model.zero_grad()
    together = config.batch_size * config.gradient_accumulation * world()
    a_step = float(counter.get_total_flops()) / rows * together
    return max(1, round(config.budget_tflop * 1e12 / max(a_step, 1.0)))


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
        train: how many examples there are, and what makes a batch of some of their positions.
        valid: the same for early stopping.
        config: how.
        checkpoints: a directory of this run alone; a checkpoint found there is resumed.
        progress: called with (step, steps, latest valid loss).
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    seed_everything(config.seed, config.threads)
    averaged = Averaged(model, config.ema_decay)
    steps = steps_within(config, model, train[1])
    batches = {"train": train[1], "valid": valid[1]}
    evaluate_every = min(config.evaluate_every, steps)
    args = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=LOOKED_AT * config.batch_size,
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

    class Follow(TrainerCallback):  # type: ignore[misc]
        """Averages after every step, reports, and stops when valid no longer improves."""

        def __init__(self) -> None:
            self.latest = float("nan")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            averaged.update()
            if progress is not None:
                progress(state.global_step, state.max_steps, self.latest)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
            self.latest = metrics["eval_loss"]
            if _looks_since_best(state.log_history) >= config.patience:
                control.should_training_stop = True

    class Fit(Trainer):  # type: ignore[misc]
        """Trainer whose train and valid batches are made by their own functions."""

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            self.data_collator = batches["valid"]
            return super().get_eval_dataloader(eval_dataset)

        def get_train_dataloader(self) -> Any:
            self.data_collator = batches["train"]
            return super().get_train_dataloader()

    trainer = Fit(
        model=averaged,
        args=args,
        train_dataset=_Indices(train[0]),
        eval_dataset=_Indices(valid[0]),
        data_collator=batches["train"],
        callbacks=[Follow()],
    )
    trainer.remove_callback(_printer())
    torch.set_num_threads(config.threads)
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    if last is not None and (finished := _finished(Path(last), steps, config.patience)):
        best, log, made = finished  # killed after its last step: one step more would give other bytes
        averaged.load_state_dict(load_file(str(best / "model.safetensors")))
    else:
        trainer.train(resume_from_checkpoint=last)
        log, made = trainer.state.log_history, trainer.state.global_step
    looks = tuple((e["step"], e["eval_loss"]) for e in log if "eval_loss" in e)
    best_step, best_loss = min(looks, key=lambda look: look[1])
    return averaged.average.cpu().eval(), TrainResult(best_loss, best_step, made, looks)


def _finished(checkpoint: Path, steps: int, patience: int) -> tuple[Path, list[dict[str, Any]], int] | None:
    """Tell whether a checkpoint is the last of its run: the best one's directory, the log, and the steps made."""
    state = read_json(checkpoint / "trainer_state.json")
    if state["global_step"] < steps and _looks_since_best(state["log_history"]) < patience:
        return None
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    return best, state["log_history"], state["global_step"]


def _looks_since_best(log: list[dict[str, Any]]) -> int:
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    return len(losses) - 1 - int(np.argmin(losses)) if losses else 0


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def quiet() -> None:
    """Silence the progress bars and advice of transformers; ours are shown instead."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
