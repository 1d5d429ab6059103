"""Adapter → base → baseline → abstention: what is damaged costs what it holds, and the answer says so."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hallmark
from hallmark.build import build
from hallmark.contracts import no_progress
from hallmark.errors import BundleError
from hallmark.families.forecasting.base_model import load_base
from hallmark.families.forecasting.personalisation import PACKED, TREE, load_personalisation
from hallmark.files import read_json, write_json
from hallmark.model import Model
from tests.tasks.glucose.requests import request_of


@pytest.fixture
def broken(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_without_its_network_the_population_ridge_answers_with_intervals_of_its_own(
    broken: Path, task: Any, prepared: Any, requests_by_subject: dict[str, Any]
) -> None:
    flip(broken / "base" / "model.safetensors")
    with pytest.raises(BundleError, match="the file is corrupt"):
        hallmark.open(broken)
    model = Model(broken, degraded=True)
    assert model.damaged == ("base/model.safetensors",)
    answers = model.predict(list(requests_by_subject.values()))
    assert {answer.served_by for answer in answers} == {"baseline"}
    assert {answer.fallback for answer in answers} == {
        "the network cannot answer: its weights are missing, or were changed after they were made; "
        "the population ridge answers instead"
    }
    split_panel = task.split_panel(prepared)
    origins = split_panel.origins("test")[::40]
    asked = [request_of(split_panel.panel, int(origin), subject_id=None) for origin in origins]
    covered, count = 0, 0
    for answer, target in zip(model.predict(asked), split_panel.target(origins, "test"), strict=True):
        for step, value in zip(answer.forecast, target, strict=False):  # type: ignore[attr-defined]
            if not np.isnan(value):
                covered += step.intervals[0].low_mg_dl <= value <= step.intervals[0].high_mg_dl
                count += 1
    assert count > 1000
    assert 0.8 < covered / count < 0.98  # nominal 0.9


def test_what_still_cannot_be_answered_is_refused(broken: Path, requests_by_subject: dict[str, Any]) -> None:
    flip(broken / "base" / "model.safetensors")
    request = next(iter(requests_by_subject.values()))
    [answer] = Model(broken, degraded=True).predict([{**request, "readings": request["readings"][:3]}])
    assert (answer.status, answer.served_by) == ("abstained", "none")


@pytest.mark.parametrize(
    "file", ["base/ridge.safetensors", "base/spec.json", "calibration/offsets.safetensors", "subjects/subjects.json"]
)
def test_a_file_that_all_answers_need_refuses_the_bundle(broken: Path, file: str) -> None:
    flip(broken / file)
    with pytest.raises(BundleError, match="the file is corrupt"):
        Model(broken, degraded=True)


def test_an_unknown_file_refuses_the_bundle_wherever_it_lies(broken: Path) -> None:
    (broken / "subjects" / "note.json").write_text("{}")
    with pytest.raises(BundleError, match=r"note.json is not in the hallmark"):
        Model(broken, degraded=True)


def test_a_network_that_fails_or_returns_no_numbers_is_replaced_by_the_baseline(
    bundle: Path, requests_by_subject: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, requests = Model(bundle), list(requests_by_subject.values())
    right = model.predict(requests)
    assert {answer.served_by for answer in right} <= {"adapter", "base"}
    personalisation: Any = type(model.predictor.personalisation)  # type: ignore[attr-defined]
    answer = personalisation.answer

    def not_finite(self: Any, subjects: Any, batch: Any) -> Any:
        found = answer(self, subjects, batch)
        found.mean[0] = np.nan
        return found

    monkeypatch.setattr(personalisation, "answer", not_finite)
    first, *others = model.predict(requests)
    assert (first.served_by, others) == ("baseline", right[1:])
    assert "its forecast is not finite" in first.fallback

    def fail(self: Any, subjects: Any, batch: Any) -> Any:
        raise RuntimeError("CANARY: the text of an error may quote a request")

    poisoned = next(iter(requests_by_subject))

    def fail_on_one(self: Any, subjects: Any, batch: Any) -> Any:
        return fail(self, subjects, batch) if poisoned in subjects else answer(self, subjects, batch)

    monkeypatch.setattr(personalisation, "answer", fail_on_one)
    first, *others = model.predict(requests)
    assert (first.served_by, others) == ("baseline", right[1:])

    monkeypatch.setattr(personalisation, "answer", fail)
    answers = model.predict(requests)
    assert {a.served_by for a in answers} == {"baseline"}
    assert all("RuntimeError" in a.fallback and "CANARY" not in a.fallback for a in answers)
    monkeypatch.undo()
    assert model.predict(requests) == right


def test_pass_sizes_are_not_decided_by_a_pass_that_fails(
    bundle: Path, requests_by_subject: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(bundle)
    predictor: Any = model.predictor

    def fail(self: Any, subjects: Any, batch: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(type(predictor.personalisation), "answer", fail)
    [answer] = model.predict([next(iter(requests_by_subject.values()))])
    assert answer.served_by == "baseline"
    assert "pass_sizes" not in vars(predictor)


@pytest.fixture(scope="module")
def packed(task: Any, learner: Any, prepared: Any, trained: Path, params: Any, tmp_path_factory: Any) -> Path:
    where: Path = tmp_path_factory.mktemp("packed")
    for part in ("base", "calibration"):
        shutil.copytree(trained / part, where / part)
    node = {**params["personalise"], "default_method": "none", "margin": -1.0, "standard_errors": -100.0}
    found = learner.personalise(task, prepared, where, build({**node, "packed": True}), where / "scratch", no_progress)
    assert found["methods"]["lora"] > 1
    shutil.rmtree(where / "scratch")
    return where


def test_packed_adapters_answer_as_those_in_directories_of_their_own(
    task: Any, learner: Any, prepared: Any, packed: Path, params: Any, tmp_path: Path, requests_by_subject: Any
) -> None:
    for part in ("base", "calibration"):
        shutil.copytree(packed / part, tmp_path / part)
    node = {**params["personalise"], "default_method": "none", "margin": -1.0, "standard_errors": -100.0}
    learner.personalise(task, prepared, tmp_path, build(node), tmp_path / "scratch", no_progress)
    requests = [task.request_type().model_validate(r) for r in requests_by_subject.values()]
    one, other = (learner.open(task, where, "1.0.0", "0" * 64) for where in (packed, tmp_path))
    mine, theirs = one.predict_with_evidence(requests), other.predict_with_evidence(requests)
    for (answer, evidence), (expected, of_directory) in zip(mine, theirs, strict=True):
        assert evidence == of_directory
        assert answer == expected
    assert one.personalisation.root
    assert any(evidence.adapter_sha256 for _, evidence in mine)


def test_a_bit_of_a_packed_file_costs_one_subject_and_another_root_costs_all(
    task: Any, learner: Any, packed: Path, tmp_path: Path, requests_by_subject: Any
) -> None:
    where = Path(shutil.copytree(packed, tmp_path / "model"))
    flip(where / "subjects" / PACKED)
    predictor = learner.open(task, where, "1.0.0", "0" * 64)
    store = predictor.personalisation.cache.store
    last = store.subjects[-1]
    requests = [task.request_type().model_validate(r) for r in requests_by_subject.values()]
    for request, answer in zip(requests, predictor.predict(requests), strict=True):
        changed = "the linear adapter answered alone: adapter was changed after it was packed (sha256)"
        assert answer.fallback == (changed if request.subject_id == last else "")
    root = read_json(where / "subjects" / TREE)["root"]
    write_json(where / "subjects" / TREE, {"root": root[::-1]})
    predictor = learner.open(task, where, "1.0.0", "0" * 64)
    reasons = {answer.fallback for answer in predictor.predict(requests) if answer.fallback}
    assert len(reasons) == 1
    assert "holds other adapters than its bundle names (hash tree)" in reasons.pop()


def test_the_manifest_vouches_for_the_root_of_the_tree(packed: Path, learner: Any) -> None:
    assert not learner.spares(f"subjects/{TREE}")
    assert learner.spares(f"subjects/{PACKED}")
    people = load_personalisation(packed / "subjects", load_base(packed / "base"))
    assert people.root == read_json(packed / "subjects" / TREE)["root"]
