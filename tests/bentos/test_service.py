"""The service as a stranger meets it: a real `bentoml serve`, real HTTP."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hallmark.prove.bundle import open_bundle
from tests.conftest import ROOT
from tests.tasks.test_predictor import request_of

CANARY = "CANARY-55021"


class Service:
    """A running service."""

    def __init__(self, bundle: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = log
        environment = {**os.environ, "HALLMARK_BUNDLE": str(bundle), "BENTOML_HOME": str(log.parent / "home")}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(Path(sys.executable).parent / "bentoml"), "serve", "-q", "bentos.service:Service"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the service did not start: {log.read_text()[-2000:]}")

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def predict(self, value: Any) -> tuple[int, Any]:
        status, body = self.call("POST", "/predict", json.dumps(value).encode())
        return status, json.loads(body)


@pytest.fixture(scope="module")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(bundle, tmp_path_factory.mktemp("service") / "log")
    yield found
    found.process.send_signal(signal.SIGTERM)
    found.process.wait(30)


@pytest.fixture(scope="module")
def question(task: Any, prepared: Any) -> dict[str, Any]:
    panel = task.parts(prepared).panel
    origin = int(panel.origins[panel.subject[panel.origins] == 0][-1])
    return dict(json.loads(request_of(panel, origin).model_dump_json()))


def test_an_answer_names_its_model_and_its_hallmark(service: Service, question: dict[str, Any], bundle: Path) -> None:
    status, answer = service.predict(question)
    hallmark, digest = open_bundle(bundle)
    assert status == 200
    assert answer["status"] == "forecast"
    assert answer["model_version"] == hallmark.version
    assert answer["hallmark_sha256"] == digest
    assert "not for clinical use" in answer["disclaimer"]
    assert answer["forecast"][0]["intervals"][0]["nominal_coverage"] == 0.9


def test_the_service_and_the_library_give_the_same_answer(
    service: Service, question: dict[str, Any], task: Any, bundle: Path
) -> None:
    hallmark, digest = open_bundle(bundle)
    request = task.request_type()(**question)
    [expected] = task.predictor(bundle, hallmark.version, digest).predict([request])
    assert service.predict(question)[1] == json.loads(expected.model_dump_json())


def test_the_hallmark_is_public(service: Service) -> None:
    status, body = service.call("GET", "/hallmark")
    assert status == 200
    assert json.loads(body)["task"] == "glucose"


BAD: list[tuple[int, Any]] = [
    (422, {"readings": CANARY}),
    (422, {CANARY: 1}),
    (422, {"asked_at": CANARY}),
    (422, {"subject_id": CANARY * 100}),
    (422, {"readings": [{"timestamp": CANARY, "glucose_mg_dl": 100}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": CANARY}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": 1e999}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": "100"}]}),
    (422, {"readings": [{"timestamp": "9999-01-01T00:00:00", "glucose_mg_dl": 100}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": 100, "note": CANARY}]}),
]


@pytest.mark.parametrize(("status", "change"), BAD)
def test_bad_requests_get_one_envelope_without_an_echo(
    service: Service, question: dict[str, Any], status: int, change: dict[str, Any]
) -> None:
    found, answer = service.predict({**question, **change})
    assert found == status
    assert set(answer) == {"error", "message", "fields"}
    assert CANARY not in json.dumps(answer)


def test_bad_bodies_are_refused(service: Service) -> None:
    assert service.call("POST", "/predict", b'{"readings": ' + CANARY.encode())[0] == 400
    assert service.call("POST", "/predict", b"[" * 100_000)[0] == 400
    assert service.call("POST", "/predict", b" " * 2_000_000)[0] == 413
    assert service.call("POST", "/predict", b"\xff\xfe" + CANARY.encode())[0] in (400, 422)


def test_what_is_not_offered_is_not_found(service: Service) -> None:
    for path in ("/", "/metrics", "/docs.json", f"/{CANARY}"):
        assert service.call("GET", path)[0] == 404


def test_the_logs_hold_nothing_of_any_request(service: Service) -> None:
    assert CANARY not in service.log.read_text()


def test_a_corrupt_bundle_is_not_served(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "base" / "model.safetensors").write_bytes(b"x")
    environment = {**os.environ, "HALLMARK_BUNDLE": str(copy), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", "import bentos.service"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "the file is corrupt" in done.stderr


def test_the_example_of_the_readme_is_answered(service: Service) -> None:
    status, answer = service.predict(json.loads((ROOT / "examples" / "glucose.json").read_text()))
    assert (status, answer["status"], answer["spoke"]) == (200, "forecast", "base")
