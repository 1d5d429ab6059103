"""Personalisation: for every subject the adapter that its own validation gate keeps, or none.

Three ways, in rising cost: `none` (personal statistics only), `online_ridge` (the linear adapter of
hallmark/learn/history.py) and `lora` (PEFT on the base, on top of the linear adapter). Everybody starts
with the configured default; with enough history and valid days a gate may prefer another way: one whose errors on
the subject's own valid days fall by a margin and by more than chance (hallmark/learn/choice.py).
Legend of shapes: B windows, H horizons, Q quantiles.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch

from hallmark.errors import BundleError
from hallmark.files import sha256
from hallmark.learn.base_forecaster import Base, as_tensors
from hallmark.learn.choice import compare
from hallmark.learn.history import History
from hallmark.learn.lora import LoraSettings, fit_lora, load_lora
from hallmark.models.forecaster import Forecaster
from hallmark.read.panel import Floats, Integers
from hallmark.read.splits import Parts

WAYS = ("none", "online_ridge", "lora")
MOST_LOADED = 32  # adapters that stay merged in memory, a copy of the network each


@dataclass(frozen=True)
class PersonaliseConfig:
    """How subjects are personalised.

    Attributes:
        ways: what may be tried, of `none`, `online_ridge`, `lora`; `none` is always there.
        default_way: what a subject gets unless a gate prefers another: `none`, or `online_ridge`, whose trust the
            network learned by maturity.
        minimum_days: days of history below which no gate decides and no LoRA is trained.
        minimum_valid_days: days with valid windows below which no gate decides.
        margin: relative gain on the subject's valid days that a way needs over the one before it.
        sureness: standard errors over those days that the gain must exceed as well.
        stride: grid points between two windows that the gate looks at.
        lora: how an adapter is trained.
    """

    ways: tuple[str, ...]
    default_way: str
    minimum_days: float
    minimum_valid_days: int
    margin: float
    sureness: float
    stride: int
    lora: LoraSettings

    def __post_init__(self) -> None:
        object.__setattr__(self, "ways", tuple(self.ways))
        if unknown := set(self.ways) - set(WAYS):
            raise ValueError(f"ways={sorted(unknown)} are unknown: choose among {', '.join(WAYS)}")
        if self.default_way not in ("none", "online_ridge"):
            raise ValueError(f"default_way={self.default_way!r} must be none or online_ridge")
        if self.stride < 1:
            raise ValueError(f"stride={self.stride} must be at least 1")


def directory_of(subject_id: str) -> str:
    """Name a subject's directory: the id, percent-encoded, so that no id can leave its folder."""
    return quote(subject_id, safe="").replace(".", "%2E")


@dataclass(frozen=True)
class People:
    """A base with everybody's adapters.

    Attributes:
        base: what newcomers get.
        ways: subject_id → the way that its gate chose; a subject without an entry is a newcomer.
        adapters: directory of the LoRA adapters, one directory a subject.
        digests: subject_id → sha256 of its LoRA directory.
    """

    base: Base
    ways: dict[str, str]
    adapters: Path
    digests: dict[str, str]
    _loaded: dict[str, Forecaster] = field(default_factory=dict, repr=False, compare=False)

    def forecast(
        self, subject_id: str, context: Floats, minute: Any, history: History | None, rows: Integers | None
    ) -> tuple[Floats, Floats]:
        """Forecast one subject's windows its own way; see `Base.forecast`."""
        way = self.ways.get(subject_id, "none")
        base = self.base if way != "lora" else Base(self.base.assembler, self._adapted(subject_id))
        return base.forecast(context, minute, history, rows, np.full(len(context), way != "none", dtype=np.float32))

    def _adapted(self, subject_id: str) -> Forecaster:
        """Load a subject's adapter once; the most recently used MOST_LOADED stay."""
        if subject_id not in self._loaded:
            self._loaded[subject_id] = self._load(subject_id)
        self._loaded[subject_id] = found = self._loaded.pop(subject_id)  # dicts keep their order: now the newest
        while len(self._loaded) > MOST_LOADED:
            del self._loaded[next(iter(self._loaded))]
        return found

    def _load(self, subject_id: str) -> Forecaster:
        directory = self.adapters / directory_of(subject_id) / "lora"
        if not directory.is_dir() or sha256(directory) != self.digests.get(subject_id):
            raise BundleError(f"adapter of subject {subject_id!r} is missing or changed: run `dvc repro train`")
        return load_lora(self.base.forecaster, directory)


def personalise(
    base: Base,
    parts: Parts,
    history: History,
    config: PersonaliseConfig,
    out: Path,
    progress: Callable[[int, int], None],
) -> pd.DataFrame:
    """Let every subject's gate choose, and write the adapters that were chosen.

    Returns:
        One row a subject: way, reason, days of history, days with valid windows, valid score of every way tried
        (mean squared error of all horizons, weighted as in training, in units of the population ridge's), sha256 of
        the LoRA directory.
    """
    panel = parts.panel
    train, valid = parts.origins("train"), parts.origins("valid")
    valid = valid[:: config.stride]
    out.mkdir(parents=True, exist_ok=True)
    table = []
    for code, subject_id in enumerate(panel.subjects):
        progress(code, len(panel.subjects))
        looks = valid[panel.subject[valid] == code]
        days, valid_days = _days(parts, history, looks), len(np.unique(panel.day[looks]))
        row: dict[str, Any] = {"subject_id": subject_id, "days": round(days, 1), "valid_days": valid_days}
        row |= {"way": config.default_way, "sha256": ""}
        if days < config.minimum_days:
            row["reason"] = f"{days:.0f} days of history, a gate needs {config.minimum_days:g}"
        elif valid_days < config.minimum_valid_days:
            row["reason"] = f"{valid_days} valid days, a gate needs {config.minimum_valid_days}"
        else:
            subject = _Subject(base, parts, history, train[panel.subject[train] == code], looks)
            row |= _choose(subject, config, out / directory_of(subject_id))
        table.append(row)
    progress(len(panel.subjects), len(panel.subjects))
    columns = ["subject_id", "way", "reason", "days", "valid_days", *(f"valid_{w}" for w in WAYS), "sha256"]
    return pd.DataFrame(table).reindex(columns=columns)


def _days(parts: Parts, history: History, looks: Integers) -> float:
    if not len(looks):
        return 0.0
    rows = history.rows(parts.panel.subject[looks[:1]], parts.panel.day[looks[:1]])
    return float(np.expm1(history.statistics[rows[0], -1]))


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
    def errors(self, model: Forecaster, adapted: float) -> tuple[Floats, float]:
        """Weighted squared errors of every look, summed over horizons, (B,), and the sum of all weights."""
        found, weights = [], 0.0
        for start in range(0, len(self.looks), 2048):
            batch = self.batch(self.looks[start : start + 2048], "valid")
            batch["adapted"] = batch["adapted"] * adapted
            target = batch.pop("target")
            there = ~torch.isnan(target)
            error = torch.where(there, (model(**batch)["mean"] - target) / model.horizon_scale, 0.0)
            found.append((error**2 * model.horizon_weight).sum(dim=1).numpy())
            weights += float((there * model.horizon_weight).sum())
        return np.concatenate(found), weights


def _choose(subject: _Subject, config: PersonaliseConfig, directory: Path) -> dict[str, Any]:
    """Start from the default way; a challenger must convince on the subject's own valid days."""
    forecaster, day = subject.base.forecaster, subject.parts.panel.day[subject.looks]
    errors = {"none": subject.errors(forecaster, 0.0)}
    if "online_ridge" in {*config.ways, config.default_way}:
        errors["online_ridge"] = subject.errors(forecaster, 1.0)
    lora = directory / "lora"
    if "lora" in config.ways and len(subject.train) >= config.lora.batch_size:
        adapted = fit_lora(forecaster, lambda o: subject.batch(o, "train"), subject.train, config.lora, lora)
        errors["lora"] = subject.errors(adapted, 1.0)
    way, notes = config.default_way, []
    for challenger in (w for w in WAYS if w in errors and w != config.default_way):
        found = compare(errors[way][0], errors[challenger][0], day)
        notes.append(f"{challenger} against {way}: {found}")
        if found.convinces(config.margin, config.sureness):
            way = challenger
    if way != "lora":
        shutil.rmtree(directory, ignore_errors=True)
    scores = {f"valid_{w}": round(float(e.sum()) / max(weight, 1.0), 6) for w, (e, weight) in errors.items()}
    return {"way": way, "reason": "; ".join(notes), "sha256": sha256(lora) if way == "lora" else "", **scores}
