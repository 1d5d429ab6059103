"""A network in another form answers the same, is the same bytes twice, and is held back when it does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hallmark.build import build
from hallmark.errors import BundleError, ConfigError, GateError
from hallmark.families.language.retriever import load_retriever
from hallmark.families.language.text_classifier import load_classifier
from hallmark.judge.gates import judge_output_change
from hallmark.learn.export import NETWORK, Exported, Onnx, export
from hallmark.stages import package
from tests.presets import composition
from tests.toys import compose

EXACT, EIGHT_BITS = Onnx(int8=False, max_drift=0.001), Onnx(int8=True, max_drift=0.1)


class Net(nn.Module):
    """A network whose product is big enough to be worth eight bits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        mean = y.mean(dim=0, keepdim=True)  # the exporter calls this step as the output is called
        return y + 0.0 * mean.sum()


def write(directory: Path, form: Onnx) -> bytes:
    directory.mkdir()
    export(Net(), {"x": torch.ones(3, 32)}, {"x": ("rows",)}, ["mean"], directory, form)
    return (directory / NETWORK).read_bytes()


@pytest.mark.parametrize("form", [EXACT, EIGHT_BITS], ids=["float", "int8"])
def test_the_same_network_is_the_same_bytes_without_a_path_in_them(form: Onnx, tmp_path: Path) -> None:
    once = write(tmp_path / "a", form)
    assert once == write(tmp_path / "b", form)
    assert str(Path.cwd()).encode() not in once
    assert b"site-packages" not in once


def test_an_exported_network_answers_batches_of_any_size(tmp_path: Path) -> None:
    write(tmp_path / "a", EXACT)
    write(tmp_path / "b", EIGHT_BITS)
    for rows in (1, 2, 500):
        x = torch.randn(rows, 32, generator=torch.Generator().manual_seed(rows))
        with torch.no_grad():
            expected = Net()(x)
        exact, eight = (Exported(tmp_path / name)(x=x)["mean"] for name in "ab")
        assert float((exact - expected).abs().max()) < 1e-5
        assert 1e-5 < float((eight - expected).abs().max()) < 0.1
        alone = torch.cat([Exported(tmp_path / "b")(x=x[i : i + 1])["mean"] for i in range(min(rows, 3))])
        assert float((alone - eight[:3]).abs().max()) < 1e-5  # a row depends on no other


def test_a_broken_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NETWORK).write_bytes(b"nothing")
    with pytest.raises(BundleError, match="package the model again: `dvc repro package`"):
        Exported(tmp_path)


def test_drift_is_a_share_of_the_spread_and_bad_numbers_never_pass() -> None:
    before = np.random.default_rng(0).normal(0, 5, (1000, 3))
    assert judge_output_change(before, before, 0.001).status == "passed"
    shifted = judge_output_change(before, before + 0.5, 0.05)
    assert shifted.status == "failed"
    assert shifted.figure == pytest.approx(0.1, rel=0.05)
    assert judge_output_change(before, np.where(before > 9, np.nan, before), 1.0).status == "failed"


@pytest.fixture(scope="module", params=["cv", "sentiment"])
def made(request: pytest.FixtureRequest, ran: Callable[[str], Path]) -> Any:
    """Task, learner, model and prepared data of a text task."""
    params, where = compose(*composition(request.param)), ran(request.param)
    return build(params["task"]), build(params["learner"]), where / "models" / "current", where / "data" / "prepared"


def test_a_text_model_in_another_form_passes_the_gate_and_answers_alike(made: Any, tmp_path: Path) -> None:
    task, learner, model, prepared = made
    for form in (EXACT, EIGHT_BITS):
        there = tmp_path / str(form.int8)
        verdict = package.export(task, learner, model, there, prepared, form)
        assert verdict.status == "passed"
        assert verdict.figure is not None
        assert (verdict.figure > 0.001) == form.int8
        assert not (model / "base" / NETWORK).exists()
        load = load_classifier if task.name == "sentiment" else load_retriever
        assert load(there / "base").model.encoder.__class__.__name__ == "ExportedEncoder"


def test_a_form_that_changes_too_much_is_refused(made: Any, tmp_path: Path) -> None:
    task, learner, model, prepared = made
    strict = Onnx(int8=True, max_drift=1e-6)
    with pytest.raises(GateError, match=r"99% of .* numbers change by .* of their spread"):
        package.export(task, learner, model, tmp_path / "there", prepared, strict)


def test_a_task_that_knows_no_other_form_says_so(tmp_path: Path) -> None:
    params = compose("experiment=trades")
    task, learner = build(params["task"], "task"), build(params["learner"], "learner")
    with pytest.raises(
        ConfigError, match="TradesLearner learns is packaged as it was trained: choose package=standard"
    ):
        package.export(task, learner, tmp_path, tmp_path / "there", tmp_path, EXACT)


def test_the_forecaster_in_another_form_forecasts_alike(
    task: Any, learner: Any, prepared: Any, trained: Path, tmp_path: Path
) -> None:
    import shutil

    numbers = learner.raw_outputs(task, prepared, trained)
    for form, within in ((EXACT, 0.01), (EIGHT_BITS, 5.0)):
        there = tmp_path / str(form.int8)
        shutil.copytree(trained, there)
        learner.export(there, form)
        changed = np.abs(learner.raw_outputs(task, prepared, there) - numbers).max()
        assert changed < within
        assert (there / "base" / NETWORK).is_file()
    assert json.loads((trained / "training.json").read_text())["chosen"]
