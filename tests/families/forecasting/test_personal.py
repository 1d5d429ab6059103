"""Adapters: chosen by each person's gate, in PEFT's format, and equal to PEFT's own forward pass."""

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel

from hallmark.build import build
from hallmark.contracts import no_progress
from hallmark.errors import BundleError
from hallmark.families.forecasting.base_model import as_tensors, load_base
from hallmark.families.forecasting.personalisation import load_personalisation, lora_directory
from hallmark.families.forecasting.predictor import BLOCK
from hallmark.files import directory_of, read_json, sha256
from tests.tasks.glucose.requests import request_of


@pytest.fixture(scope="module")
def table(trained: Path) -> pd.DataFrame:
    return pd.DataFrame(read_json(trained / "subjects" / "subjects.json"))


def test_every_person_has_a_way_and_a_reason(table: pd.DataFrame, prepared: Any) -> None:
    assert set(table["subject_id"]) == set(prepared.subjects["subject_id"])
    assert (table["reason"].str.len() > 10).all()
    assert table["method"].isin(["none", "online_ridge", "lora"]).all()


def test_a_gate_leaves_the_default_only_for_what_was_better(
    task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained / "base", tmp_path / "base")
    node = {**params["personalise"], "default_method": "none", "standard_errors": 0.0, "margin": 0.01}
    learner.personalise(task, prepared, tmp_path, build(node), tmp_path / "scratch", no_progress)
    rows = read_json(tmp_path / "subjects" / "subjects.json")
    decided = [row for row in rows if row["days"] >= node["min_days"]]
    assert decided
    assert any(row["method"] != "none" for row in decided)
    for row in decided:
        assert "online_ridge against none" in row["reason"]
        tried = [row[f"valid_{method}"] for method in ("none", "online_ridge", "lora")]
        if row["method"] == "none":
            assert tried[1] >= tried[0] * 0.99
        else:
            assert row[f"valid_{row['method']}"] < tried[0] * 0.99


@pytest.mark.parametrize(
    ("key", "reason"), [("min_days", "days of history, a gate needs 99"), ("min_valid_days", "valid days, a")]
)
def test_without_enough_days_no_gate_decides(
    key: str, reason: str, task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained / "base", tmp_path / "base")
    config = build({**params["personalise"], key: 99})
    found = learner.personalise(task, prepared, tmp_path, config, tmp_path / "scratch", no_progress)
    assert found["methods"] == {"online_ridge": len(prepared.subjects)}
    assert any(reason in row["reason"] for row in read_json(tmp_path / "subjects" / "subjects.json"))
    assert not list((tmp_path / "subjects").glob("*/lora"))


@pytest.fixture(scope="module")
def everyone_has_lora(
    task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path_factory: Any
) -> Path:
    where: Path = tmp_path_factory.mktemp("lora")
    for part in ("base", "calibration"):
        shutil.copytree(trained / part, where / part)
    node = {**params["personalise"], "default_method": "none", "margin": -1.0, "standard_errors": -100.0}
    assert (
        learner.personalise(task, prepared, where, build(node), where / "scratch", no_progress)["methods"]["lora"] > 1
    )
    return where


def test_a_lora_adapter_speaks_as_peft_loads_it(task: Any, prepared: Any, everyone_has_lora: Path) -> None:
    base, split_panel = load_base(everyone_has_lora / "base"), task.split_panel(prepared)
    people = load_personalisation(everyone_has_lora / "subjects", base)
    subject_id = next(s for s, method in people.methods.items() if method == "lora")
    directory = lora_directory(everyone_has_lora / "subjects", subject_id)
    assert {p.name for p in directory.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    oracle = PeftModel.from_pretrained(copy.deepcopy(base.forecaster), str(directory)).eval()
    origins = split_panel.origins("train")[:64]
    minute = split_panel.panel.minute[origins].astype(np.int64)
    batch = base.assembler.batch(split_panel.panel.context(origins), minute, None, None)
    _, quantiles, [why], *_ = people.answer([subject_id], batch)
    assert why == ""
    with torch.no_grad():
        theirs = oracle(**as_tensors(batch))["quantiles"].numpy()
        plain = base.forecaster(**as_tensors(batch))["quantiles"].numpy()
    np.testing.assert_allclose(quantiles, theirs, rtol=1e-5, atol=1e-3)
    assert not np.array_equal(quantiles, plain)


def test_people_of_one_batch_each_get_their_own_adapter(task: Any, prepared: Any, everyone_has_lora: Path) -> None:
    base, split_panel = load_base(everyone_has_lora / "base"), task.split_panel(prepared)
    people = load_personalisation(everyone_has_lora / "subjects", base)
    subjects = [*(s for s, method in people.methods.items() if method == "lora"), None, "stranger"]
    origins = np.repeat(split_panel.origins("train")[:1], len(subjects))
    batch = base.assembler.batch(
        split_panel.panel.context(origins), split_panel.panel.minute[origins].astype(np.int64), None, None
    )
    means, _, reasons, *_ = people.answer(subjects, batch)
    assert not any(reasons)
    for i, subject_id in enumerate(subjects):
        alone = people.answer([subject_id], {name: array[i : i + 1] for name, array in batch.items()})[0]
        np.testing.assert_allclose(means[i], alone[0], rtol=1e-5, atol=1e-3)
    assert len({mean.tobytes() for mean in means}) == len(subjects) - 1  # newcomers share the base, nobody else does


def test_a_row_of_a_full_block_has_the_same_bits_wherever_it_stands(
    task: Any, prepared: Any, everyone_has_lora: Path
) -> None:
    base, split_panel = load_base(everyone_has_lora / "base"), task.split_panel(prepared)
    people = load_personalisation(everyone_has_lora / "subjects", base)
    subjects = [*people.methods, None]
    origins = split_panel.origins("train")[:: len(split_panel.origins("train")) // BLOCK][:BLOCK]
    batch = base.assembler.batch(
        split_panel.panel.context(origins), split_panel.panel.minute[origins].astype(np.int64), None, None
    )
    who = [subjects[i % len(subjects)] for i in range(BLOCK)]
    first = people.answer(who, batch)
    generator = np.random.default_rng(0)
    for _ in range(5):
        order = generator.permutation(BLOCK)
        moved = people.answer([who[i] for i in order], {name: array[order] for name, array in batch.items()})
        np.testing.assert_array_equal(moved[0], first[0][order])
        np.testing.assert_array_equal(moved[1], first[1][order])


def test_the_bits_of_an_answer_depend_on_its_own_request_alone(
    task: Any, learner: Any, prepared: Any, everyone_has_lora: Path
) -> None:
    predictor = learner.open(task, everyone_has_lora, "1.0.0", "0" * 64)
    panel = task.split_panel(prepared).panel
    requests = []
    for code, subject_id in enumerate(panel.subjects):
        last = panel.origins[panel.subject[panel.origins] == code][-6:]
        requests += [request_of(panel, int(o), subject_id=subject_id) for o in last]
        requests += [request_of(panel, int(o), subject_id=None) for o in last[:1]]
    assert {predictor.personalisation.methods[s] for s in panel.subjects} >= {"lora"}
    assert len(requests) > 2 * BLOCK
    assert len(requests) % BLOCK
    together = predictor.predict(requests)
    assert {answer.served_by for answer in together} == {"adapter", "base"}
    backwards = predictor.predict(requests[::-1])[::-1]
    alone = [predictor.predict([request])[0] for request in requests]
    assert together == backwards == alone


def test_a_changed_adapter_is_refused_in_evaluation_and_named_in_service(
    task: Any, learner: Any, prepared: Any, everyone_has_lora: Path, tmp_path: Path
) -> None:
    shutil.copytree(everyone_has_lora, tmp_path / "model")
    predictor = learner.open(task, tmp_path / "model", "1.0.0", "0" * 64)
    subject_id = next(s for s, method in predictor.personalisation.methods.items() if method == "lora")
    file = lora_directory(tmp_path / "model" / "subjects", subject_id) / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"subject '{subject_id}': adapter was changed after it was made"):
        learner.open_for_test(task, tmp_path / "model", task.split_panel(prepared)).forecast(
            subject_id, *windows_of(task, prepared, subject_id)
        )
    panel = task.split_panel(prepared).panel
    code = panel.subjects.index(subject_id)
    origin = int(panel.origins[panel.subject[panel.origins] == code][-1])
    [answer] = predictor.predict([request_of(panel, origin, subject_id=subject_id)])
    assert answer.served_by == "adapter"
    assert answer.fallback == "the linear adapter answered alone: adapter was changed after it was made (sha256)"


def windows_of(task: Any, prepared: Any, subject_id: str) -> tuple[Any, Any]:
    split_panel = task.split_panel(prepared)
    panel = split_panel.panel
    mine = split_panel.origins("test")
    mine = mine[panel.subject[mine] == panel.subjects.index(subject_id)][-3:]
    return panel.context(mine), panel.minute[mine].astype(np.int64)


def listed(model: Path, entry: str) -> None:
    """Write a table of choices with one entry."""
    (model / "subjects" / "subjects.json").write_text(f"[{entry}]")


BROKEN: dict[str, Callable[[Path], Any]] = {
    "people truncated": lambda p: (p / "subjects" / "subjects.json").write_text("[{"),
    "people of another shape": lambda p: (p / "subjects" / "subjects.json").write_text("{}x"),
    "no method": lambda p: listed(p, '{"subject_id": "a", "sha256": ""}'),
    "unknown method": lambda p: listed(p, '{"subject_id": "a", "method": "LORA", "sha256": ""}'),
    "no digest": lambda p: listed(p, '{"subject_id": "a", "method": "lora", "sha256": null}'),
    "adapters of another shape": lambda p: (p / "subjects" / "adapters.json").write_text('{"rank": 4}'),
    "no intervals": lambda p: (p / "calibration" / "index.json").unlink(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_one_line(
    name: str, task: Any, learner: Any, everyone_has_lora: Path, tmp_path: Path
) -> None:
    shutil.copytree(everyone_has_lora, tmp_path / "model")
    BROKEN[name](tmp_path / "model")
    with pytest.raises(BundleError, match=r"cannot be loaded \(.*\): run `dvc repro train`") as caught:
        learner.open(task, tmp_path / "model", "1.0.0", "0" * 64)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_costs_its_person_alone(
    task: Any, learner: Any, prepared: Any, everyone_has_lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = learner.open(task, everyone_has_lora, "1.0.0", "0" * 64)
    panel = task.split_panel(prepared).panel
    origins = [int(panel.origins[panel.subject[panel.origins] == code][-1]) for code in (0, 1)]
    asked = [request_of(panel, o, subject_id=s) for o, s in zip(origins, panel.subjects, strict=False)]

    read = Path.read_bytes

    def locked(path: Path) -> bytes:
        if directory_of(panel.subjects[0]) in path.parts:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", locked)
    first, second = predictor.predict(asked)
    assert first.served_by == "base"
    assert first.fallback.startswith("history cannot be read")
    assert second.served_by == "adapter"


def test_adapters_of_another_base_are_refused(everyone_has_lora: Path) -> None:
    base = dataclasses.replace(load_base(everyone_has_lora / "base"), digest="f" * 64)
    with pytest.raises(BundleError, match=r"holds adapters of base .* this is ffffffffffff"):
        load_personalisation(everyone_has_lora / "subjects", base)


def test_a_run_killed_between_two_chunks_goes_on(
    task: Any, learner: Any, prepared: Any, trained: Path, everyone_has_lora: Path, params: Any, tmp_path: Path
) -> None:
    node = {**params["personalise"], "default_method": "none", "margin": -1.0, "standard_errors": -100.0}
    node["lora"] = {**node["lora"], "subjects_at_once": 2}
    for where in (tmp_path / "killed", tmp_path / "whole"):
        shutil.copytree(trained / "base", where / "base")

    class Killed(Exception):
        pass

    def stop(name: str, done: int, total: int, text: str) -> None:
        if done >= 2:
            raise Killed

    with pytest.raises(Killed):
        learner.personalise(task, prepared, tmp_path / "killed", build(node), tmp_path / "scratch", stop)
    assert list((tmp_path / "scratch").rglob("*.safetensors"))
    learner.personalise(task, prepared, tmp_path / "killed", build(node), tmp_path / "scratch", no_progress)
    learner.personalise(task, prepared, tmp_path / "whole", build(node), tmp_path / "other", no_progress)
    assert sha256(tmp_path / "killed" / "subjects") == sha256(tmp_path / "whole" / "subjects")


@pytest.mark.parametrize("subject", ["../../etc", "a/b", "..", ".", "a\\b", "ü ö", "con:1"])
def test_no_subject_id_leaves_its_folder(subject: str, tmp_path: Path) -> None:
    name = directory_of(subject)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert name not in ("", ".", "..")


def test_a_person_without_one_whole_window_is_carried_through(
    task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path: Path
) -> None:
    first = prepared.subjects["subject_id"].iloc[0]
    mine = prepared.rows["subject_id"] == first
    sparse = prepared.rows[~mine | (prepared.rows.groupby("subject_id").cumcount() % 12 == 0)]
    holes = dataclasses.replace(prepared, rows=sparse)
    shutil.copytree(trained / "base", tmp_path / "base")
    ridge = build({**params["personalise"], "methods": ["none", "online_ridge"]})
    learner.personalise(task, holes, tmp_path, ridge, tmp_path / "scratch", no_progress)
    learner.calibrate(task, holes, tmp_path, build(params["calibrate"]), no_progress)
    methods = {row["subject_id"]: row["method"] for row in read_json(tmp_path / "subjects" / "subjects.json")}
    assert methods[first] == "online_ridge"
    with learner.open(task, tmp_path, "", "").histories.of(first) as (past, why):
        assert past is not None
        assert why == ""
