"""`/v1/predictions/{id}/provenance` and `hallmark provenance`: the observations of a recorded answer, by rank."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bentos.server import Server, running
from tests.toys import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(bundle: Path, home: Path, requests_by_subject: dict[str, Any]) -> Iterator[Server]:
    people = {name: (name, "person", ()) for name in list(requests_by_subject)[:2]}
    with running(bundle, home, people) as found:
        yield found


@pytest.fixture(scope="module")
def subject(requests_by_subject: dict[str, Any]) -> str:
    return next(iter(requests_by_subject))


@pytest.fixture(scope="module")
def asked(server: Server, requests_by_subject: dict[str, Any], subject: str) -> str:
    """The id of a prediction of the first person."""
    [row] = server.predict(requests_by_subject[subject], subject).json()["rows"]
    return str(row["prediction_id"])


def test_an_answer_names_its_readings_its_past_and_the_most_influential(
    server: Server, asked: str, subject: str, requests_by_subject: dict[str, Any]
) -> None:
    found = server.call("GET", f"/v1/predictions/{asked}/provenance?top=5", subject).json()
    times = [reading["timestamp"] for reading in requests_by_subject[subject]["readings"]]
    assert found["request"] == times
    assert len(found["past"]["readings"]) > 3000
    assert max(found["past"]["readings"]) < times[-1][:10]
    assert found["past"]["fitted_from"] < min(found["past"]["readings"])
    assert found["unit"] == "largest change of a median, mg/dL"
    assert len(found["most_influential"]) == 5
    assert {item["id"] for item in found["most_influential"]} <= {*times, "past"}
    assert times[-1] in {item["id"] for item in found["most_influential"]}
    nothing = server.call("GET", f"/v1/predictions/{asked}/provenance?top=0", subject).json()
    assert nothing == {**found, "most_influential": []}


def test_nobody_else_learns_what_an_answer_rests_on(
    server: Server, asked: str, requests_by_subject: dict[str, Any]
) -> None:
    other = list(requests_by_subject)[1]
    assert server.call("GET", f"/v1/predictions/{asked}/provenance", other).status_code == 404
    assert server.call("GET", f"/v1/predictions/{asked}/provenance", "service").status_code == 404
    assert server.call("GET", f"/v1/predictions/{asked}/provenance", None).status_code == 401
    assert server.call("GET", f"/v1/predictions/{asked}/provenance?top=0", "admin").status_code == 200


def test_the_command_says_the_same(server: Server, asked: str, subject: str, bundle: Path, home: Path) -> None:
    server.flush()
    command = [sys.executable, "-m", "hallmark.cli", "provenance", asked, "--top", "3", "--bundle", str(bundle)]
    command += ["--records", f"sqlite:///{home}/records.sqlite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    ranked = server.call("GET", f"/v1/predictions/{asked}/provenance?top=3", subject).json()["most_influential"]
    assert [line.split()[0] for line in lines[3:6]] == [item["id"] for item in ranked]
    assert lines[0].startswith("request: ")
    assert lines[1].startswith("past: ")
    assert lines[2].startswith("linear adapter: fitted on ")
    assert lines[6] == "(largest change of a median, mg/dL without it)"


def test_an_answer_whose_request_was_not_kept_says_so(
    bundle: Path, requests_by_subject: dict[str, Any], subject: str, tmp_path: Path
) -> None:
    with running(bundle, tmp_path / "home", {}, records={"keep_requests": False}) as server:
        [row] = server.predict(requests_by_subject[subject]).json()["rows"]
        refused = server.call("GET", f"/v1/predictions/{row['prediction_id']}/provenance")
        assert refused.status_code == 409
        assert json.loads(refused.text)["type"].endswith("request_not_kept")
