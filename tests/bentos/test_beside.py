"""Two versions in one service: each subject is answered by its own one, and a failing challenger is stopped."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hallmark.prove.bundle import open_bundle
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from tests.bentos.server import Server, running
from tests.bentos.test_guard import broken  # noqa: F401, a fixture
from tests.toys import another_version


@pytest.fixture(scope="module")
def other(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version that answers alike."""
    return another_version(bundle, tmp_path_factory.mktemp("other") / "bundle", "other")


@pytest.fixture
def server(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, ServedVersions]]:
    monkeypatch.setenv("HALLMARK_RECORDS__ANCHOR", str(tmp_path / "audit.heads"))
    versions = ServedVersions("glucose", tmp_path / "served")
    versions.promote(bundle)
    with running(versions.current, tmp_path / "home", {}, reload_s=0.05) as found:
        yield found, versions


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def who_answers(server: Server, requests: dict[str, Any]) -> dict[str, str]:
    response = server.predict({"rows": list(requests.values())})
    assert response.status_code == 200, response.text
    rows = response.json()["rows"]
    assert all(row["evidence"]["hallmark_sha256"] == row["answer"]["hallmark_sha256"] for row in rows)
    return {who: row["evidence"]["hallmark_sha256"][:16] for who, row in zip(requests, rows, strict=True)}


def test_each_subject_sticks_to_its_version_within_one_batch(
    server: tuple[Server, ServedVersions], other: Path, requests_by_subject: dict[str, Any]
) -> None:
    service, versions = server
    champion = versions.digest()
    assert set(who_answers(service, requests_by_subject).values()) == {champion}
    name = versions.challenge(other, 50, "split")
    people = list(requests_by_subject)
    versions.pin(people[0], name)
    versions.pin(people[1], champion)
    assert until(lambda: service.state.engine.beside == versions.beside())
    expected = {who: versions.beside().answers(who) or champion for who in people}
    assert {expected[people[0]], expected[people[1]]} == {name, champion}
    for _ in range(3):
        assert who_answers(service, requests_by_subject) == expected
    alone = {who: who_answers(service, {who: requests_by_subject[who]})[who] for who in people}
    assert alone == expected
    metrics = service.call("GET", "/metrics", "admin").text
    assert 'hallmark_row_seconds_count{kind="answered",version="1.0.0"}' in metrics
    listed = service.call("GET", "/v1/models").json()
    assert [model["hallmark_sha256"][:16] for model in listed] == [champion, name]
    versions.stop_challenger()
    assert until(lambda: len(service.state.engine.versions) == 1)
    assert set(who_answers(service, requests_by_subject).values()) == {champion}


def test_answers_of_both_versions_are_traced_and_replayed(
    server: tuple[Server, ServedVersions], other: Path, requests_by_subject: dict[str, Any]
) -> None:
    service, versions = server
    name = versions.challenge(other, 100, "split")
    assert until(lambda: len(service.state.engine.versions) == 2)
    who, request = next(iter(requests_by_subject.items()))
    row = service.predict(request).json()["rows"][0]
    assert row["evidence"]["hallmark_sha256"].startswith(name), who
    traced = service.call("GET", f"/v1/predictions/{row['prediction_id']}/provenance", params={"top": 1})
    assert traced.status_code == 200, traced.text
    assert traced.json()["hallmark_sha256"].startswith(name)
    replayed = service.state.witness.check_one()
    assert replayed is not None
    assert replayed.equal


def test_a_shadow_is_counted_and_answers_nobody(
    server: tuple[Server, ServedVersions], other: Path, requests_by_subject: dict[str, Any]
) -> None:
    service, versions = server
    versions.challenge(other, 100, "shadow")
    assert until(lambda: len(service.state.engine.versions) == 2)
    assert set(who_answers(service, requests_by_subject).values()) == {versions.digest()}
    counted = f'hallmark_shadow_total{{status="forecast",version="1.0.0"}} {float(len(requests_by_subject))}'
    assert until(lambda: counted in service.call("GET", "/metrics", "admin").text)
    service.flush()
    with service.state.records.database.writing() as connection:
        digests = connection.exec_driver_sql("select distinct hallmark_sha256 from predictions").scalars().all()
    assert [digest[:16] for digest in digests] == [versions.digest()]


def test_a_challenger_that_fails_is_stopped_by_the_service(
    server: tuple[Server, ServedVersions],
    broken: Path,  # noqa: F811
    requests_by_subject: dict[str, Any],
) -> None:
    service, versions = server
    champion, bad = versions.digest(), open_bundle(broken)[1]
    questions = {"rows": list(requests_by_subject.values()) * 5}
    service.predict(questions)
    versions.challenge(broken, 100, "split")
    assert until(lambda: len(service.state.engine.versions) == 2)
    assert service.predict(questions).status_code == 200
    assert until(lambda: versions.beside().challenger == "")
    assert until(lambda: len(service.state.engine.versions) == 1)
    assert set(who_answers(service, requests_by_subject).values()) == {champion}
    [entry] = [e for e in audit.entries(service.state.records.database, 9) if e["action"] == "challenger_stopped"]
    assert (entry["actor"], entry["object"]) == ("guard", bad)
    assert "could not be used for" in entry["detail"]
    assert "the guard has acted" in " ".join(service.call("GET", "/readyz", None).json()["warnings"])
    versions.challenge(broken, 1, "shadow")
    assert until(lambda: len(service.state.engine.versions) == 2)
    time.sleep(0.5)
    assert versions.beside().challenger == bad[:16], "what it failed at before does not count again"


def test_a_challenger_that_is_gone_leaves_everybody_to_the_champion(
    server: tuple[Server, ServedVersions], other: Path, requests_by_subject: dict[str, Any]
) -> None:
    service, versions = server
    name = versions.challenge(other, 100, "split")
    assert until(lambda: len(service.state.engine.versions) == 2)
    (versions.directory / name).rename(versions.directory / "elsewhere")
    assert until(lambda: len(service.state.engine.versions) == 1)
    assert set(who_answers(service, requests_by_subject).values()) == {versions.digest()}
    (versions.directory / "elsewhere").rename(versions.directory / name)
    assert until(lambda: len(service.state.engine.versions) == 2), "it is back"
    (versions.directory / "beside.json").write_text("{")
    time.sleep(0.3)
    assert set(who_answers(service, requests_by_subject).values()) == {versions.digest()}
