"""Save and load the personalisation of a model: method per subject (people.json) and `History` files.

The table is `people.json`, one entry a subject: the chosen method, the reason, the sha256 of the LoRA directory and of
the history. `adapters.json` says what all LoRA adapters share.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hallmark.adapters.bank import AdapterSpec
from hallmark.errors import BundleError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_forecaster import Base
from hallmark.families.forecasting.diary import Diary
from hallmark.families.forecasting.history import History, row_sizes
from hallmark.families.forecasting.linear_bank import CachedPasts, HistoryFiles, LinearBank
from hallmark.families.forecasting.personal import CACHE_SLOTS, METHODS, People
from hallmark.files import directory_of, read_json, readable, write_json


def save_people(out: Path, table: pd.DataFrame, spec: AdapterSpec, history: History, subjects: Sequence[str]) -> None:
    """Write everybody's newest midnights and the table of choices; the LoRA directories already lie there."""
    files = HistoryFiles({subject_id: _history_file(out, subject_id) for subject_id in subjects}, {}, {})
    rows = table.set_index("subject_id", drop=False)
    entries = []
    for code, subject_id in enumerate(subjects):
        digest = files.write(subject_id, history.newest(code))
        row = rows.loc[subject_id].to_dict()
        entry = {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()}
        entries.append({**entry, "history_sha256": digest})
    write_json(out / "people.json", entries)
    write_json(out / "adapters.json", spec.plain())


def refresh_people(people: Path, history: History, diary: Diary) -> None:
    """Write every subject's newest history again; new subjects get the default method, without a gate."""
    files = HistoryFiles({subject_id: _history_file(people, subject_id) for subject_id in diary.subjects}, {}, {})
    rows = {row["subject_id"]: row for row in read_json(people / "people.json")}
    for code, subject_id in enumerate(diary.subjects):
        joined = {"subject_id": subject_id, "method": diary.joining, "sha256": "", "reason": "joined after training"}
        row = rows.setdefault(subject_id, joined)
        row["history_sha256"] = files.write(subject_id, history.newest(code))
    write_json(people / "people.json", [rows[subject_id] for subject_id in sorted(rows)])


def _history_file(people: Path, subject_id: str) -> Path:
    return people / directory_of(subject_id) / "history.safetensors"


def load_people(directory: Path, base: Base) -> People:
    """Read the table of choices.

    Raises:
        BundleError: the adapters were made for another base.
    """
    with readable(directory, "run `dvc repro train`"):
        spec = AdapterSpec.of(read_json(directory / "adapters.json"))
        table = read_json(directory / "people.json")
        methods = {row["subject_id"]: row["method"] for row in table}
        digests = {row["subject_id"]: row["sha256"] for row in table}
        if unknown := sorted(set(methods.values()) - set(METHODS)):
            raise ValueError(f"people.json has a method {unknown[0]!r}")
        if unmarked := [subject for subject, method in methods.items() if method == "lora" and not digests[subject]]:
            raise ValueError(f"people.json has no sha256 of the adapter of {unmarked[0]!r}")
    if spec.base != base.digest:
        raise BundleError(
            f"{directory} holds adapters of base {spec.base[:12]}, this is {base.digest[:12]}: run `dvc repro train`"
        )
    return People(base, methods, directory, digests, spec)


def load_pasts(directory: Path, assembler: Assembler) -> CachedPasts:
    """Open everybody's newest midnights: a file is read, and its sha256 checked, when its subject first asks."""
    sizes = row_sizes(assembler.grid, assembler.history, assembler.scale)
    with readable(directory, "run `dvc repro train`"):
        table = read_json(directory / "people.json")
        files = {row["subject_id"]: _history_file(directory, row["subject_id"]) for row in table}
        store = HistoryFiles(files, {row["subject_id"]: row["history_sha256"] for row in table}, sizes)
    return CachedPasts(LinearBank(sizes, max(1, min(CACHE_SLOTS, len(files)))), store)
