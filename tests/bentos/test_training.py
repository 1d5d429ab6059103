"""A subject's adapter is asked to be fitted again, and what was decided is read; nobody does so for another one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hallmark.retrain.jobs import note
from hallmark.watch.standing import last_jobs
from tests.bentos.server import Server, running

JOBS = "/v1/training-jobs"


@pytest.fixture(scope="module")
def subjects(requests_by_subject: dict[str, Any]) -> list[str]:
    """People that the model knows."""
    return list(requests_by_subject)


@pytest.fixture(scope="module")
def server(bundle: Path, subjects: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    people = {
        "ada": (subjects[0], "person", ()),
        "ben": (subjects[1], "person", ()),
        "doctor": ("doctor", "clinician", subjects[:2]),
        "rival": ("rival", "service", ()),
    }
    with running(bundle, tmp_path_factory.mktemp("training"), people) as found:
        yield found


def test_a_request_waits_once_and_its_decision_is_read_by_whoever_may(server: Server, subjects: list[str]) -> None:
    asked = server.call("POST", JOBS, "ada", json={})
    assert asked.status_code == 202, asked.text
    job = asked.json()
    assert (job["subject_id"], job["status"], job["finished_at"]) == (subjects[0], "requested", None)
    assert asked.headers["location"] == f"{JOBS}/{job['job_id']}"
    again = server.call("POST", JOBS, "ada", json={"subject_id": subjects[0]})
    assert (again.status_code, again.json()["job_id"]) == (200, job["job_id"]), "it waits already"
    server.flush()
    assert server.call("POST", JOBS, "doctor", json={"subject_id": subjects[0]}).json()["job_id"] == job["job_id"]
    database = server.state.records.database
    waiting = last_jobs(database, "glucose")[subjects[0]]
    assert (waiting.status, waiting.client_id) == ("requested", subjects[0])
    now = datetime.now(UTC) + timedelta(seconds=1)
    note(database, "glucose", "skipped", {subjects[0]: ("insufficient_data", "3 new observations over 1 days")}, now)
    listed = server.call("GET", JOBS, "ada").json()["jobs"]
    assert [(j["status"], j["code"]) for j in listed] == [("skipped", "insufficient_data"), ("requested", "")]
    assert listed[0]["reason"] == "3 new observations over 1 days"
    assert server.call("GET", f"{JOBS}/{listed[0]['job_id']}", "doctor").json() == listed[0]
    assert server.call("POST", JOBS, "ada", json={}).status_code == 202, "the next one is a new request"


def test_a_service_reads_what_came_of_its_own_requests_alone(server: Server, subjects: list[str]) -> None:
    job = server.call("POST", JOBS, "service", json={"subject_id": subjects[2]}).json()
    server.flush()
    database = server.state.records.database
    now = datetime.now(UTC) + timedelta(seconds=1)
    note(database, "glucose", "deployed", {subjects[2]: ("requested", "asked for by key:app")}, now)
    query = {"subject_id": subjects[2]}
    listed = server.call("GET", JOBS, "service", params=query).json()["jobs"]
    assert [j["status"] for j in listed] == ["deployed", "requested"]
    assert server.call("GET", JOBS, "rival", params=query).json() == {"jobs": []}
    assert server.call("GET", f"{JOBS}/{job['job_id']}", "rival").status_code == 404


def test_nobody_asks_for_or_reads_another_one(server: Server, subjects: list[str]) -> None:
    for who, named in (("ada", subjects[1]), ("doctor", subjects[2])):
        for response in (
            server.call("POST", JOBS, who, json={"subject_id": named}),
            server.call("GET", JOBS, who, params={"subject_id": named}),
        ):
            assert response.status_code == 403
            assert named not in response.text
    job = server.call("POST", JOBS, "ben", json={}).json()
    for in_database in (False, True):
        if in_database:
            server.flush()
            server.state.records._recent.clear()
        status = {
            who: server.call("GET", f"{JOBS}/{job['job_id']}", who).status_code for who in ("ada", "doctor", "ben")
        }
        assert status == {"ada": 404, "doctor": 200, "ben": 200}


def test_bad_requests_are_told_what_is_wrong(server: Server) -> None:
    nobody = server.call("POST", JOBS, "service", json={})
    assert (nobody.status_code, nobody.json()["detail"]) == (422, "subject_id must name whose adapter is meant.")
    assert server.call("POST", JOBS, "service", json={"subject_id": " "}).status_code == 422
    assert server.call("POST", JOBS, "service", json={"why": "x"}).status_code == 422
    assert server.call("POST", JOBS, None, json={}).status_code == 401
    assert server.call("GET", f"{JOBS}/00000000-0000-0000-0000-000000000000").status_code == 404


def test_whoever_asked_reads_the_answer_although_another_one_asked_later(server: Server, subjects: list[str]) -> None:
    who = subjects[3]
    job = server.call("POST", JOBS, "service", json={"subject_id": who})
    assert job.status_code == 202
    server.flush()
    database, now = server.state.records.database, datetime.now(UTC) + timedelta(seconds=1)
    note(database, "glucose", "requested", {who: ("requested", "asked for by command")}, now, "command")
    note(database, "glucose", "rejected", {who: ("no_improvement", "worse")}, now + timedelta(seconds=1))
    listed = server.call("GET", JOBS, "service", params={"subject_id": who}).json()["jobs"]
    assert [entry["status"] for entry in listed] == ["rejected", "requested"]
    assert server.call("POST", JOBS, "service", json={"subject_id": who}).status_code == 202, "it may ask again"
