"""Personalise: train LoRA per subject; choose none, online ridge or LoRA on the subject's valid split.

Three methods, in rising cost: `none` (personal statistics only), `online_ridge` (the linear adapter of online_ridge.py)
and `lora` (factors in the bank, on top of the linear adapter). Every subject starts with the configured default; with
enough history and valid days a gate may prefer another method: one whose errors on the subject's own valid days fall by
a margin and by more than chance (choice.py).

Legend of shapes: B windows, H horizons, Q quantiles.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hallmark.adapters.bank import AdapterBank, AdapterSpec, spec_of
from hallmark.adapters.cache import AdapterCache
from hallmark.adapters.files import PackedStore, PeftStore, unflatten, write_peft
from hallmark.adapters.training import LoraSettings, Person, train_shared
from hallmark.arrays import Floats, Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.base_forecaster import Base, as_tensors
from hallmark.families.forecasting.choice import compare
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.splits import Parts
from hallmark.files import directory_of, sha256
from hallmark.learn.processes import device

METHODS = ("none", "online_ridge", "lora")
CACHE_SLOTS = 256  # adapters that stay in memory while serving


@dataclass(frozen=True)
class PersonaliseConfig:
    """How subjects are personalised.

    Attributes:
        methods: what may be tried, of `none`, `online_ridge`, `lora`; `none` is always there.
        default_method: what a subject gets unless a gate prefers another: `none`, or `online_ridge`, whose trust the
            network learned by maturity.
        minimum_days: days of history below which no gate decides and no LoRA is trained.
        minimum_valid_days: days with valid windows below which no gate decides.
        margin: relative gain on the subject's valid days that a method needs over the one before it.
        sureness: standard errors over those days that the gain must exceed as well.
        stride: grid points between two windows that the gate looks at.
        lora: how an adapter is trained.
        processes: that share the training of LoRA; statistics and gates are cheap and made by each.
    """

    methods: tuple[str, ...]
    default_method: str
    minimum_days: float
    minimum_valid_days: int
    margin: float
    sureness: float
    stride: int
    lora: LoraSettings
    processes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        if unknown := set(self.methods) - set(METHODS):
            raise ValueError(f"methods={sorted(unknown)} are unknown: choose among {', '.join(METHODS)}")
        if self.default_method not in ("none", "online_ridge"):
            raise ValueError(f"default_method={self.default_method!r} must be none or online_ridge")
        if self.minimum_days < 0:
            raise ValueError(f"minimum_days={self.minimum_days} must not be negative")
        for name in ("stride", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class People:
    """A base with everybody's adapters.

    Attributes:
        base: what newcomers get.
        methods: subject_id → the method that its gate chose; a subject without an entry is a newcomer.
        adapters: directory of the LoRA adapters, one directory a subject.
        digests: subject_id → sha256 of its LoRA directory.
        spec: what the LoRA adapters share.
    """

    base: Base
    methods: dict[str, str]
    adapters: Path
    digests: dict[str, str]
    spec: AdapterSpec

    @cached_property
    def cache(self) -> AdapterCache:
        """Cache of the LoRA adapters in the slots of a bank."""
        mine = [subject_id for subject_id, method in self.methods.items() if method == "lora"]
        bank = AdapterBank(copy.deepcopy(self.base.forecaster), self.spec, max(1, min(CACHE_SLOTS, len(mine))))
        directories = {subject_id: lora_directory(self.adapters, subject_id) for subject_id in mine}
        return AdapterCache(bank, PeftStore(directories, self.digests, self.spec))

    @torch.no_grad()
    def answer(self, subjects: Sequence[str | None], batch: dict[str, Any]) -> tuple[Floats, Floats, list[str]]:
        """Answer an assembled batch, row i by the method of subjects[i], or all rows by that of a single subject.

        Returns:
            Mean (B, H) and quantiles (B, H, Q) in the value's unit, and for every subject why its LoRA adapter is
            silent although its gate chose it, else empty.
        """
        methods = [self.methods.get(subject_id or "", "none") for subject_id in subjects]
        wanted = [
            subject_id if method == "lora" else None for subject_id, method in zip(subjects, methods, strict=True)
        ]
        adapted = batch["adapted"] * np.asarray([method != "none" for method in methods], dtype=np.float32)
        inputs = as_tensors({**batch, "adapted": adapted})
        reasons = [""] * len(subjects)
        if any(wanted):
            out, why = self.cache.forward(wanted, **inputs)
            reasons = ["" if who is None else reason for who, reason in zip(wanted, why, strict=True)]
        else:
            out = self.base.network(**inputs)
        return out["mean"].numpy(), out["quantiles"].numpy(), reasons

    def forecast(
        self, subject_id: str, context: Floats, minute: Any, history: History | None, rows: Integers | None
    ) -> tuple[Floats, Floats]:
        """Forecast one subject's windows by its own method; see `Base.forecast`.

        Raises:
            BundleError: its LoRA adapter is missing, changed or made for another base.
        """
        if not len(context):
            return self.base.forecast(context, minute, history, rows)
        batch = self.base.assembler.batch(context, minute, history, rows)
        mean, quantiles, [why] = self.answer([subject_id], batch)
        if why:
            raise BundleError(f"subject {subject_id!r}: {why}; run `dvc repro train`")
        return mean, quantiles


def lora_directory(people: Path, subject_id: str) -> Path:
    """Where a subject's LoRA adapter lies, in PEFT's format."""
    return people / directory_of(subject_id) / "lora"


def personalise(
    base: Base,
    parts: Parts,
    history: History,
    config: PersonaliseConfig,
    out: Path,
    checkpoints: Path,
    progress: Callable[[int, int], None],
) -> tuple[pd.DataFrame, AdapterSpec]:
    """Let every subject's gate choose, and write the LoRA adapters that were chosen.

    LoRA adapters are trained together, `config.lora.people` at once.

    Args:
        base: what is personalised.
        parts: readings and their splits.
        history: everybody's past, the linear adapters among it.
        config: how.
        out: directory of the adapters.
        checkpoints: of this run alone.
        progress: called with people done, and of how many.

    Returns:
        One row a subject: method, reason, days of history, days with valid windows, valid score of every method tried
        (mean squared error of all horizons, weighted as in training, in units of the population ridge's), sha256 of
        the LoRA directory; and what the LoRA adapters share.
    """
    panel = parts.panel
    forecaster = base.forecaster
    spec = spec_of(forecaster, forecaster.lora_targets, base.digest, config.lora.rank, config.lora.alpha)
    train, valid = parts.origins("train"), parts.origins("valid")
    valid = valid[:: config.stride]
    out.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, Any]] = {}
    subjects: dict[str, _Subject] = {}
    for code, subject_id in enumerate(panel.subjects):
        looks = valid[panel.subject[valid] == code]
        days, valid_days = _days(parts, history, looks), len(np.unique(panel.day[looks]))
        row: dict[str, Any] = {"subject_id": subject_id, "days": round(days, 1), "valid_days": valid_days}
        row |= {"method": config.default_method, "sha256": ""}
        if days < config.minimum_days:
            row["reason"] = f"{days:.0f} days of history, a gate needs {config.minimum_days:g}"
        elif valid_days < config.minimum_valid_days:
            row["reason"] = f"{valid_days} valid days, a gate needs {config.minimum_valid_days}"
        else:
            subjects[subject_id] = _Subject(base, parts, history, train[panel.subject[train] == code], looks)
        table[subject_id] = row
    bank = AdapterBank(copy.deepcopy(forecaster), spec, 1)
    for subject_id, factors in _trained(subjects, base, spec, config, checkpoints, progress):
        if factors is not None:
            bank.put(1, factors[None])
        choice = _choose(subjects[subject_id], config, None if factors is None else bank)
        if choice["method"] == "lora" and factors is not None:
            directory = lora_directory(out, subject_id)
            write_peft(unflatten(factors, spec), spec, directory, forecaster.lora_targets)
            choice["sha256"] = sha256(directory)
        table[subject_id] |= choice
    progress(len(panel.subjects), len(panel.subjects))
    columns = ["subject_id", "method", "reason", "days", "valid_days", *(f"valid_{w}" for w in METHODS), "sha256"]
    return pd.DataFrame(list(table.values())).reindex(columns=columns), spec


def _days(parts: Parts, history: History, looks: Integers) -> float:
    if not len(looks):
        return 0.0
    rows = history.rows(parts.panel.subject[looks[:1]], parts.panel.day[looks[:1]])
    return float(np.expm1(history.statistics[rows[0], -1]))


def _trained(
    subjects: dict[str, "_Subject"],
    base: Base,
    spec: AdapterSpec,
    config: PersonaliseConfig,
    checkpoints: Path,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[str, Floats | None]]:
    """Train LoRA factors together; no valid window is looked at, they are the gate's.

    Yields:
        Every subject with its factors, or None where LoRA is not tried or there is not a whole batch to learn from.
    """
    nothing = np.empty(0, dtype=np.int64)
    tried = subjects if "lora" in config.methods else {}
    people = [Person(s, v.train, nothing) for s, v in tried.items() if len(v.train) >= config.lora.batch_size]
    learning = {person.subject_id for person in people}
    yield from ((subject_id, None) for subject_id in subjects if subject_id not in learning)
    if people:
        model = copy.deepcopy(base.forecaster).to(device())
        bank = AdapterBank(model, spec, min(config.lora.people, len(people)))
        batch = subjects[people[0].subject_id].batch  # of any windows, whosever they are
        packed = checkpoints / "adapters.safetensors"
        train_shared(bank, people, batch, config.lora, packed, checkpoints, progress)
        store = PackedStore(packed, spec)
        yield from ((subject_id, store.read(subject_id)) for subject_id in store.subjects)


@dataclass(frozen=True)
class _Subject:
    """What one subject's gate needs: windows to learn from and windows to look at."""

    base: Base
    parts: Parts
    history: History
    train: Integers
    looks: Integers

    def batch(self, origins: Integers, part: str) -> dict[str, torch.Tensor]:
        panel = self.parts.panel
        rows = self.history.rows(panel.subject[origins], panel.day[origins])
        minute = panel.minute[origins].astype(np.int64)
        batch = self.base.assembler.batch(panel.context(origins), minute, self.history, rows)
        return as_tensors({**batch, "target": self.parts.target(origins, part)})

    @torch.no_grad()
    def errors(self, model: Callable[..., dict[str, torch.Tensor]], adapted: float) -> tuple[Floats, float]:
        """Weighted squared errors of every look, summed over horizons, (B,), and the sum of all weights."""
        found, weights = [], 0.0
        forecaster = self.base.forecaster
        for start in range(0, len(self.looks), 2048):
            batch = self.batch(self.looks[start : start + 2048], "valid")
            batch["adapted"] = batch["adapted"] * adapted
            target = batch.pop("target")
            there = ~torch.isnan(target)
            error = torch.where(there, (model(**batch)["mean"] - target) / forecaster.horizon_scale, 0.0)
            found.append((error**2 * forecaster.horizon_weight).sum(dim=1).numpy())
            weights += float((there * forecaster.horizon_weight).sum())
        return np.concatenate(found), weights


def _choose(subject: _Subject, config: PersonaliseConfig, bank: AdapterBank | None) -> dict[str, Any]:
    """Start from the default method; a challenger must convince on the subject's own valid days.

    Args:
        subject: whose gate it is.
        config: what it asks for.
        bank: with the subject's factors in slot 1, if it has any.
    """
    forecaster, day = subject.base.forecaster, subject.parts.panel.day[subject.looks]
    errors = {"none": subject.errors(forecaster, 0.0)}
    if "online_ridge" in {*config.methods, config.default_method}:
        errors["online_ridge"] = subject.errors(forecaster, 1.0)
    if bank is not None:
        errors["lora"] = subject.errors(partial(bank, torch.tensor([1])), 1.0)
    method, notes = config.default_method, []
    for challenger in (w for w in METHODS if w in errors and w != config.default_method):
        found = compare(errors[method][0], errors[challenger][0], day)
        notes.append(f"{challenger} against {method}: {found}")
        if found.convinces(config.margin, config.sureness):
            method = challenger
    scores = {f"valid_{w}": round(float(e.sum()) / max(weight, 1.0), 6) for w, (e, weight) in errors.items()}
    return {"method": method, "reason": "; ".join(notes), **scores}
