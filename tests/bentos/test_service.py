"""The service as a stranger meets it: a real `bentoml serve`, real HTTP."""

import gzip
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentos.app import create_app
from bentos.settings import Settings
from hallmark.errors import BundleError
from hallmark.prove.bundle import open_bundle
from tests.bentos.server import Service
from tests.toys import ROOT

CANARY = "CANARY-55021"


@pytest.fixture(scope="module")
def service(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(bundle, tmp_path_factory.mktemp("service") / "log")
    yield found
    found.process.send_signal(signal.SIGTERM)
    found.process.wait(30)


@pytest.fixture(scope="module")
def question(requests_by_subject: dict[str, Any]) -> dict[str, Any]:
    """A request of the first person."""
    return dict(next(iter(requests_by_subject.values())))


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
    service: Service, question: dict[str, Any], task: Any, learner: Any, bundle: Path
) -> None:
    hallmark, digest = open_bundle(bundle)
    request = task.request_type()(**question)
    [expected] = learner.open(task, bundle, hallmark.version, digest).predict([request])
    assert service.predict(question)[1] == json.loads(expected.model_dump_json())


def test_the_model_is_described_with_its_card(service: Service, bundle: Path) -> None:
    status, body = service.call("GET", "/v1/models")
    [model] = json.loads(body)
    assert status == 200
    assert (model["task"], model["hallmark_sha256"]) == ("glucose", open_bundle(bundle)[1])
    assert model["card"] == (bundle / "card.md").read_text()


BAD: list[tuple[int, Any]] = [
    (422, {"readings": CANARY}),
    (422, {CANARY: 1}),
    (422, {"asked_at": CANARY}),
    (422, {"subject_id": CANARY * 100}),
    (422, {"readings": [{"timestamp": CANARY, "glucose_mg_dl": 100}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": CANARY}]}),
    (400, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": 1e999}]}),
    (422, {"readings": [{"timestamp": "2024-01-01T00:00:00", "glucose_mg_dl": 1000}]}),
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
    assert set(answer) == {"type", "title", "status", "detail", "fields"}
    assert answer["status"] == status
    assert CANARY not in json.dumps(answer)


BODIES: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "invalid_json": (400, b'{"readings": ' + CANARY.encode(), {}),
    "too_deep": (400, b"[" * 100_000, {}),
    "too_large": (413, b" " * 5_000_000, {}),
    "invalid_utf8": (400, b'{"subject_id": "\xff\xfe"}', {}),
    "number_too_large": (400, b'{"asked_at": ' + b"9" * 5000 + b"}", {}),
    "compressed": (400, gzip.compress(b"{}"), {"Content-Encoding": "gzip"}),
    "unsupported_media_type": (415, b"{}", {"Content-Type": "text/plain"}),
}


@pytest.mark.parametrize("code", list(BODIES))
def test_a_bad_body_is_refused_with_its_reason(service: Service, code: str) -> None:
    status, body, headers = BODIES[code]
    found, answer = service.call("POST", "/v1/predict", body, **headers)
    assert (found, json.loads(answer)["type"]) == (status, f"urn:hallmark:{code}")
    assert CANARY not in answer.decode()


def test_brackets_inside_a_text_do_not_nest(service: Service, question: dict[str, Any]) -> None:
    assert service.predict({**question, "subject_id": '[[[["' * 30})[0] == 200


def test_another_method_says_which_is_right(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("GET", "/v1/predict")
    response = connection.getresponse()
    assert (response.status, response.getheader("allow")) == (405, "POST")
    assert json.loads(response.read())["type"] == "urn:hallmark:method_not_allowed"


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
HEALTH = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        pytest.param(HEAD + b"{", 408, "too_slow", id="half a body"),
        pytest.param(HEAD[:40], 408, "too_slow", id="half of the headers"),
        pytest.param(b"", 408, "too_slow", id="nothing"),
        pytest.param(HEALTH + HEAD[:40], 408, "too_slow", id="half of the headers of a second request"),
        pytest.param(b"what is this\r\n\r\n", 400, "invalid_http", id="no HTTP"),
    ],
)
def test_a_request_that_does_not_come_ends_in_the_same_envelope(
    service: Service, sent: bytes, status: int, error: str
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        start = time.monotonic()
        client.sendall(sent)
        answer = client.makefile("rb").read()
    assert time.monotonic() - start < 15
    head, _, body = answer[answer.rindex(b"HTTP/1.1") :].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status)
    problem = json.loads(body)
    assert (problem["type"], problem["status"], problem["fields"]) == (f"urn:hallmark:{error}", status, [])


@pytest.mark.parametrize("values", [[5.5, 7.1, 6.0], [12.0, 14.0, 15.5]])
def test_mmol_is_recognised_and_refused_by_name(
    service: Service, question: dict[str, Any], values: list[float]
) -> None:
    readings = [{**row, "glucose_mg_dl": values[i % 3]} for i, row in enumerate(question["readings"])]
    status, answer = service.predict({**question, "readings": readings})
    assert status == 422
    assert "looks like mmol/L: send mg/dL" in answer["fields"][0]["problem"].replace("look like", "looks like")


@pytest.mark.parametrize(("values", "told"), [([80, 80], "are equal"), ([10, 600], "change by 590 mg/dL")])
def test_what_no_sensor_reads_is_not_forecast(
    service: Service, question: dict[str, Any], values: list[float], told: str
) -> None:
    readings = [{**row, "glucose_mg_dl": values[i % 2]} for i, row in enumerate(question["readings"])]
    status, answer = service.predict({**question, "readings": readings})
    assert (status, answer["status"], answer["served_by"]) == (200, "abstained", "none")
    assert told in answer["reason"]


def test_what_is_not_offered_is_not_found(service: Service) -> None:
    for path in ("/docs.json", "/predict", "/schema.json", f"/{CANARY}", f"/assets/{CANARY}"):
        status, body = service.call("GET", path)
        assert (status, json.loads(body)["type"]) == (404, "urn:hallmark:not_found"), path
        assert CANARY not in body.decode()


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/assets/swagger-ui-bundle.js", "/assets/page.js"])
def test_pages_need_no_token_and_no_network(service: Service, path: str) -> None:
    status, body = service.call("GET", path, Authorization="")
    assert status == 200
    assert b"//cdn" not in body[:5000]


def test_the_service_tells_that_it_is_ready_by_a_real_prediction(service: Service) -> None:
    status, body = service.call("GET", "/readyz", Authorization="")
    health = json.loads(body)
    assert (status, health["status"], health["task"]) == (200, "ready", "glucose")
    assert health["warnings"] == ["no signature is asked for: set HALLMARK_PUBLIC_KEY"]


def test_the_logs_hold_nothing_of_any_request(service: Service) -> None:
    assert CANARY not in service.log.read_text()


def serve(bundle: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start `make serve`'s command."""
    home = str(bundle.parent / "home")
    known = {**os.environ, "HALLMARK_BUNDLE": str(bundle), "PYTHONPATH": str(ROOT), "BENTOML_HOME": home}
    command = [sys.executable, "-m", "bentos.serve", *arguments]
    where = bundle.parent / "serve"  # keys and records are written there
    where.mkdir(exist_ok=True)
    if not (where / "examples").exists():
        (where / "examples").symlink_to(ROOT / "examples")
    return subprocess.Popen(command, cwd=where, env={**known, **environment}, stderr=subprocess.PIPE, text=True)


def test_the_service_says_when_it_is_ready_and_how_to_ask(bundle: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = serve(bundle, "--port", port)
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(5)]
    assert said[0].startswith("loading glucose 1.0.0 from")
    assert said[1].startswith(f"ready: glucose 1.0.0 on http://127.0.0.1:{port}")
    curl, *options, address = shlex.split(said[2].split(maxsplit=1)[1])
    given = dict(zip(options[::2], options[1::2], strict=True))
    headers = dict(option.split(": ") for name, option in zip(options[::2], options[1::2], strict=True) if name == "-H")
    answer = httpx.post(address, headers=headers, content=(ROOT / given["-d"].removeprefix("@")).read_bytes())
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 0
    assert curl == "curl"
    assert answer.json()["rows"][0]["status"] == "answered"


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (("--port", "abc"), {}, "PORT='abc' must be a number within 1…65535"),
        ((), {"PORT": "99999"}, "PORT='99999' must be a number"),
        ((), {"HALLMARK_PREDICT_TIMEOUT_S": "abc"}, "HALLMARK_PREDICT_TIMEOUT_S='abc': must be a valid number"),
        ((), {"HALLMARK_MAX_BODY_BYTES": "-1"}, "HALLMARK_MAX_BODY_BYTES='-1': must be greater than or equal to 1"),
        (
            (),
            {"HALLMARK_QUEUE__MAX_ROW": "5"},
            "HALLMARK_QUEUE__MAX_ROW is not a setting: did you mean HALLMARK_QUEUE__",
        ),
        ((), {"HALLMARK_AUTH__JWT__SECRET": "hush"}, "HALLMARK_AUTH__JWT"),
        ((), {"HALLMARK_AUTH__KEYS_FILE": "nowhere.json"}, "make it with `python -m bentos.keys add`"),
        ((), {"HALLMARK_RECORDS__URL": "mysql://x:hush@y/z"}, "is neither sqlite nor postgresql+psycopg"),
        ((), {"HALLMARK_BUNDLE": "nowhere"}, "is no bundle"),
        ((), {"HALLMARK_PUBLIC_KEY": "/nowhere.pem"}, "openssl ecparam"),
        ((), {"HALLMARK_RECORDS__SPOOL": "/proc/spool"}, "set HALLMARK_RECORDS__SPOOL"),
        ((), {"HALLMARK_JOBS__DIRECTORY": "/proc/jobs"}, "set HALLMARK_JOBS__DIRECTORY"),
        ((), {"HALLMARK_RECORDS__REQUEST_DAYS": "1000000"}, "must be less than or equal to 36500"),
    ],
)
def test_a_setting_that_is_wrong_is_one_line(
    bundle: Path, arguments: tuple[str, ...], environment: dict[str, str], told: str
) -> None:
    process = serve(bundle, *arguments, **environment)
    _, said = process.communicate(timeout=300)
    assert (process.returncode, len(said.splitlines())) == (1, 1)
    assert said.startswith("error: ")
    assert told in said
    assert "hush" not in said


def test_a_taken_port_is_one_line(service: Service, bundle: Path) -> None:
    _, said = serve(bundle, "--port", str(service.port)).communicate(timeout=300)
    assert said == f"error: port {service.port} is taken: try another, make serve PORT=3100\n"


def test_a_corrupt_bundle_is_not_served(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "base" / "ridge.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match="the file is corrupt"):
        create_app(Settings(bundle=copy))


def test_importing_the_service_reads_nothing(tmp_path: Path) -> None:
    """BentoML imports it in the parent process, too, where no model is needed."""
    environment = {**os.environ, "HALLMARK_BUNDLE": "nowhere", "PYTHONPATH": str(ROOT)}
    code = "import sys, bentos.service; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_readme_is_answered(service: Service) -> None:
    status, answer = service.predict(json.loads((ROOT / "examples" / "glucose.json").read_text()))
    assert (status, answer["status"], answer["served_by"]) == (200, "forecast", "base")
    assert answer["fallback"]  # the toy does not know this person


def test_bentoml_serve_ends_with_one_line_if_a_setting_is_wrong(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is not ready"):
        Service(bundle, tmp_path / "home" / "log", HALLMARK_JOBS__DIRECTORY="/proc/jobs")
    [told] = (tmp_path / "home" / "log").read_text().strip().splitlines()
    assert told.startswith("error: the service cannot start: /proc/jobs cannot be written")
