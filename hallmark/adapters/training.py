"""Train LoRA adapters of many subjects in one batched loop, each with its own loss and early stopping.

Subjects do not meet: a subject's loss touches its own factors only, AdamW works element by element, and a subject's
batches depend on the seed and the step alone, so each follows the path that it would follow alone. What is shared is
the cost of running the base. A chunk's factors and activations should fit the processor's cache.
Legend of shapes: P people, F numbers of one adapter, E examples a person and step, L layers.
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
from hallmark.learn import processes
from hallmark.learn.side_by_side import Report, side_by_side, summed

Batch = Callable[[Integers, str], dict[str, Tensor]]
"""Makes a batch with targets of some examples, of `train` or `valid`; the model returns row_loss and row_weight."""


@dataclass(frozen=True)
class LoraSettings:
    """How LoRA adapters are trained.

    Attributes:
        rank: of their matrices.
        alpha: their scale.
        steps: of AdamW, at most.
        batch_size: examples of every subject a step.
        learning_rate: constant, unless a subject has its own.
        weight_decay: of AdamW.
        seed: of initial factors and batches.
        evaluate_every: steps between two looks at a subject's valid examples, if it has any; the best look is kept.
        patience: looks without improvement before a subject stops.
        people: trained at once, in one pass.
        side_by_side: processes that share the people, on CPUs: the same bytes.
    """

    rank: int
    alpha: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    evaluate_every: int
    patience: int
    people: int
    side_by_side: int

    def __post_init__(self) -> None:
        counts = ("rank", "alpha", "steps", "batch_size", "evaluate_every", "patience", "people", "side_by_side")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise ValueError(f"learning_rate={self.learning_rate} must be positive, weight_decay not negative")


@dataclass(frozen=True)
class Person:
    """One subject's examples.

    Attributes:
        subject_id: whose.
        train: what to learn from.
        valid: what decides when to stop; empty: the last step is kept.
        learning_rate: instead of the settings', if given.
    """

    subject_id: str
    train: Integers
    valid: Integers
    learning_rate: float | None = None


@dataclass(frozen=True)
class Trained:
    """What training found for one subject.

    Attributes:
        subject_id: whose.
        row: (F,) the factors.
        loss: on valid, at the step that was kept; NaN without valid examples.
        step: that was kept.
    """

    subject_id: str
    row: Floats
    loss: float
    step: int


def initial_row(spec: AdapterSpec, seed: int) -> Floats:
    """Draw the factors that every adapter starts from, (F,): lora_A as PEFT draws it, lora_B zero."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for outputs, inputs in spec.shapes.values():
        a = torch.empty(spec.rank, inputs)
        torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        parts += [a.reshape(-1), torch.zeros(outputs * spec.rank)]
    found: Floats = torch.cat(parts).numpy()
    return found


def draw(person: Person, settings: LoraSettings, step: int) -> Integers:
    """Draw one step's examples of one person; the same whoever else is trained, and after a restart."""
    generator = np.random.default_rng((settings.seed, step))
    found: Integers = generator.choice(person.train, settings.batch_size)
    return found


def train_adapters(
    bank: AdapterBank,
    people: Sequence[Person],
    batch: Batch,
    settings: LoraSettings,
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Trained]:
    """Train every person's adapter, chunk by chunk.

    Args:
        bank: an untouched bank with at least `settings.people` slots.
        people: with at least one example to learn from each.
        batch: makes batches.
        settings: how.
        checkpoints: a directory of this run alone; a killed run goes on from its last look.
        progress: called with people done, and of how many.

    Yields:
        What was found for each person, in order.
    """
    bank.eval()
    for start in range(0, len(people), settings.people):
        progress(start, len(people))
        chunk = people[start : start + settings.people]
        yield from _Chunk(bank, chunk, batch, settings, checkpoints and checkpoints / f"{start}.safetensors").run()
    progress(len(people), len(people))


class _Chunk:
    """The people trained at once, their factors in the slots 1 … P of the bank."""

    def __init__(
        self, bank: AdapterBank, people: Sequence[Person], batch: Batch, settings: LoraSettings, file: Path | None
    ) -> None:
        self.bank, self.people, self.settings, self.file = bank, people, settings, file
        self._batch = batch
        first = np.repeat(initial_row(bank.spec, settings.seed)[None], len(people), axis=0)
        bank.put(1, first)
        self.factors = [p for layer in bank.layers.values() for p in (layer.a, layer.b)]
        self.moments = [torch.zeros_like(p) for p in self.factors]
        self.squares = [torch.zeros_like(p) for p in self.factors]
        self.rates = torch.tensor(
            [settings.learning_rate if p.learning_rate is None else p.learning_rate for p in people]
        )
        self.step = 0
        self.best = torch.from_numpy(first)
        self.best_loss = torch.full((len(people),), math.inf)
        self.best_step = torch.zeros(len(people), dtype=torch.int64)
        self.waited = torch.zeros(len(people), dtype=torch.int64)

    def run(self) -> Iterator[Trained]:
        settings = self.settings
        self._resume()
        for factor in self.factors:
            factor.requires_grad_(True)
        try:
            while self.step < settings.steps and not bool((self.waited >= settings.patience).all()):
                self._learn()
                if self.step % settings.evaluate_every == 0 or self.step == settings.steps:
                    self._look()
                    self._save()
        finally:
            for factor in self.factors:
                factor.requires_grad_(False)
                factor.grad = None
        for i, person in enumerate(self.people):
            loss = float(self.best_loss[i]) if len(person.valid) else math.nan
            yield Trained(person.subject_id, self.best[i].numpy(), loss, int(self.best_step[i]))

    def batch(self, examples: Integers, part: str) -> dict[str, Tensor]:
        """Make a batch where the factors lie."""
        return {name: tensor.to(self.bank.device) for name, tensor in self._batch(examples, part).items()}

    def _learn(self) -> None:
        """Make one step of AdamW, each person with its own rate."""
        count = len(self.people)
        examples = np.concatenate([draw(p, self.settings, self.step) for p in self.people])
        out = self.bank(count, **self.batch(examples, "train"))
        losses, weights = out["row_loss"].view(count, -1).sum(1), out["row_weight"].view(count, -1).sum(1)
        (losses / weights.clamp_min(1.0)).sum().backward()
        self.step += 1
        first, second, decay = 0.9, 0.999, self.settings.weight_decay
        with torch.no_grad():
            for factor, moment, square in zip(self.factors, self.moments, self.squares, strict=True):
                gradient, here = factor.grad, slice(1, count + 1)
                assert gradient is not None
                rate = self.rates.view(-1, 1, 1).to(factor.device)
                m = moment[here].lerp_(gradient[here], 1 - first)
                v = square[here].mul_(second).addcmul_(gradient[here], gradient[here], value=1 - second)
                change = m / (1 - first**self.step) / ((v / (1 - second**self.step)).sqrt() + 1e-8)
                factor[here] = factor[here] * (1 - rate * decay) - rate * change
                factor.grad = None

    @torch.no_grad()
    def _look(self) -> None:
        """Look at everybody's valid examples; keep whoever improved."""
        losses = torch.full((len(self.people),), math.nan)
        for start in range(0, len(self.people), LOOKED_AT):
            losses[start : start + LOOKED_AT] = self._valid_losses(start)
        now = torch.from_numpy(self.bank.take(1, len(self.people)))
        going = self.waited < self.settings.patience
        unseen = torch.tensor([not len(person.valid) for person in self.people])  # nothing to look at: the last is kept
        better = going & ((losses < self.best_loss) | unseen)
        self.best[better], self.best_loss[better], self.best_step[better] = now[better], losses[better], self.step
        self.waited = torch.where(better, 0, self.waited + going)

    def _valid_losses(self, start: int) -> Tensor:
        people = self.people[start : start + LOOKED_AT]
        sizes = [len(p.valid) for p in people]
        losses, weights = torch.zeros(len(people)), torch.zeros(len(people))
        owner = torch.from_numpy(np.repeat(np.arange(len(people)), sizes))
        examples = np.concatenate([p.valid for p in people])
        for at in range(0, len(examples), 4096):
            here = slice(at, at + 4096)
            slots = (owner[here] + start + 1).to(self.bank.device)
            out = self.bank(slots, **self.batch(examples[here], "valid"))
            losses.index_add_(0, owner[here], out["row_loss"].float().cpu())
            weights.index_add_(0, owner[here], out["row_weight"].float().cpu())
        return torch.where(weights > 0, losses / weights.clamp_min(1.0), math.nan)

    def _save(self) -> None:
        if self.file is None:
            return
        tensors = {"best": self.best, "best_loss": self.best_loss, "best_step": self.best_step, "waited": self.waited}
        for name, group in (("factor", self.factors), ("moment", self.moments), ("square", self.squares)):
            tensors |= {f"{name}.{i}": t.detach().contiguous() for i, t in enumerate(group)}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_suffix(".part")
        save_file(tensors, str(fresh), {"step": str(self.step), "people": json.dumps(self._names())})
        os.replace(fresh, self.file)

    def _resume(self) -> None:
        if self.file is None or not self.file.is_file():
            return
        from safetensors import safe_open

        with safe_open(str(self.file), framework="pt") as opened:
            metadata = opened.metadata()
        if json.loads(metadata["people"]) != self._names():
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
        return [p.subject_id for p in self.people]


LOOKED_AT = 64  # people whose valid examples share a forward pass


def train_shared(
    bank: AdapterBank,
    people: Sequence[Person],
    batch: Batch,
    settings: LoraSettings,
    out: Path,
    checkpoints: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Train everybody into one packed file, the people split over processes: torchrun's, else forked ones.

    Every process trains its share of the chunks and writes it; the first one puts the shares together in the order of
    `people`, so the file is the same, bit by bit, however many processes there were. The directory of `out` must be
    shared by all.

    Args:
        bank: as in `train_adapters`, one in every process.
        people: the same list in every process.
        batch: as in `train_adapters`.
        settings: as in `train_adapters`; `side_by_side` where torchrun started a single process.
        out: the packed file.
        checkpoints: of this run; every process has its own place in it.
        progress: called with people done, of this process where torchrun started several, and of how many.
    """
    from torch import distributed

    rank, world = processes.rank(), processes.world()
    begun = world > 1 and not distributed.is_initialized()
    if begun:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    chunks = -(-len(people) // settings.people)
    shares = world if world > 1 else max(1, min(settings.side_by_side, chunks))
    owner = [i // settings.people % shares for i in range(len(people))]  # whole chunks: who learns beside whom stays
    parts = [out.with_name(f".{out.name}.{i}") for i in range(shares)]

    def train_share(share: int, report: Report) -> None:
        mine = [person for person, process in zip(people, owner, strict=True) if process == share]
        place = checkpoints and checkpoints / f"{share}-of-{shares}"
        found = train_adapters(bank, mine, batch, settings, place, lambda done, total: report(done, total, math.nan))
        write_packed(((trained.subject_id, trained.row) for trained in found), len(mine), bank.spec, parts[share])

    mine = [rank] if world > 1 else range(shares)
    report = summed(progress, sum(process in mine for process in owner))
    side_by_side({str(share): partial(train_share, share) for share in mine}, len(mine), report)
    if world > 1:
        distributed.barrier()
    if rank == 0:
        stores = [PackedStore(file, bank.spec) for file in parts]
        rows = ((p.subject_id, stores[i].read(p.subject_id)) for p, i in zip(people, owner, strict=True))
        write_packed(rows, len(people), bank.spec, out)
        for file in parts:
            file.unlink()
    if world > 1:
        distributed.barrier()
    if begun:
        distributed.destroy_process_group()
