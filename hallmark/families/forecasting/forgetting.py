"""Take a subject out of a trained model: its adapter, its past, its intervals, and its place in the refresh state."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hallmark.adapters.bank import AdapterSpec
from hallmark.adapters.files import PackedStore
from hallmark.families.forecasting.intervals import Calibration, load_calibration, save_calibration
from hallmark.families.forecasting.personalisation import PACKED, TREE, write_adapters
from hallmark.families.forecasting.refresh import INDEX, READINGS, RIDGE
from hallmark.files import as_bundle_error, directory_of, read_json, sha256, write_json

REMEDY = "check the model with `hallmark verify`"


def forget_subject(model: Path, subject_id: str) -> bool:
    """Rewrite a model directory in place, without a subject; what is left of the others keeps its bits.

    Returns:
        Whether the subject was in it.

    Raises:
        BundleError: a file cannot be read.
    """
    subjects = model / "subjects"
    with as_bundle_error(subjects, REMEDY):
        table = read_json(subjects / "subjects.json")
        rest = [row for row in table if row["subject_id"] != subject_id]
        if (subjects / PACKED).is_file():
            _forget_packed(subjects, table, subject_id)
        calibrated = _forget_intervals(model / "calibration", subject_id)
        shutil.rmtree(subjects / directory_of(subject_id), ignore_errors=True)
        write_json(subjects / "subjects.json", rest)
    return len(rest) < len(table) or calibrated


def forget_in_state(state: Path, subject_id: str, personalisation: Path) -> bool:
    """Rewrite a refresh state in place, without a subject; returns whether the subject was in it.

    Args:
        state: its directory.
        subject_id: whose.
        personalisation: the `subjects.json` that the state then belongs to.
    """
    with as_bundle_error(state, REMEDY):
        index = read_json(state / INDEX)
        known = subject_id in index["subjects"]
        if known:
            place = index["subjects"].index(subject_id)
            tensors = load_file(str(state / RIDGE))  # the first axis of each is that of the subjects
            kept = {name: np.ascontiguousarray(np.delete(array, place, axis=0)) for name, array in tensors.items()}
            save_file(kept, str(state / RIDGE))
            readings = pd.read_parquet(state / READINGS)
            readings[readings["subject_id"] != subject_id].to_parquet(state / READINGS, index=False)
            for name in ("subjects", "seen"):
                del index[name][place]
            index["sha256"] = {name: sha256(state / name) for name in (RIDGE, READINGS)}
        write_json(state / INDEX, {**index, "personalisation": sha256(personalisation)})
    return known


def _forget_packed(subjects: Path, table: list[dict[str, str]], subject_id: str) -> None:
    """Write the file of all LoRA adapters again, without one."""
    spec = AdapterSpec.of(read_json(subjects / "adapters.json"))
    store = PackedStore(subjects / PACKED, spec, read_json(subjects / TREE)["root"])
    names = [row["subject_id"] for row in table if row["method"] == "lora"]
    if subject_id not in names:
        return
    rows = {name: store.read(name) for name in names if name != subject_id}
    if rows:
        write_adapters(subjects, rows, spec)
    else:
        (subjects / PACKED).unlink()
        (subjects / TREE).unlink()


def _forget_intervals(directory: Path, subject_id: str) -> bool:
    """Take the rows of a subject out of the offsets; returns whether there were any."""
    if not (directory / "index.json").is_file():
        return False
    calibration: Calibration = load_calibration(directory)
    if subject_id not in calibration.first_row:
        return False
    start, _, days = calibration.first_row[subject_id]
    moved = {
        name: (row - days if row > start else row, first, count)
        for name, (row, first, count) in calibration.first_row.items()
        if name != subject_id
    }
    personal = np.delete(calibration.personal, np.s_[start : start + days], axis=0)
    save_calibration(directory, replace(calibration, personal=personal, first_row=moved))
    return True
