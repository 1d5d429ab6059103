"""An adapter that turns worse than the base model is stopped, the base model answers, and it may come back."""

import json
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hallmark.build import build
from hallmark.cli import app
from hallmark.outcomes import UNHELPFUL
from hallmark.prove.bundle import Hallmark, make_bundle, read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.records.database import Database, open_database
from hallmark.records.tables import days, pseudonyms
from hallmark.replaying import replay_answers
from hallmark.stages.refresh import successor
from hallmark.watch.adapters import read_ledgers
from hallmark.watch.monitor import Monitor, tell, watch
from hallmark.watch.page import write_page
from hallmark.watch.pairs import Serving, asked_by, compare_day, open_serving
from runtime.compose import compose_operation
from tests.bentos.server import running
from tests.toys import another_version
from tests.written import FIRST, HORIZONS, Writer, tell_feedback


def base_is_right(own: float, base: float) -> float:
    return base + 2 * (base - own)  # losses are as 2 to 3


def own_is_right(own: float, base: float) -> float:
    return own + 0.1 * (own - base)  # as 11 to 1, and within every interval


def own_is_a_little_better(own: float, base: float) -> float:
    return own + 10 * (own - base)  # as 11 to 10


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    """The rules as they are configured."""
    found: Monitor = build(compose_operation([]))["monitor"]
    return found


@pytest.fixture(scope="module")
def serving(bundle: Path) -> Serving:
    """The toy cohort's model."""
    return open_serving(bundle)


@pytest.fixture(scope="module")
def hallmark(bundle: Path) -> Hallmark:
    """Its manifest."""
    return read_hallmark(bundle)[0]


@pytest.fixture(scope="module")
def personal(serving: Serving, requests_by_subject: dict[str, Any]) -> dict[str, Any]:
    """Requests of the subjects whose adapter's answer differs from the base model's."""
    kind, found = serving.task.request_type(), {}
    for subject, body in requests_by_subject.items():
        request = kind.model_validate(body)
        own, base = serving.predictor.predict([request, asked_by(request, None)])
        if own.served_by == "adapter" and own.forecast != base.forecast:
            found[subject] = request
    assert len(found) >= 2
    return found


def today(day: int) -> date:
    return (FIRST + timedelta(days=day)).date()


def states(database: Database) -> dict[str, str]:
    return {account["owner_id"]: account["state"] for account in read_ledgers(database, "glucose")}


def test_the_worse_adapter_is_stopped_and_the_better_one_serves_on(
    database: Database, serving: Serving, hallmark: Hallmark, personal: dict[str, Any], monitor: Monitor
) -> None:
    writer, (bad, good) = Writer(database, serving, hallmark), list(personal)[:2]
    writer.write(personal[bad], base_is_right, range(40))
    writer.write(personal[good], own_is_right, range(40))
    found = watch(database, serving.task, monitor, FIRST + timedelta(days=42), lambda: serving)
    assert states(database) == {bad: "stopped", good: "serving"}
    [change] = found.changes
    assert (change.subject_id, change.state) == (bad, "stopped")
    assert "worse than the base" in change.reason or "beyond the base's" in change.reason
    [alarm] = [raised for raised in found.new if raised.kind == "never_worse"]
    assert bad not in alarm.message
    told = tell(database, "glucose", [], FIRST)
    assert told == len(found.alarms) == 1  # kept with the ledgers, in one transaction
    with database.writing() as connection:
        figures = json.loads(connection.execute(sa.select(days.c.figures).order_by(days.c.day)).scalars().first() or "")
    assert figures["pair.base"] > 0
    assert figures["pair.adapter"] > 0


def test_a_stop_is_in_the_audit_log_under_a_pseudonym(
    database: Database, serving: Serving, hallmark: Hallmark, personal: dict[str, Any], monitor: Monitor
) -> None:
    subject = next(iter(personal))
    Writer(database, serving, hallmark).write(personal[subject], base_is_right, range(40))
    watch(database, serving.task, monitor, FIRST + timedelta(days=42), lambda: serving)
    [entry] = audit.entries(database, 5)
    with database.writing() as connection:
        known = connection.execute(sa.select(pseudonyms.c.pseudonym, pseudonyms.c.owner_id)).one()
    assert (entry["action"], entry["object"], known.owner_id) == ("adapter_stopped", known.pseudonym, subject)
    assert subject not in json.dumps({name: str(value) for name, value in entry.items()})
    assert audit.check(database) is None


def test_every_day_counts_once_whatever_is_read_again(
    database: Database, serving: Serving, hallmark: Hallmark, personal: dict[str, Any], monitor: Monitor
) -> None:
    writer, (first, second) = Writer(database, serving, hallmark), list(personal)[:2]
    writer.write(personal[first], own_is_right, range(6))
    for day in (3, 5, 5, 8, 8):
        watch(database, serving.task, monitor, FIRST + timedelta(days=day), lambda: serving)
    [account] = read_ledgers(database, "glucose")
    assert account["ledger"].days == 6
    writer.write(personal[second], own_is_right, range(6))  # comes too late to be judged
    watch(database, serving.task, monitor, FIRST + timedelta(days=9), lambda: serving)
    assert [account["ledger"].days for account in read_ledgers(database, "glucose")] == [6]


def test_only_some_answers_of_a_day_are_compared_and_both_losses_are_those_of_the_answers(
    database: Database, serving: Serving, hallmark: Hallmark, personal: dict[str, Any]
) -> None:
    subject, request = next(iter(personal.items()))
    Writer(database, serving, hallmark).write(request, base_is_right, [0])
    tell_feedback(database, {subject: UNHELPFUL})  # is no error of a forecast
    for most, compared in ((1, HORIZONS), (5, 2 * HORIZONS)):
        sums = compare_day(database, serving, today(0), most, 0.9)[subject]
        assert (sums.outcomes, sums.with_interval, sums.served) == (compared, compared, True)
        assert sums.base / sums.adapter == pytest.approx(2 / 3)


def test_a_stopped_adapter_is_scored_on_and_serves_again_when_it_is_better(
    database: Database, serving: Serving, hallmark: Hallmark, personal: dict[str, Any], monitor: Monitor
) -> None:
    subject, request = next(iter(personal.items()))
    writer = Writer(database, serving, hallmark)
    writer.write(request, base_is_right, range(5))
    watch(database, serving.task, monitor, FIRST + timedelta(days=7), lambda: serving)
    assert states(database) == {subject: "stopped"}
    writer.write(request, own_is_a_little_better, range(7, 77), held_back=True)
    found = watch(database, serving.task, monitor, FIRST + timedelta(days=80), lambda: serving)
    assert [change.state for change in found.changes] == ["serving"]
    [account] = read_ledgers(database, "glucose")
    assert account["ledger"].days < 75  # from then on, what the base model answered says nothing about the adapter
    assert account["reason"].startswith("better than the base again")


def test_the_service_asks_the_base_model_says_so_and_the_answer_replays(
    bundle: Path,
    serving: Serving,
    hallmark: Hallmark,
    personal: dict[str, Any],
    monitor: Monitor,
    tmp_path: Path,
) -> None:
    subject, other = list(personal)[:2]
    home = tmp_path / "home"
    home.mkdir()
    url = f"sqlite:///{home}/records.sqlite"
    database = open_database(url)
    Writer(database, serving, hallmark).write(personal[subject], base_is_right, range(40))
    with running(bundle, home, {}, records={"request_days": 36_500}) as server:
        bodies = [json.loads(personal[name].model_dump_json()) for name in (subject, other)]
        before = server.predict({"rows": bodies}, **{"idempotency-key": "one"}).json()["rows"]
        assert [row["answer"]["served_by"] for row in before] == ["adapter", "adapter"]
        assert [row["reason"] for row in before] == ["", ""]
        found = watch(database, serving.task, monitor, FIRST + timedelta(days=42), lambda: serving)
        assert [change.subject_id for change in found.changes] == [subject]
        deadline = time.monotonic() + 120
        while not len(server.state.stopped) and time.monotonic() < deadline:
            time.sleep(0.1)
        again = server.predict({"rows": bodies}, **{"idempotency-key": "one"}).json()["rows"]
        assert again == before  # an answer that was given stays given
        rows = server.predict({"rows": bodies}, **{"idempotency-key": "two"}).json()["rows"]
        assert [row["answer"]["served_by"] for row in rows] == ["base", "adapter"]
        assert rows[0]["reason"].startswith("the subject's own model is stopped: ")
        assert rows[0]["evidence"]["adapter_sha256"] == ""
        assert server.predict({"rows": bodies}, **{"idempotency-key": "two"}).json()["rows"] == rows
        server.flush()
        shown = server.call("GET", f"/v1/predictions/{rows[0]['prediction_id']}", "admin").json()
        assert shown["request"]["subject_id"] is None
        exported = server.call("GET", f"/v1/subjects/{subject}", "admin").text
        assert rows[0]["prediction_id"] in exported
        [replayed] = replay_answers(url, rows[0]["prediction_id"], 1, [bundle])
        assert replayed.equal
    write_page(found, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Adapters against the base model" in page
    assert subject not in page


def test_the_ledgers_go_on_when_a_refresh_is_promoted(
    bundle: Path,
    serving: Serving,
    hallmark: Hallmark,
    personal: dict[str, Any],
    monitor: Monitor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HALLMARK_RECORDS__ANCHOR", str(tmp_path / "audit.heads"))
    url, served = f"sqlite:///{tmp_path}/records.sqlite", tmp_path / "served"
    ServedVersions("glucose", served).promote(bundle)
    database, subject = open_database(url), next(iter(personal))
    Writer(database, serving, hallmark).write(personal[subject], base_is_right, range(5))
    watch(database, serving.task, monitor, FIRST + timedelta(days=7), lambda: serving)
    refreshed, trained = tmp_path / "refreshed", tmp_path / "trained"
    contents = successor(bundle, hallmark, {"refreshed": {"trained": serving.hallmark_sha256}})
    make_bundle(bundle, contents, refreshed)
    another_version(bundle, trained, "trained")
    options = ["--served", str(served), "--records", url]
    for out, known in ((refreshed, ["stopped", "stopped"]), (trained, ["stopped", "stopped"])):
        done = CliRunner().invoke(app, ["promote", "--bundle", str(out), *options], catch_exceptions=False)
        assert done.exit_code == 0
        found = read_ledgers(database, "glucose")
        assert [account["state"] for account in found] == known
    digests = {account["hallmark_sha256"] for account in found}
    assert digests == {serving.hallmark_sha256, read_hallmark(refreshed)[1]}, "a new training begins anew"
