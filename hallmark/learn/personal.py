"""Personalisation: for every subject the adapter that its own validation gate keeps, or none.

Three ways, in rising cost: `none` (personal statistics only), `online_ridge` (the linear adapter of
hallmark/learn/history.py) and `lora` (PEFT on the base, on top of the linear adapter). A subject with too
little history for a gate gets the configured default; any other gets what beats the way before it on the subject's
own valid days.
Legend of shapes: B windows, H horizons, Q quantiles.
"""

import copy
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
from hallmark.learn.base import Base, as_tensors
from hallmark.learn.history import History
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
        minimum_days: days of history below which no gate decides and no LoRA is trained.
        young_way: what such a subject gets: `none`, or `online_ridge`, whose trust the network learned by maturity.
        margin: relative gain on the subject's valid days that a way needs over the one before it.
        stride: grid points between two windows that the gate looks at.
        rank: of the LoRA matrices.
        alpha: their scale.
        steps: of the LoRA training.
        batch_size: of the LoRA training.
        learning_rate: of the LoRA training.
        seed: of its initial weights and batches.
    """

    ways: tuple[str, ...]
    minimum_days: float
    young_way: str
    margin: float
    stride: int
    rank: int
    alpha: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "ways", tuple(self.ways))
        if unknown := set(self.ways) - set(WAYS):
            raise ValueError(f"ways={sorted(unknown)} are unknown: choose among {', '.join(WAYS)}")
        if self.young_way not in ("none", "online_ridge"):
            raise ValueError(f"young_way={self.young_way!r} must be none or online_ridge")
        for name in ("rank", "alpha", "steps", "batch_size", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


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


def load_lora(forecaster: Forecaster, directory: Path) -> Forecaster:
    """Merge a PEFT adapter into a copy of the forecaster."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(copy.deepcopy(forecaster), str(directory)).merge_and_unload()
    assert isinstance(merged, Forecaster)
    return merged.eval()


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
        One row a subject: way, reason, days of history, valid score of every way tried (mean squared error of
        the short horizons in units of the population ridge's), sha256 of the LoRA directory.
    """
    panel = parts.panel
    train, valid = parts.origins("train"), parts.origins("valid")
    valid = valid[:: config.stride]
    out.mkdir(parents=True, exist_ok=True)
    table = []
    for code, subject_id in enumerate(panel.subjects):
        progress(code, len(panel.subjects))
        mine, looks = train[panel.subject[train] == code], valid[panel.subject[valid] == code]
        row: dict[str, Any] = {"subject_id": subject_id, "way": "none", "sha256": ""}
        days = _days(parts, history, looks)
        row["days"] = round(days, 1)
        if days < config.minimum_days:
            row["way"] = config.young_way
            row["reason"] = f"{days:.0f} days of history, a gate needs {config.minimum_days:g}"
        else:
            row.update(_choose(base, parts, history, config, mine, looks, out, subject_id))
        table.append(row)
    progress(len(panel.subjects), len(panel.subjects))
    columns = ["subject_id", "way", "reason", "days", *(f"valid_{w}" for w in WAYS), "sha256"]
    return pd.DataFrame(table).reindex(columns=columns)


def _days(parts: Parts, history: History, looks: Integers) -> float:
    if not len(looks):
        return 0.0
    rows = history.rows(parts.panel.subject[looks[:1]], parts.panel.day[looks[:1]])
    return float(np.expm1(history.statistics[rows[0], -1]))


def _choose(
    base: Base,
    parts: Parts,
    history: History,
    config: PersonaliseConfig,
    train: Integers,
    looks: Integers,
    out: Path,
    subject_id: str,
) -> dict[str, Any]:
    scores = {"none": _score(base, base.forecaster, parts, history, looks, 0.0)}
    way, reason, digest = "none", "no way tried was better on this subject's valid days", ""
    if "online_ridge" in config.ways:
        scores["online_ridge"] = _score(base, base.forecaster, parts, history, looks, 1.0)
        if scores["online_ridge"] < scores["none"] * (1 - config.margin):
            way, reason = "online_ridge", _gain("online_ridge", scores["none"], scores["online_ridge"])
    if "lora" in config.ways and len(train) >= config.batch_size:
        directory = out / directory_of(subject_id) / "lora"
        scores["lora"] = fit_lora(base, parts, history, config, train, looks, directory)
        if scores["lora"] < scores[way] * (1 - config.margin):
            way, reason, digest = "lora", _gain("lora", scores[way], scores["lora"]), sha256(directory)
        else:
            _remove(directory.parent)
    return {"way": way, "reason": reason, "sha256": digest, **{f"valid_{k}": round(v, 6) for k, v in scores.items()}}


def _gain(way: str, before: float, after: float) -> str:
    return f"{way} lowers the valid error by {1 - after / before:.1%}"


def _remove(directory: Path) -> None:
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


@torch.no_grad()
def _score(
    base: Base, model: torch.nn.Module, parts: Parts, history: History, looks: Integers, adapted: float
) -> float:
    """Weighted mean squared error on some windows, in units of the population ridge's residuals."""
    model.eval()
    total, weight = 0.0, 0.0
    forecaster = base.forecaster
    for start in range(0, len(looks), 2048):
        part = looks[start : start + 2048]
        batch = _batch(base, parts, history, part, "valid")
        batch["adapted"] = batch["adapted"] * adapted
        target = batch.pop("target")
        error = (model(**batch)["mean"] - target) / forecaster.horizon_scale
        there = ~torch.isnan(error)
        total += float((torch.where(there, error, 0.0) ** 2 * forecaster.horizon_weight).sum())
        weight += float((there * forecaster.horizon_weight).sum())
    return total / max(weight, 1.0)


def _batch(base: Base, parts: Parts, history: History, origins: Integers, part: str) -> dict[str, torch.Tensor]:
    panel = parts.panel
    rows = history.rows(panel.subject[origins], panel.day[origins])
    batch = base.assembler.batch(panel.context(origins), panel.minute[origins].astype(np.int64), history, rows)
    return as_tensors({**batch, "target": parts.target(origins, part)})


def fit_lora(
    base: Base,
    parts: Parts,
    history: History,
    config: PersonaliseConfig,
    train: Integers,
    looks: Integers,
    directory: Path,
) -> float:
    """Train one subject's LoRA adapter and write it in PEFT's format.

    Returns:
        Its score on the subject's valid windows.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    adapter = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=base.forecaster.lora_targets, bias="none"
    )
    model = get_peft_model(copy.deepcopy(base.forecaster), adapter)
    model.train()
    forecaster = model.get_base_model()
    assert isinstance(forecaster, Forecaster)
    forecaster.history_dropout = forecaster.adapter_dropout = 0.0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.learning_rate)
    generator = np.random.default_rng(config.seed)
    for _ in range(config.steps):
        batch = _batch(base, parts, history, generator.choice(train, config.batch_size), "train")
        loss = model(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    score = _score(base, model, parts, history, looks, 1.0)
    model.save_pretrained(str(directory), safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's model card carries versions and dates
    return score
