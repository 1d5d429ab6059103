"""Every other task goes from its preset to a served answer through the same commands."""

import json
import signal
from pathlib import Path

import pytest

from hallmark.files import read_json
from hallmark.prove.bundle import open_bundle
from tests.bentos.server import Service
from tests.toys import ROOT
from tests.workspace import copy_repository, run

pytestmark = pytest.mark.slow

# What makes a preset small enough for a test; little data is not judged.
SMALL = {
    "cv": ("data.sentences=1", "data.cvs=1", "train.budget_tflop=1.0", "evaluate.gates=[]"),
    "sentiment": ("data.rows=260", "train.budget_tflop=1.0", "evaluate.gates=[]", "package=onnx_int8"),
    "text": (
        "data.reports=200",
        "data.recipes=120",
        "model.initial_checkpoint.vocabulary=300",
        "model.initial_checkpoint.budget_tflop=0.3",
        "train.budget_tflop=0.3",
        "evaluate.gates=[]",
    ),
    "trades": ("data.trades=2500", "model.candidates.0.iterations=60", "evaluate.gates=[]"),
}


# One task goes through DVC's own command, whose stages start in shells; the others through ours.
COMMANDS = {"trades": ("dvc", "exp", "run")}
OURS = ("python", "-m", "runtime.repro")


def test_every_preset_of_a_task_is_tried() -> None:
    presets = {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert presets == {*SMALL, "toy"}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_preset_becomes_a_service_that_answers(name: str, tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    overrides = [part for change in (f"experiment={name}", *SMALL[name]) for part in ("-S", change)]
    done = run(where, *COMMANDS.get(name, OURS), *overrides)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "Warning" not in done.stderr
    bundle = where / "bundle"
    hallmark, digest = open_bundle(bundle)
    assert hallmark.task == name
    summary = run(where, "python", "-m", "hallmark.cli", "summary")
    assert summary.returncode == 0, summary.stderr
    assert "hallmark" in summary.stdout
    request = where / "examples" / f"{name}.json"
    said = run(where, "python", "-m", "hallmark.cli", "predict", "--json", str(request))
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout)
    assert answer["hallmark_sha256"] == digest
    service = Service(bundle, tmp_path / "log")
    try:
        assert service.predict(read_json(request)) == (200, answer)
        status, streamed = service.call("POST", "/v1/stream", request.read_bytes())
        if "text" in answer:
            events = [json.loads(line[6:]) for line in streamed.decode().splitlines() if line.startswith("data: ")]
            assert "".join(piece["text"] for piece in events[:-1]) == answer["text"]
            assert events[-1]["answer"] == answer
        assert status == (200 if "text" in answer else 404)
        status, refused = service.predict({"surely_no_field": "CANARY"})
        assert status == 422
        assert "CANARY" not in json.dumps(refused)
    finally:
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(30)
    again = run(where, "dvc", "repro", "--dry")
    assert again.stdout.count("didn't change, skipping") == 4  # only the list of code always runs
