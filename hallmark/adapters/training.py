"""Train LoRA adapters of many subjects in one batched loop, each with its own loss and early stopping.

Subjects are independent: a subject's loss uses its own factors only, AdamW works element by element, and a subject's
batches depend on the seed and the step alone, so the result is that of training each alone. They share the cost of
running the base. A chunk's factors and activations should fit the processor's cache.
Legend of shapes: P subjects, F numbers of one adapter, E examples per subject and step, L layers.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hallmark.adapters.bank import AdapterBank, AdapterSpec
from hallmark.adapters.files import PackedStore, write_packed
from hallmark.arrays import Floats, Integers
from hallmark.build import Count, NotNegative, Positive, configuration
from hallmark.learn import processes
from hallmark.learn.parallel import Report, run_parallel, summed

Batch = Callable[[Integers, str], dict[str, Tensor]]
"""Makes a batch with targets of some examples, of `train` or `valid`; the model returns row_loss and row_weight."""


@configuration
class LoraSettings:
    """How LoRA adapters are trained.

    Attributes:
        rank: of their matrices.
        alpha: their scale.
        steps: of AdamW, at most.
        batch_size: examples per subject and step.
        learning_rate: constant, unless a subject has its own.
        weight_decay: of AdamW.
        seed: of initial factors and batches.
        evaluate_every: steps between two evaluations on a subject's valid examples, if any; the best factors are kept.
        patience: evaluations without improvement before a subject stops.
        subjects_at_once: number of subjects trained in one pass.
        n_jobs: number of processes that share the subjects, on CPUs; the result is the same, bit by bit.
    """

    rank: Count
    alpha: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NotNegative
    seed: int
    evaluate_every: Count
    patience: Count
    subjects_at_once: Count
    n_jobs: Count


@dataclass(frozen=True)
class SubjectExamples:
    """One subject's examples.

    Attributes:
        subject_id: the subject.
        train: training examples.
        valid: validation examples for early stopping; if empty, the last step is kept.
        learning_rate: instead of the settings', if given.
    """

    subject_id: str
    train: Integers
    valid: Integers
    learning_rate: float | None = None


@dataclass(frozen=True)
class Trained:
    """Result of training for one subject.

    Attributes:
        subject_id: the subject.
        row: (F,) the factors.
        loss: on valid, at the step that was kept; NaN without valid examples.
        step: that was kept.
    """

    subject_id: str
    row: Floats
    loss: float
    step: int


def initial_row(spec: AdapterSpec, seed: int) -> Floats:
    """Sample the factors that every adapter starts from, (F,): lora_A as PEFT initialises it, lora_B zero."""
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for outputs, inputs in spec.shapes.values():
        a = torch.empty(spec.rank, inputs)
        torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        blocks += [a.reshape(-1), torch.zeros(outputs * spec.rank)]
    row: Floats = torch.cat(blocks).numpy()
    return row


def sample_examples(subject: SubjectExamples, settings: LoraSettings, step: int) -> Integers:
    """Sample one step's examples of one subject; the same with any other subjects, and after a restart."""
    generator = np.random.default_rng((settings.seed, step))
    examples: Integers = generator.choice(subject.train, settings.batch_size)
    return examples


def train_adapters(
    bank: AdapterBank,
    subjects: Sequence[SubjectExamples],
    batch: Batch,
    settings: LoraSettings,
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Trained]:
    """Train every subject's adapter, chunk by chunk.

    Args:
        bank: an untouched bank with at least `settings.subjects_at_once` slots.
        subjects: with at least one training example each.
        batch: makes batches.
        settings: how adapters are trained.
        checkpoints: a directory of this run alone; an interrupted run continues from its last evaluation.
        progress: called with the number of subjects done and of all.

    Yields:
        The result for each subject, in order.
    """
    bank.eval()
    for start in range(0, len(subjects), settings.subjects_at_once):
        progress(start, len(subjects))
        chunk = subjects[start : start + settings.subjects_at_once]
        yield from _Chunk(bank, chunk, batch, settings, checkpoints and checkpoints / f"{start}.safetensors").run()
    progress(len(subjects), len(subjects))


class _Chunk:
    """The subjects trained at once, their factors in the slots 1 … P of the bank."""

    def __init__(
        self,
        bank: AdapterBank,
        subjects: Sequence[SubjectExamples],
        batch: Batch,
        settings: LoraSettings,
        file: Path | None,
    ) -> None:
        self.bank, self.subjects, self.settings, self.file = bank, subjects, settings, file
        self._batch = batch
        first = np.repeat(initial_row(bank.spec, settings.seed)[None], len(subjects), axis=0)
        bank.put(1, first)
        self.factors = [p for layer in bank.layers.values() for p in (layer.a, layer.b)]
        self.moments = [torch.zeros_like(p) for p in self.factors]
        self.squares = [torch.zeros_like(p) for p in self.factors]
        self.rates = torch.tensor(
            [settings.learning_rate if p.learning_rate is None else p.learning_rate for p in subjects]
        )
        self.step = 0
        self.best = torch.from_numpy(first)
        self.best_loss = torch.full((len(subjects),), math.inf)
        self.best_step = torch.zeros(len(subjects), dtype=torch.int64)
        self.waited = torch.zeros(len(subjects), dtype=torch.int64)

    def run(self) -> Iterator[Trained]:
        settings = self.settings
        self._resume()
        for factor in self.factors:
            factor.requires_grad_(True)
        try:
            while self.step < settings.steps and not bool((self.waited >= settings.patience).all()):
                self._train_step()
                if self.step % settings.evaluate_every == 0 or self.step == settings.steps:
                    self._evaluate()
                    self._save()
        finally:
            for factor in self.factors:
                factor.requires_grad_(False)
                factor.grad = None
        for i, subject in enumerate(self.subjects):
            loss = float(self.best_loss[i]) if len(subject.valid) else math.nan
            yield Trained(subject.subject_id, self.best[i].numpy(), loss, int(self.best_step[i]))

    def batch(self, examples: Integers, split: str) -> dict[str, Tensor]:
        """Make a batch on the device of the factors."""
        return {name: tensor.to(self.bank.device) for name, tensor in self._batch(examples, split).items()}

    def _train_step(self) -> None:
        """Make one step of AdamW, each subject with its own rate."""
        count = len(self.subjects)
        examples = np.concatenate([sample_examples(p, self.settings, self.step) for p in self.subjects])
        out = self.bank(count, **self.batch(examples, "train"))
        losses, weights = out["row_loss"].view(count, -1).sum(1), out["row_weight"].view(count, -1).sum(1)
        (losses / weights.clamp_min(1.0)).sum().backward()
        self.step += 1
        first, second, decay = 0.9, 0.999, self.settings.weight_decay
        with torch.no_grad():
            for factor, moment, square in zip(self.factors, self.moments, self.squares, strict=True):
                gradient, slots = factor.grad, slice(1, count + 1)
                assert gradient is not None
                rate = self.rates.view(-1, 1, 1).to(factor.device)
                m = moment[slots].lerp_(gradient[slots], 1 - first)
                v = square[slots].mul_(second).addcmul_(gradient[slots], gradient[slots], value=1 - second)
                change = m / (1 - first**self.step) / ((v / (1 - second**self.step)).sqrt() + 1e-8)
                factor[slots] = factor[slots] * (1 - rate * decay) - rate * change
                factor.grad = None

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Evaluate all subjects on their valid examples; keep the factors of those that improved."""
        losses = torch.full((len(self.subjects),), math.nan)
        for start in range(0, len(self.subjects), VALIDATED_AT_ONCE):
            losses[start : start + VALIDATED_AT_ONCE] = self._valid_losses(start)
        rows = torch.from_numpy(self.bank.take(1, len(self.subjects)))
        running = self.waited < self.settings.patience
        without_valid = torch.tensor(
            [not len(subject.valid) for subject in self.subjects]
        )  # without evaluation: the last step is kept
        better = running & ((losses < self.best_loss) | without_valid)
        self.best[better], self.best_loss[better], self.best_step[better] = rows[better], losses[better], self.step
        self.waited = torch.where(better, 0, self.waited + running)

    def _valid_losses(self, start: int) -> Tensor:
        subjects = self.subjects[start : start + VALIDATED_AT_ONCE]
        sizes = [len(p.valid) for p in subjects]
        losses, weights = torch.zeros(len(subjects)), torch.zeros(len(subjects))
        owner = torch.from_numpy(np.repeat(np.arange(len(subjects)), sizes))
        examples = np.concatenate([p.valid for p in subjects])
        for low in range(0, len(examples), 4096):
            chunk = slice(low, low + 4096)
            slots = (owner[chunk] + start + 1).to(self.bank.device)
            out = self.bank(slots, **self.batch(examples[chunk], "valid"))
            losses.index_add_(0, owner[chunk], out["row_loss"].float().cpu())
            weights.index_add_(0, owner[chunk], out["row_weight"].float().cpu())
        return torch.where(weights > 0, losses / weights.clamp_min(1.0), math.nan)

    def _save(self) -> None:
        if self.file is None:
            return
        tensors = {"best": self.best, "best_loss": self.best_loss, "best_step": self.best_step, "waited": self.waited}
        for name, group in (("factor", self.factors), ("moment", self.moments), ("square", self.squares)):
            tensors |= {f"{name}.{i}": t.detach().contiguous() for i, t in enumerate(group)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".part")
        save_file(tensors, str(fresh), {"step": str(self.step), "subjects": json.dumps(self._names())})
        os.replace(fresh, self.file)

    def _resume(self) -> None:
        if self.file is None or not self.file.is_file():
            return
        from safetensors import safe_open

        with safe_open(str(self.file), framework="pt") as opened:
            metadata = opened.metadata()
        if json.loads(metadata["subjects"]) != self._names():
            return
        state = load_file(str(self.file))
        self.step = int(metadata["step"])
        self.best, self.best_loss, self.best_step, self.waited = (
            state[name] for name in ("best", "best_loss", "best_step", "waited")
        )
        with torch.no_grad():
            for name, group in (("factor", self.factors), ("moment", self.moments), ("square", self.squares)):
                for i, tensor in enumerate(group):
                    tensor.copy_(state[f"{name}.{i}"])

    def _names(self) -> list[str]:
        return [p.subject_id for p in self.subjects]


VALIDATED_AT_ONCE = 64  # subjects whose valid examples share a forward pass


def train_distributed(
    bank: AdapterBank,
    subjects: Sequence[SubjectExamples],
    batch: Batch,
    settings: LoraSettings,
    out: Path,
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train all subjects into one packed file, split over processes: those of torchrun, else forked ones.

    Every process trains its share of the chunks and writes it; the first one joins the shares in the order of
    `subjects`, so the file is the same, bit by bit, however many processes there were. The directory of `out` must be
    shared by all.

    Args:
        bank: as in `train_adapters`, one in every process.
        subjects: the same list in every process.
        batch: as in `train_adapters`.
        settings: as in `train_adapters`; `n_jobs` where torchrun started a single process.
        out: the packed file.
        checkpoints: a directory of this run; every process has its own folder in it.
        progress: called with the number of subjects done and of all; of this process alone under torchrun.
    """
    from torch import distributed

    rank, world = processes.rank(), processes.world()
    begun = world > 1 and not distributed.is_initialized()
    if begun:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    chunks = -(-len(subjects) // settings.subjects_at_once)
    shares = world if world > 1 else max(1, min(settings.n_jobs, chunks))
    owner = [
        i // settings.subjects_at_once % shares for i in range(len(subjects))
    ]  # whole chunks: the same subjects are trained together
    shard_files = [out.with_name(f".{out.name}.{i}") for i in range(shares)]

    def train_share(share: int, report: Report) -> None:
        subjects_of_share = [subject for subject, process in zip(subjects, owner, strict=True) if process == share]
        directory = checkpoints and checkpoints / f"{share}-of-{shares}"
        results = train_adapters(
            bank, subjects_of_share, batch, settings, directory, lambda done, total: report(done, total, math.nan)
        )
        write_packed(
            ((trained.subject_id, trained.row) for trained in results),
            len(subjects_of_share),
            bank.spec,
            shard_files[share],
        )

    own_shares = [rank] if world > 1 else range(shares)
    report = summed(progress, sum(process in own_shares for process in owner))
    run_parallel({str(share): partial(train_share, share) for share in own_shares}, len(own_shares), report)
    if world > 1:
        distributed.barrier()
    if rank == 0:
        stores = [PackedStore(file, bank.spec) for file in shard_files]
        rows = ((p.subject_id, stores[i].read(p.subject_id)) for p, i in zip(subjects, owner, strict=True))
        write_packed(rows, len(subjects), bank.spec, out)
        for file in shard_files:
            file.unlink()
    if world > 1:
        distributed.barrier()
    if begun:
        distributed.destroy_process_group()
