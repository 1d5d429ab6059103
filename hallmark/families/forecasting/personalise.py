"""Personalise: train LoRA per subject; leave the default method only for a significant gain on valid days.

Three methods, in rising cost: `none` (personal statistics only), `online_ridge` (the linear adapter of online_ridge.py)
and `lora` (factors in the bank, on top of the linear adapter). Every subject starts with the configured default; with
enough history and valid days a gate may prefer another method: one whose errors on the subject's own valid days fall by
a margin and by more than chance (choice.py).

Legend of shapes: B windows, H horizons, Q quantiles.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from hallmark.adapters.bank import AdapterBank, AdapterSpec, spec_of
from hallmark.adapters.files import PackedStore, by_name, row_digest, unflatten, write_peft
from hallmark.adapters.training import LoraSettings, SubjectExamples, train_distributed
from hallmark.arrays import Floats, Integers
from hallmark.build import Count, NotNegative, Tuple, configuration
from hallmark.families.forecasting.base_model import Base, as_tensors
from hallmark.families.forecasting.choice import compare
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.personalisation import METHODS, Method, lora_directory, write_adapters
from hallmark.families.forecasting.splits import SplitPanel
from hallmark.files import sha256
from hallmark.learn.processes import device


@configuration
class PersonaliseConfig:
    """How subjects are personalised.

    Attributes:
        methods: candidates among `none`, `online_ridge`, `lora`; `none` is always one of them.
        default_method: method of a subject unless its gate prefers another: `none`, or `online_ridge`, whose trust by
            maturity was fitted with the network.
        min_days: days of history below which no gate decides and no LoRA is trained.
        min_valid_days: days with valid windows below which no gate decides.
        margin: relative gain on the subject's valid days that a method needs over the one before it.
        standard_errors: standard errors over those days that the gain must exceed as well.
        stride: grid points between two valid windows that the gate evaluates.
        lora: how an adapter is trained.
        processes: number of processes that share the training of LoRA; each computes the cheap statistics and gates.
        packed: whether all LoRA adapters are in one file with a hash tree, for many subjects; otherwise each has a
            directory of its own in PEFT's format.
    """

    methods: Tuple[Method]
    default_method: Literal["none", "online_ridge"]
    min_days: NotNegative
    min_valid_days: int
    margin: float
    standard_errors: float
    stride: Count
    lora: LoraSettings
    processes: Count
    packed: bool


def personalise(
    base: Base,
    split_panel: SplitPanel,
    history: History,
    config: PersonaliseConfig,
    out: Path,
    checkpoints: Path,
    progress: Callable[[int, int], None],
) -> tuple[pd.DataFrame, AdapterSpec]:
    """Choose a method for every subject by its gate, and write the LoRA adapters that were chosen.

    LoRA adapters are trained together, `config.lora.subjects_at_once` at once.

    Args:
        base: the model that is personalised.
        split_panel: readings and their splits.
        history: past of all subjects, including the linear adapters.
        config: settings.
        out: directory of the adapters.
        checkpoints: of this run alone.
        progress: called with the number of subjects done and of all.

    Returns:
        One row a subject: method, reason, days of history, days with valid windows, valid score of every method tried
        (mean squared error of all horizons, weighted as in training, in units of the population ridge's), sha256 of
        the LoRA directory; and what the LoRA adapters share.
    """
    panel = split_panel.panel
    forecaster = base.forecaster
    spec = spec_of(forecaster, forecaster.lora_targets, base.digest, config.lora.rank, config.lora.alpha)
    train, valid = split_panel.origins("train"), split_panel.origins("valid")
    valid = valid[:: config.stride]
    out.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, Any]] = {}
    subjects: dict[str, _Subject] = {}
    for code, subject_id in enumerate(panel.subjects):
        valid_windows = valid[panel.subject[valid] == code]
        days, valid_days = _days(split_panel, history, valid_windows), len(np.unique(panel.day[valid_windows]))
        row: dict[str, Any] = {"subject_id": subject_id, "days": round(days, 1), "valid_days": valid_days}
        row |= {"method": config.default_method, "sha256": ""}
        if days < config.min_days:
            row["reason"] = f"{days:.0f} days of history, a gate needs {config.min_days:g}"
        elif valid_days < config.min_valid_days:
            row["reason"] = f"{valid_days} valid days, a gate needs {config.min_valid_days}"
        else:
            subjects[subject_id] = _Subject(
                base, split_panel, history, train[panel.subject[train] == code], valid_windows
            )
        table[subject_id] = row
    bank, chosen = AdapterBank(copy.deepcopy(forecaster), spec, 1), {}
    for subject_id, factors in _trained(subjects, base, spec, config, checkpoints, progress):
        if factors is not None:
            bank.put(1, factors[None])
        choice = _choose(subjects[subject_id], config, None if factors is None else bank)
        if choice["method"] == "lora" and factors is not None:
            if config.packed:
                chosen[subject_id] = factors
                choice["sha256"] = row_digest(by_name(factors, spec))
            else:
                directory = lora_directory(out, subject_id)
                write_peft(unflatten(factors, spec), spec, directory, forecaster.lora_targets)
                choice["sha256"] = sha256(directory)
        table[subject_id] |= choice
    if chosen:
        write_adapters(out, chosen, spec)
    progress(len(panel.subjects), len(panel.subjects))
    columns = ["subject_id", "method", "reason", "days", "valid_days", *(f"valid_{w}" for w in METHODS), "sha256"]
    return pd.DataFrame(list(table.values())).reindex(columns=columns), spec


def _days(split_panel: SplitPanel, history: History, valid_windows: Integers) -> float:
    if not len(valid_windows):
        return 0.0
    rows = history.rows(split_panel.panel.subject[valid_windows[:1]], split_panel.panel.day[valid_windows[:1]])
    return float(np.expm1(history.statistics[rows[0], -1]))


def _trained(
    subjects: dict[str, "_Subject"],
    base: Base,
    spec: AdapterSpec,
    config: PersonaliseConfig,
    checkpoints: Path,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[str, Floats | None]]:
    """Train the LoRA factors of all subjects together, without valid windows: those are for the gate.

    Yields:
        Every subject with its factors, or None where LoRA is not tried or the training windows do not fill a batch.
    """
    nothing = np.empty(0, dtype=np.int64)
    tried = subjects if "lora" in config.methods else {}
    training = [
        SubjectExamples(s, v.train, nothing) for s, v in tried.items() if len(v.train) >= config.lora.batch_size
    ]
    trained_ids = {subject.subject_id for subject in training}
    yield from ((subject_id, None) for subject_id in subjects if subject_id not in trained_ids)
    if training:
        model = copy.deepcopy(base.forecaster).to(device())
        bank = AdapterBank(model, spec, min(config.lora.subjects_at_once, len(training)))
        batch = subjects[training[0].subject_id].batch  # accepts windows of any subject
        packed = checkpoints / "adapters.safetensors"
        train_distributed(bank, training, batch, config.lora, packed, checkpoints, progress)
        store = PackedStore(packed, spec)
        yield from ((subject_id, store.read(subject_id)) for subject_id in store.subjects)


@dataclass(frozen=True)
class _Subject:
    """Data of one subject's gate: training windows and validation windows."""

    base: Base
    split_panel: SplitPanel
    history: History
    train: Integers
    valid_windows: Integers

    def batch(self, origins: Integers, split: str) -> dict[str, torch.Tensor]:
        panel = self.split_panel.panel
        rows = self.history.rows(panel.subject[origins], panel.day[origins])
        minute = panel.minute[origins].astype(np.int64)
        batch = self.base.assembler.batch(panel.context(origins), minute, self.history, rows)
        return as_tensors({**batch, "target": self.split_panel.target(origins, split)})

    @torch.no_grad()
    def errors(self, model: Callable[..., dict[str, torch.Tensor]], adapted: float) -> tuple[Floats, float]:
        """Compute the valid windows' weighted squared errors, summed over horizons, (B,), and the sum of weights."""
        squares, weights = [], 0.0
        forecaster = self.base.forecaster
        for start in range(0, len(self.valid_windows), 2048):
            batch = self.batch(self.valid_windows[start : start + 2048], "valid")
            batch["adapted"] = batch["adapted"] * adapted
            target = batch.pop("target")
            known = ~torch.isnan(target)
            error = torch.where(known, (model(**batch)["mean"] - target) / forecaster.horizon_scale, 0.0)
            squares.append((error**2 * forecaster.horizon_weight).sum(dim=1).numpy())
            weights += float((known * forecaster.horizon_weight).sum())
        return np.concatenate(squares), weights


def _choose(subject: _Subject, config: PersonaliseConfig, bank: AdapterBank | None) -> dict[str, Any]:
    """Choose a method: the default, unless a challenger is clearly better on the subject's own valid days.

    Args:
        subject: the data.
        config: thresholds of the gate.
        bank: with the subject's factors in slot 1; None if it has none.
    """
    forecaster, day = subject.base.forecaster, subject.split_panel.panel.day[subject.valid_windows]
    errors = {"none": subject.errors(forecaster, 0.0)}
    if "online_ridge" in {*config.methods, config.default_method}:
        errors["online_ridge"] = subject.errors(forecaster, 1.0)
    if bank is not None:
        errors["lora"] = subject.errors(partial(bank, torch.tensor([1])), 1.0)
    method: Method = config.default_method
    notes = []
    for challenger in (w for w in METHODS if w in errors and w != config.default_method):
        comparison = compare(errors[method][0], errors[challenger][0], day)
        notes.append(f"{challenger} against {method}: {comparison}")
        if comparison.exceeds(config.margin, config.standard_errors):
            method = challenger
    scores = {f"valid_{w}": round(float(e.sum()) / max(weight, 1.0), 6) for w, (e, weight) in errors.items()}
    return {"method": method, "reason": "; ".join(notes), **scores}
