"""A version whose outcomes are worse than the answers of the version before is rolled back, and no other."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from hallmark.build import build
from hallmark.files import read_json, write_json
from hallmark.prove.bundle import read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.stages.forget import forget
from hallmark.succeeding import judge_challenger_beside, judge_version
from hallmark.watch.monitor import Monitor, read_alarms, watch
from hallmark.watch.page import write_page
from hallmark.watch.pairs import Serving, asked_by, open_serving
from runtime.compose import compose_operation
from tests.toys import another_version
from tests.written import FIRST, Writer

DAYS = 6


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    """The rules as they are configured."""
    found: Monitor = build(compose_operation([]))["monitor"]
    return found


@pytest.fixture(scope="module")
def original(bundle: Path) -> Serving:
    return open_serving(bundle)


@pytest.fixture(scope="module")
def personal(original: Serving, requests_by_subject: dict[str, Any]) -> list[Any]:
    """Requests of the subjects whose own model answers otherwise than the base model."""
    kind, found = original.task.request_type(), []
    for body in requests_by_subject.values():
        request = kind.model_validate(body)
        own, base = original.predictor.predict([request, asked_by(request, None)])
        if own.served_by == "adapter" and own.forecast != base.forecast:
            found.append(request)
    assert len(found) >= 5
    return found


@pytest.fixture(scope="module")
def impersonal(bundle: Path, personal: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that has lost the adapters of these subjects."""
    out = tmp_path_factory.mktemp("impersonal") / "bundle"
    source = bundle
    for request in personal:
        assert forget(source, out, request.subject_id) is not None
        source = out
    return out


def own_was_right(own: float, base: float) -> float:
    """Return what the own model has missed by 0.2 mg/dL less than the base model, or by all that they differ."""
    apart = abs(own - base)
    return base + (1 if own > base else -1) * (apart + min(0.2, apart)) / 2


def play(
    database: Database, served: ServedVersions, challenger: Path, original: Serving, personal: list[Any], rule: Monitor
) -> Any:
    """Promote a version, let it answer for some days, and judge it; outcomes are near what the original would say."""
    served.promote(challenger)
    record = served.directory / f"{served.digest()}.json"
    write_json(record, {**read_json(record), "at": FIRST.isoformat()})
    serving = open_serving(challenger)
    writer = Writer(database, serving, read_hallmark(challenger)[0], original.predictor)
    for request in personal:
        writer.write(request, own_was_right, range(DAYS))
    now = FIRST + timedelta(days=DAYS + 3)
    found = watch(database, serving.task, rule, now)
    return found, judge_version(database, served.current, rule.succession, now)


@pytest.fixture
def served(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedVersions:
    monkeypatch.setenv("HALLMARK_RECORDS__ANCHOR", str(tmp_path / "audit.heads"))
    versions = ServedVersions("glucose", tmp_path / "served")
    versions.promote(bundle)
    return versions


def test_a_version_that_is_worse_is_rolled_back_and_the_reason_is_kept(
    database: Database,
    served: ServedVersions,
    impersonal: Path,
    original: Serving,
    personal: list[Any],
    monitor: Monitor,
    tmp_path: Path,
) -> None:
    first = served.digest()
    found, judged = play(database, served, impersonal, original, personal, monitor)
    assert (judged.result.decision, judged.result.subjects) == ("roll_back", len(personal))
    assert judged.result.pairs == len(personal) * DAYS
    assert served.digest() == first
    [entry] = [entry for entry in audit.entries(database, 9) if entry["action"] == "rolled_back"]
    assert entry["actor"] == "monitor"
    assert "worse by more than 0.02" in entry["detail"]
    [alarm] = [alarm for alarm in read_alarms(database, "glucose") if alarm["kind"] == "succession"]
    assert alarm["severity"] == "critical"
    write_page(found, tmp_path / "page", judged)
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Against the version before" in page
    assert "It is worse" in page
    assert judge_version(database, served.current, monitor.succession, found.at) is None  # promoted over none


def test_an_equal_version_goes_on_and_every_day_is_compared_once(
    database: Database,
    served: ServedVersions,
    bundle: Path,
    original: Serving,
    personal: list[Any],
    monitor: Monitor,
    tmp_path: Path,
) -> None:
    equal = another_version(bundle, tmp_path / "equal", "equal")
    found, judged = play(database, served, equal, original, personal, monitor)
    assert (judged.result.decision, judged.result.difference, judged.told) == ("continue", 0.0, "")
    again = judge_version(database, served.current, monitor.succession, found.at)
    assert again is not None
    assert again.result == judged.result
    later = found.at + timedelta(days=monitor.succession.days)
    assert judge_version(database, served.current, monitor.succession, later) is None


def test_answers_without_outcomes_never_count_as_good(
    database: Database,
    served: ServedVersions,
    impersonal: Path,
    original: Serving,
    personal: list[Any],
    monitor: Monitor,
) -> None:
    found, judged = play(database, served, impersonal, original, personal[:2], monitor)
    assert judged.result.decision == "continue"
    assert "5 are needed" in judged.result.reason
    assert found.taken.outcomes > 0


def test_a_bundle_that_no_pointer_leads_to_is_not_judged(database: Database, bundle: Path, monitor: Monitor) -> None:
    assert judge_version(database, bundle, monitor.succession, FIRST) is None


@pytest.mark.parametrize("mode", ["split", "shadow"])
def test_a_challenger_that_is_worse_is_stopped_and_the_champion_stays(
    database: Database,
    served: ServedVersions,
    mode: Literal["split", "shadow"],
    bundle: Path,
    impersonal: Path,
    original: Serving,
    personal: list[Any],
    monitor: Monitor,
    tmp_path: Path,
) -> None:
    champion, name = served.digest(), served.challenge(impersonal, 100 if mode == "shadow" else 50, mode)
    beside = read_json(served.directory / "beside.json")
    write_json(served.directory / "beside.json", {**beside, "since": FIRST.isoformat()})
    answered_by = impersonal if mode == "split" else bundle  # a challenger in the shadow answers nobody
    answering = open_serving(answered_by)
    writer = Writer(database, answering, read_hallmark(answered_by)[0], original.predictor)
    for request in personal:
        writer.write(request, own_was_right, range(DAYS))
    now = FIRST + timedelta(days=DAYS + 3)
    found = watch(database, answering.task, monitor, now)
    judged = judge_challenger_beside(database, served.current, monitor.succession, now)
    assert judged is not None
    assert (judged.result.decision, judged.result.pairs) == ("roll_back", len(personal) * DAYS)
    assert (served.digest(), served.beside().challenger) == (champion, "")
    [entry] = [entry for entry in audit.entries(database, 9) if entry["action"] == "challenger_stopped"]
    assert entry["actor"] == "monitor"
    assert entry["object"].startswith(name)
    [alarm] = [alarm for alarm in read_alarms(database, "glucose") if alarm["kind"] == "succession"]
    assert "serves beside the champion no more" in alarm["message"]
    write_page(found, tmp_path / "page", None, judged)
    assert "Beside the champion" in (tmp_path / "page" / "report.html").read_text()
    assert judge_challenger_beside(database, served.current, monitor.succession, now) is None
