"""Nobody sees or uses what belongs to somebody else: every endpoint, every role, and inside one mixed batch."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.bentos.server import Server, running

CANARY = "CANARY-77182"


@pytest.fixture(scope="module")
def subjects(requests_by_subject: dict[str, Any]) -> list[str]:
    """People that the model knows."""
    return list(requests_by_subject)


@pytest.fixture(scope="module")
def asking(requests_by_subject: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A request of every person."""
    return requests_by_subject


@pytest.fixture(scope="module")
def server(bundle: Path, subjects: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    people = {
        "ada": (subjects[0], "person", ()),
        "ben": (subjects[1], "person", ()),
        "stranger": ("nobody-knows", "person", ()),
        "doctor": ("doctor", "clinician", subjects[:2]),
        "rival": ("rival", "service", ()),
    }
    with running(bundle, tmp_path_factory.mktemp("isolation"), people) as found:
        yield found


def rows(response: Any) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return list(response.json()["rows"])


def test_a_person_is_the_tokens_own_subject_even_if_the_request_names_nobody(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    named = rows(server.predict(asking[subjects[0]], "ada"))[0]
    unnamed = rows(server.predict({**asking[subjects[0]], "subject_id": None}, "ada"))[0]
    assert named["answer"] == unnamed["answer"]
    assert named["evidence"]["history_sha256"] != ""


def test_a_person_cannot_be_answered_as_somebody_else(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    response = server.predict(asking[subjects[1]], "ada")
    assert response.status_code == 403
    assert subjects[1] not in response.text


def test_in_one_mixed_batch_each_row_is_decided_for_itself(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    batch = {"rows": [asking[subjects[0]], asking[subjects[1]], asking[subjects[2]], {"readings": CANARY}]}
    for who, wanted in {
        "ada": ["answered", 403, 403, 422],
        "ben": [403, "answered", 403, 422],
        "doctor": ["answered", "answered", 403, 422],
        "service": ["answered", "answered", "answered", 422],
        "stranger": [403, 403, 403, 422],
    }.items():
        response = server.predict(batch, who)
        found = [r["status"] if r["status"] == "answered" else r["problem"]["status"] for r in rows(response)]
        assert found == wanted, who
        assert CANARY not in response.text


def test_a_row_of_a_mixed_batch_is_byte_for_byte_the_row_alone(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    together = server.predict({"rows": [asking[s] for s in subjects]}).text
    for subject in subjects:
        alone = server.predict(asking[subject]).text
        answer = alone[alone.index('"answer":') : -len("}]}")]
        assert answer in together, subject


ROLES = ("ada", "ben", "stranger", "doctor", "service", "rival", "admin")


@pytest.fixture(scope="module")
def of_ada(server: Server, asking: dict[str, Any], subjects: list[str]) -> str:
    """A prediction about the first person, which her own token asked for."""
    key = str(rows(server.predict(asking[subjects[0]], "ada"))[0]["prediction_id"])
    server.flush()
    return key


@pytest.mark.parametrize("who", ROLES)
@pytest.mark.parametrize("in_database", [False, True])
def test_a_prediction_is_found_by_its_subject_and_those_who_may_see_the_subject(
    server: Server, of_ada: str, who: str, in_database: bool
) -> None:
    if in_database:
        server.state.records._recent.clear()
    response = server.call("GET", f"/v1/predictions/{of_ada}", who)
    assert response.status_code == (200 if who in ("ada", "doctor", "admin") else 404)
    if response.status_code == 404:
        unknown = server.call("GET", "/v1/predictions/00000000-0000-4000-8000-000000000000", who)
        assert response.text == unknown.text, "the answer must not tell that the id exists"


@pytest.mark.parametrize("who", ROLES)
def test_outcomes_are_taken_only_for_predictions_that_the_caller_may_see(server: Server, of_ada: str, who: str) -> None:
    horizon = {"ada": "15", "doctor": "30", "admin": "45"}.get(who, "60")
    outcome = outcome_of(server, of_ada, horizon)
    response = server.call("POST", "/v1/outcomes", who, json={"outcomes": [outcome]})
    assert response.status_code == 200
    allowed = who in ("ada", "doctor", "admin")
    unknown = [] if allowed else [of_ada]
    assert response.json() == {"recorded": int(allowed), "already_known": 0, "unknown": unknown}


@pytest.mark.parametrize("who", ROLES)
def test_everything_about_a_subject_is_exported_to_that_subject_and_the_admin_alone(
    server: Server, of_ada: str, subjects: list[str], who: str
) -> None:
    response = server.call("GET", f"/v1/subjects/{subjects[0]}", who)
    assert response.status_code == (200 if who in ("ada", "admin") else 403)
    if response.status_code == 200:
        lines = [json.loads(line) for line in response.text.splitlines()]
        assert of_ada in {line["row"]["id"] for line in lines}
        assert {line["row"]["owner_id"] for line in lines} == {subjects[0]}


def test_a_service_sees_what_it_asked_for_and_not_what_another_one_did(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    key = rows(server.predict(asking[subjects[2]], "rival"))[0]["prediction_id"]
    assert server.call("GET", f"/v1/predictions/{key}", "rival").status_code == 200
    assert server.call("GET", f"/v1/predictions/{key}", "service").status_code == 404


def test_an_idempotency_key_belongs_to_one_client(server: Server, asking: dict[str, Any], subjects: list[str]) -> None:
    header = {"idempotency-key": "the-same"}
    first, again, other = (
        rows(server.predict(asking[subjects[2]], who, **header))[0] for who in ("rival", "rival", "service")
    )
    assert first == again
    assert first["prediction_id"] != other["prediction_id"]
    reused = server.predict(asking[subjects[1]], "rival", **header)
    assert (reused.status_code, reused.json()["type"]) == (422, "urn:hallmark:idempotency_key_reused")


def test_calls_at_the_same_time_with_one_key_have_one_answer(
    server: Server, asking: dict[str, Any], subjects: list[str]
) -> None:
    bodies = [asking[subjects[0]], asking[subjects[1]]] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda body: server.predict(body, **{"idempotency-key": "at-once"}), bodies))
    answered = [response.text for response in found if response.status_code == 200]
    assert len(answered) == 4
    assert len(set(answered)) == 1
    assert {response.status_code for response in found} == {200, 422}


def outcome_of(server: Server, key: str, horizon: str, value: object = 120.0, late: timedelta = timedelta(0)) -> Any:
    """What happened at a horizon of a prediction, told in the subject's local time, two hours east of UTC."""
    answer = server.call("GET", f"/v1/predictions/{key}", "admin").json()["answer"]
    last = datetime.fromisoformat(answer["provenance"]["last"])
    when = (last + timedelta(minutes=int(horizon or 0)) + late).isoformat() + "+02:00"
    return {"prediction_id": key, "horizon": horizon, "value": value, "observed_at": when}


def test_an_outcome_is_kept_once_and_in_utc(server: Server, asking: dict[str, Any], subjects: list[str]) -> None:
    key = rows(server.predict(asking[subjects[0]], "ada"))[0]["prediction_id"]
    outcome = outcome_of(server, key, "60")
    twice = server.call("POST", "/v1/outcomes", "ada", json={"outcomes": [outcome, outcome]}).json()
    assert twice == {"recorded": 1, "already_known": 1, "unknown": []}
    server.flush()
    server.state.records._recent.clear()
    later = {**outcome, "value": 140.0}
    again = server.call("POST", "/v1/outcomes", "ada", json={"outcomes": [later]}).json()
    assert again == {"recorded": 0, "already_known": 1, "unknown": []}
    [found] = server.call("GET", f"/v1/predictions/{key}", "ada").json()["outcomes"]
    expected = datetime.fromisoformat(outcome["observed_at"]).astimezone(UTC)
    assert (found["observed_at"], found["value"]) == (expected.isoformat(), 120.0)


@pytest.mark.parametrize("who", ROLES)
def test_feedback_is_taken_for_predictions_that_the_caller_may_see(
    server: Server, asking: dict[str, Any], subjects: list[str], who: str
) -> None:
    key = rows(server.predict(asking[subjects[0]], "ada"))[0]["prediction_id"]
    said = {"prediction_id": key, "helpful": False}
    response = server.call("POST", "/v1/feedback", who, json=said)
    if who not in ("ada", "doctor", "admin"):
        unknown = {**said, "prediction_id": "00000000-0000-4000-8000-000000000000"}
        assert response.status_code == 404
        assert response.text == server.call("POST", "/v1/feedback", who, json=unknown).text
        return
    assert (response.status_code, response.json()) == (200, {"recorded": True})
    server.flush()
    server.state.records._recent.clear()
    again = server.call("POST", "/v1/feedback", "ada", json={**said, "helpful": True})
    assert again.json() == {"recorded": False}, "the first one counts"
    [found] = server.call("GET", f"/v1/predictions/{key}", "ada").json()["outcomes"]
    assert (found["horizon"], found["value"]) == ("feedback", "unhelpful")
    version = server.call("GET", "/v1/models", "ada").json()[0]["version"]
    counted = f'hallmark_outcome_loss_count{{error="unhelpful",version="{version}"}}'
    assert counted in server.call("GET", "/metrics", "admin").text
    told = {**outcome_of(server, key, "60"), "horizon": "feedback", "value": "helpful"}
    refused = server.call("POST", "/v1/outcomes", "ada", json={"outcomes": [told]})
    assert refused.status_code == 422, "an outcome of a forecast has one of its horizons"


@pytest.mark.parametrize("helpful", ["yes", 1, None])
def test_feedback_that_is_no_yes_or_no_is_refused(server: Server, of_ada: str, helpful: object) -> None:
    said = {"prediction_id": of_ada, "helpful": helpful}
    assert server.call("POST", "/v1/feedback", "ada", json=said).status_code == 422


@pytest.mark.parametrize(
    ("field", "change", "problem"),
    [
        ("horizon", {"horizon": "61"}, "must be a horizon of the forecast, in minutes: 5, 10, 15"),
        ("horizon", {"horizon": ""}, "must be a horizon of the forecast"),
        ("value", {"value": 6.7}, "looks like mmol/L"),
        ("value", {"value": 6000}, "must lie within 10 and 600 mg/dL"),
        ("value", {"value": "high"}, "must be a number, in mg/dL"),
        ("observed_at", {"late": timedelta(minutes=11)}, "the last reading plus the horizon, within 10 minutes"),
        ("observed_at", {"late": timedelta(hours=-2)}, "the last reading plus the horizon, within 10 minutes"),
        ("observed_at", {"observed_at": "2199-01-01T00:00:00Z"}, "lies in the future"),
    ],
)
def test_what_cannot_be_an_outcome_of_a_forecast_is_refused_with_all_that_came_with_it(
    server: Server, asking: dict[str, Any], subjects: list[str], field: str, change: dict[str, Any], problem: str
) -> None:
    key = rows(server.predict(asking[subjects[0]], "ada"))[0]["prediction_id"]
    right, wrong = outcome_of(server, key, "30"), outcome_of(server, key, "60", late=change.pop("late", timedelta(0)))
    response = server.call("POST", "/v1/outcomes", "ada", json={"outcomes": [right, {**wrong, **change}]})
    assert response.status_code == 422
    [found] = response.json()["fields"]
    assert found["name"] == f"outcomes.1.{field}"
    assert problem in found["problem"]
    server.flush()
    assert server.call("GET", f"/v1/predictions/{key}", "ada").json()["outcomes"] == []


@pytest.mark.parametrize(
    "change",
    [{"horizon": "a\u0000"}, {"observed_at": "0001-01-01T00:00:00+14:00"}, {"observed_at": "2024-01-01T00:00"}],
)
def test_an_outcome_that_no_database_can_hold_is_refused(server: Server, of_ada: str, change: dict[str, str]) -> None:
    outcome = {"prediction_id": of_ada, "horizon": "60", "value": 1.0, "observed_at": "2024-01-01T00:00:00Z", **change}
    assert server.call("POST", "/v1/outcomes", "ada", json={"outcomes": [outcome]}).status_code == 422


@pytest.mark.parametrize("subject", ["", " ", "a\u0000b", "a\nb"])
def test_a_subject_that_cannot_be_printed_is_refused(
    server: Server, asking: dict[str, Any], subjects: list[str], subject: str
) -> None:
    response = server.predict({**asking[subjects[0]], "subject_id": subject})
    assert response.status_code == 422


def test_nothing_is_answered_without_a_key_except_what_holds_nothing_about_anybody(server: Server) -> None:
    document = server.call("GET", "/openapi.json", None).json()
    public = {"/livez", "/readyz"}
    for path, operations in document["paths"].items():
        concrete = path.replace("{prediction_id}", "00000000-0000-4000-8000-000000000000").replace("{subject_id}", "x")
        for method in operations:
            body = {"json": {}} if method == "post" else {}
            status = server.call(method.upper(), concrete, None, **body).status_code
            assert status == (200 if path in public else 401), path


@pytest.mark.parametrize("who", ROLES)
def test_metrics_are_for_services_and_admins(server: Server, who: str) -> None:
    response = server.call("GET", "/metrics", who)
    assert response.status_code == (200 if who in ("service", "rival", "admin") else 403)


def test_metrics_name_no_subject_and_no_id(server: Server, of_ada: str, subjects: list[str]) -> None:
    text = server.call("GET", "/metrics", "admin").text
    assert "hallmark_predictions_total" in text
    assert of_ada not in text
    assert not any(subject in text for subject in subjects)


OUTSIDE = (
    "/v1/predictions/../../etc/passwd",
    "/v1/subjects/..%2f..%2fetc%2fpasswd",
    "/v1/subjects/" + "x" * 300,
    "/v1/predictions/'%20or%201=1--",
    "/assets/..%2fkeys.json",
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_id_leads_out_of_its_place(server: Server, path: str) -> None:
    response = server.call("GET", path, "ada")
    assert response.status_code in (403, 404, 422)
    assert "root:" not in response.text
