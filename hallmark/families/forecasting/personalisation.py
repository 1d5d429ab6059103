"""Personalisation: a base model with every subject's method and adapter; save and load it.

`subjects.json` has one entry per subject: the chosen method, the reason, the sha256 of the LoRA adapter and of the
history. `adapters.json` holds what all LoRA adapters share. An adapter is a directory in PEFT's format, or a row of
`adapters.safetensors`; the root of the hash tree of those rows is then in `tree.json`, and the manifest vouches for it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch

from hallmark.adapters.bank import AdapterBank, AdapterSpec
from hallmark.adapters.cache import AdapterCache
from hallmark.adapters.files import PackedStore, PeftStore, write_packed
from hallmark.arrays import Floats, Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_model import Base, as_tensors
from hallmark.families.forecasting.history import History, row_sizes
from hallmark.families.forecasting.linear_bank import CachedHistory, HistoryBank, HistoryFiles
from hallmark.families.forecasting.refresh import RefreshState, Update, known_readings
from hallmark.files import as_bundle_error, directory_of, read_json, write_json

Method = Literal["none", "online_ridge", "lora"]
METHODS: tuple[Method, ...] = get_args(Method)
CACHE_SLOTS = 256  # adapters that stay in memory while serving
PACKED, TREE = "adapters.safetensors", "tree.json"
SHARED = ("subjects.json", "adapters.json", TREE)
"""Files of all subjects, without which none can be read."""


class Batch(NamedTuple):
    """Answers to the rows of a batch.

    Attributes:
        mean: (B, H), in the value's unit.
        quantiles: (B, H, Q), in the value's unit.
        reasons: for every subject why its LoRA adapter is not used although its gate chose it, else empty.
        digests: for every subject the sha256 of the LoRA factors that were multiplied, empty if none were.
        failure: why the network has no answers, else empty.
    """

    mean: Floats
    quantiles: Floats
    reasons: list[str]
    digests: list[str]
    failure: str = ""


@dataclass(frozen=True)
class Personalisation:
    """A base model with the adapters of all subjects.

    Attributes:
        base: the model that newcomers get.
        methods: subject_id → the method that its gate chose; a subject without an entry is a newcomer.
        adapters: directory of the LoRA adapters.
        digests: subject_id → sha256 of its LoRA adapter.
        spec: what the LoRA adapters share.
        root: of the hash tree if all adapters are in one file, else None.
    """

    base: Base
    methods: dict[str, str]
    adapters: Path
    digests: dict[str, str]
    spec: AdapterSpec
    root: str | None = None

    @cached_property
    def cache(self) -> AdapterCache:
        """Cache of the LoRA adapters in the slots of a bank."""
        with_lora = [subject_id for subject_id, method in self.methods.items() if method == "lora"]
        bank = AdapterBank(copy.deepcopy(self.base.forecaster), self.spec, max(1, min(CACHE_SLOTS, len(with_lora))))
        if self.root is not None:
            return AdapterCache(bank, PackedStore(self.adapters / PACKED, self.spec, self.root))
        directories = {subject_id: lora_directory(self.adapters, subject_id) for subject_id in with_lora}
        return AdapterCache(bank, PeftStore(directories, self.digests, self.spec))

    @torch.no_grad()
    def answer(self, subjects: Sequence[str | None], batch: dict[str, Any]) -> "Batch":
        """Answer an assembled batch, row i by the method of subjects[i], or all rows by that of a single subject."""
        methods = [self.methods.get(subject_id or "", "none") for subject_id in subjects]
        wanted = [
            subject_id if method == "lora" else None for subject_id, method in zip(subjects, methods, strict=True)
        ]
        adapted = batch["adapted"] * np.asarray([method != "none" for method in methods], dtype=np.float32)
        inputs = as_tensors({**batch, "adapted": adapted})
        reasons, digests = [""] * len(subjects), [""] * len(subjects)
        if any(wanted):
            out, why, digests = self.cache.forward_witnessed(wanted, **inputs)
            reasons = ["" if adapter is None else reason for adapter, reason in zip(wanted, why, strict=True)]
        else:
            out = self.base.network(**inputs)
        return Batch(out["mean"].numpy(), out["quantiles"].numpy(), reasons, digests)

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
        answered = self.answer([subject_id], batch)
        if why := answered.reasons[0]:
            raise BundleError(f"subject {subject_id!r}: {why}; run `dvc repro train`")
        return answered.mean, answered.quantiles


def lora_directory(directory: Path, subject_id: str) -> Path:
    """Return the directory of a subject's LoRA adapter, in PEFT's format."""
    return directory / directory_of(subject_id) / "lora"


def write_adapters(directory: Path, rows: Mapping[str, Floats], spec: AdapterSpec) -> None:
    """Write all LoRA adapters into one file, and the root of their hash tree beside it."""
    root = write_packed(iter(rows.items()), len(rows), spec, directory / PACKED)
    write_json(directory / TREE, {"root": root})


def save_personalisation(
    out: Path, table: pd.DataFrame, spec: AdapterSpec, history: History, state: RefreshState, assembler: Assembler
) -> None:
    """Write every subject's newest midnights and the table of methods; the LoRA adapters exist already."""
    subjects, known = state.subjects, known_readings(state, history, assembler)
    files = HistoryFiles({subject_id: _history_file(out, subject_id) for subject_id in subjects}, {}, {})
    rows = table.set_index("subject_id", drop=False)
    entries = []
    for code, subject_id in enumerate(subjects):
        digest = files.write(subject_id, history.newest(code), known[code], int(history.first_day[code]))
        row = rows.loc[subject_id].to_dict()
        entry = {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()}
        entries.append({**entry, "history_sha256": digest})
    write_json(out / "subjects.json", entries)
    write_json(out / "adapters.json", spec.plain())


def refresh_personalisation(subjects: Path, updated: Update, assembler: Assembler) -> None:
    """Write the newest history of everybody with new readings; new subjects get the default method, without a gate.

    All others keep their files, byte for byte: nobody's readings touch what another one is answered with.
    """
    history, refresh_state = updated.history, updated.state
    rows = {row["subject_id"]: row for row in read_json(subjects / "subjects.json")}
    digests = {subject_id: row["history_sha256"] for subject_id, row in rows.items()}
    paths = {subject_id: _history_file(subjects, subject_id) for subject_id in refresh_state.subjects}
    files, known = HistoryFiles(paths, digests, {}), known_readings(refresh_state, history, assembler)
    for code, subject_id in enumerate(refresh_state.subjects):
        if subject_id not in updated.changed:
            continue
        joined = {
            "subject_id": subject_id,
            "method": refresh_state.default_method,
            "sha256": "",
            "reason": "joined after training",
        }
        row = rows.setdefault(subject_id, joined)
        since = files.past(subject_id).since if subject_id in digests else int(history.first_day[code])
        row["history_sha256"] = files.write(subject_id, history.newest(code), known[code], since)
    write_json(subjects / "subjects.json", [rows[subject_id] for subject_id in sorted(rows)])


def _history_file(subjects: Path, subject_id: str) -> Path:
    return subjects / directory_of(subject_id) / "history.safetensors"


def load_personalisation(directory: Path, base: Base) -> Personalisation:
    """Load the personalisation of a base model.

    Raises:
        BundleError: the adapters were made for another base.
    """
    with as_bundle_error(directory, "run `dvc repro train`"):
        spec = AdapterSpec.of(read_json(directory / "adapters.json"))
        table = read_json(directory / "subjects.json")
        methods = {row["subject_id"]: row["method"] for row in table}
        digests = {row["subject_id"]: row["sha256"] for row in table}
        if unknown := sorted(set(methods.values()) - set(METHODS)):
            raise ValueError(f"subjects.json has a method {unknown[0]!r}")
        if missing := [subject for subject, method in methods.items() if method == "lora" and not digests[subject]]:
            raise ValueError(f"subjects.json has no sha256 of the adapter of {missing[0]!r}")
        root = read_json(directory / TREE)["root"] if (directory / TREE).is_file() else None
    if base.whole and spec.base != base.digest:
        raise BundleError(
            f"{directory} holds adapters of base {spec.base[:12]}, this is {base.digest[:12]}: run `dvc repro train`"
        )
    return Personalisation(base, methods, directory, digests, spec, root)


def load_history(directory: Path, assembler: Assembler) -> CachedHistory:
    """Open all newest midnights: a file is read, and its sha256 checked, at the subject's first request."""
    sizes = row_sizes(assembler.grid, assembler.history, assembler.scale)
    with as_bundle_error(directory, "run `dvc repro train`"):
        table = read_json(directory / "subjects.json")
        files = {row["subject_id"]: _history_file(directory, row["subject_id"]) for row in table}
        store = HistoryFiles(files, {row["subject_id"]: row["history_sha256"] for row in table}, sizes)
    return CachedHistory(HistoryBank(sizes, max(1, min(CACHE_SLOTS, len(files)))), store)
