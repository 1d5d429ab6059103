"""Every other task goes from its preset to a served answer through the same commands."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.files import read_json
from hallmark.prove.bundle import open_bundle
from tests.bentos.server import Service
from tests.presets import SMALL
from tests.toys import ROOT
from tests.workspace import run

pytestmark = pytest.mark.slow


def test_every_preset_of_a_task_is_tried() -> None:
    presets = {file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")}
    assert presets == {*SMALL}


@pytest.mark.parametrize("name", sorted({*SMALL} - {"toy"}))
def test_a_preset_becomes_a_service_that_answers(name: str, ran: Callable[[str], Path], tmp_path: Path) -> None:
    where = ran(name)
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
