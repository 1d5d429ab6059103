"""Adapters: chosen by each person's gate, in PEFT's format, and equal to PEFT's own forward pass."""

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel

from hallmark.build import build
from hallmark.contracts import silent
from hallmark.errors import BundleError
from hallmark.files import read_json
from hallmark.learn.base_forecaster import as_tensors, load_base
from hallmark.learn.lora import fit_lora, load_lora
from hallmark.learn.personal import People, _Subject, directory_of
from hallmark.tasks.glucose.predictor import load_people


@pytest.fixture(scope="module")
def table(trained: Path) -> pd.DataFrame:
    return pd.DataFrame(read_json(trained / "people" / "people.json"))


def test_every_person_has_a_way_and_a_reason(table: pd.DataFrame, prepared: Any) -> None:
    assert set(table["subject_id"]) == set(prepared.subjects["subject_id"])
    assert (table["reason"].str.len() > 10).all()
    assert table["way"].isin(["none", "online_ridge", "lora"]).all()


def test_a_gate_leaves_the_default_only_for_what_was_better(
    task: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained / "base", tmp_path / "base")
    node = {**params["personalise"], "default_way": "none", "sureness": 0.0, "margin": 0.01}
    task.personalise(prepared, tmp_path, build(node), silent)
    rows = read_json(tmp_path / "people" / "people.json")
    decided = [row for row in rows if row["days"] >= node["minimum_days"]]
    assert decided
    assert any(row["way"] != "none" for row in decided)
    for row in decided:
        assert "online_ridge against none" in row["reason"]
        tried = [row[f"valid_{way}"] for way in ("none", "online_ridge", "lora")]
        if row["way"] == "none":
            assert tried[1] >= tried[0] * 0.99
        else:
            assert row[f"valid_{row['way']}"] < tried[0] * 0.99


@pytest.mark.parametrize(
    ("key", "reason"), [("minimum_days", "days of history, a gate needs 99"), ("minimum_valid_days", "valid days, a")]
)
def test_without_enough_days_no_gate_decides(
    key: str, reason: str, task: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained / "base", tmp_path / "base")
    config = build({**params["personalise"], key: 99})
    assert task.personalise(prepared, tmp_path, config, silent)["ways"] == {"online_ridge": len(prepared.subjects)}
    assert any(reason in row["reason"] for row in read_json(tmp_path / "people" / "people.json"))
    assert not list((tmp_path / "people").glob("*/lora"))


def test_a_lora_adapter_loads_as_peft_loads_it(
    task: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    base, parts = load_base(trained / "base"), task.parts(prepared)
    history = task._history(base.assembler, parts.panel)
    train = parts.origins("train")
    mine = train[parts.panel.subject[train] == 0]
    subject = _Subject(base, parts, history, mine, mine)
    settings = build(params["personalise"]).lora
    adapted = fit_lora(base.forecaster, lambda o: subject.batch(o, "train"), mine, settings, tmp_path / "lora")
    assert {p.name for p in (tmp_path / "lora").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    oracle = PeftModel.from_pretrained(copy.deepcopy(base.forecaster), str(tmp_path / "lora")).eval()
    minute = parts.panel.minute[mine[:64]].astype(np.int64)
    batch = as_tensors(base.assembler.batch(parts.panel.context(mine[:64]), minute, None, None))
    with torch.no_grad():
        ours = load_lora(base.forecaster, tmp_path / "lora")(**batch)["quantiles"]
        torch.testing.assert_close(ours, oracle(**batch)["quantiles"], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(ours, adapted(**batch)["quantiles"], rtol=1e-5, atol=1e-3)
        assert not torch.equal(ours, base.forecaster(**batch)["quantiles"])


def test_a_changed_adapter_is_refused(trained: Path, tmp_path: Path, table: pd.DataFrame) -> None:
    base = load_base(trained / "base")
    people = load_people(trained / "people", base)
    broken = People(base, {"x": "lora"}, tmp_path, people.digests)
    (tmp_path / "x" / "lora").mkdir(parents=True)
    with pytest.raises(BundleError, match="adapter of subject 'x' is missing or changed"):
        broken.forecast("x", np.zeros((1, 576), dtype=np.float32), np.zeros(1, dtype=np.int64), None, None)


@pytest.mark.parametrize("subject", ["../../etc", "a/b", "..", ".", "a\\b", "ü ö", "con:1"])
def test_no_subject_id_leaves_its_folder(subject: str, tmp_path: Path) -> None:
    name = directory_of(subject)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert name not in ("", ".", "..")


def test_a_person_without_one_whole_window_is_carried_through(
    task: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    first = prepared.subjects["subject_id"].iloc[0]
    mine = prepared.rows["subject_id"] == first
    sparse = prepared.rows[~mine | (prepared.rows.groupby("subject_id").cumcount() % 12 == 0)]
    holes = dataclasses.replace(prepared, rows=sparse)
    shutil.copytree(trained / "base", tmp_path / "base")
    task.personalise(holes, tmp_path, build({**params["personalise"], "ways": ["none", "online_ridge"]}), silent)
    task.calibrate(holes, tmp_path, build(params["calibrate"]), silent)
    ways = {row["subject_id"]: row["way"] for row in read_json(tmp_path / "people" / "people.json")}
    assert ways[first] == "online_ridge"
    assert task.predictor(tmp_path, "", "").codes[first] == 0
