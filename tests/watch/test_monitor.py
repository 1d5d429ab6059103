"""The monitor reads every row once, whatever happens to it, and tells what has changed in words."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from benchmarks.recorded import DIGEST, FIRST, LABELS, write_log
from hallmark.build import build
from hallmark.contracts import Task
from hallmark.errors import ConfigError
from hallmark.outcomes import HELPFUL, UNHELPFUL
from hallmark.records.database import Database, open_database
from hallmark.records.tables import arrivals, outcomes, predictions, subject_days
from hallmark.watch.alarms import Bound, Raised, news
from hallmark.watch.comparison import write_comparison
from hallmark.watch.drift import Alarm
from hallmark.watch.figures import request_figures, response_figures
from hallmark.watch.monitor import Found, Monitor, drift_alarms, tell, watch
from hallmark.watch.page import write_page
from hallmark.watch.sinks import EmailSink, FileSink, SinkError, WebhookSink
from runtime.compose import compose_operation, composed
from tests.toys import ROOT
from tests.written import tell_feedback


@pytest.fixture(scope="module")
def task() -> Task:
    """The sentiment task."""
    found: Task = build(composed("experiment=sentiment")["task"])
    return found


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    """The rules, with fewer reference days."""
    found: Monitor = build(compose_operation(["monitor.drift.reference_days=20"]))["monitor"]
    return found


@pytest.fixture
def records(tmp_path: Path) -> Database:
    """Records in SQLite."""
    return open_database(f"sqlite:///{tmp_path / 'records.sqlite'}")


def after(days: int) -> datetime:
    """A time when so many days are over."""
    return FIRST + timedelta(days=days, hours=1)


def counted(database: Database) -> dict[str, float]:
    """Add up the figures of all subjects and days."""
    with database.writing() as connection:
        texts = connection.execute(sa.select(subject_days.c.figures)).scalars().all()
    names = ("service.abstained", "score.error", "request.text.length")
    return {name: sum(json.loads(text).get(name, [0, 0])[0] for text in texts) for name in names}


def test_figures_are_means_spreads_and_lengths_by_path() -> None:
    request = {"subject_id": "ada", "asked_at": "2026-01-01T10:00:00", "note": None, "text": "four"}
    request |= {"readings": [{"at": "2026-01-01T10:00", "value": v} for v in (1.0, 3.0)]}
    assert request_figures(request) == {
        "request.asked_at.missing": 0.0,
        "request.note.missing": 1.0,
        "request.text.missing": 0.0,
        "request.text.length": 4.0,
        "request.readings.missing": 0.0,
        "request.readings.count": 2.0,
        "request.readings.value": 2.0,
        "request.readings.value.sd": 1.0,
    }
    answer = {"label": "positive", "reason": "", "sure": 0.5, "unknown": float("nan")}
    assert response_figures(answer, LABELS) == {
        "response.label=negative": 0.0,
        "response.label=positive": 1.0,
        "response.sure": 0.5,
    }


def test_every_row_counts_once_on_both_databases(database: Database, task: Task, monitor: Monitor) -> None:
    database.migrate()
    write_log(database, 3, 4, 5)
    first = watch(database, task, monitor, after(3))
    assert (first.taken.predictions, first.taken.sampled, first.taken.outcomes) == (60, 60, 60)
    again = watch(database, task, monitor, after(3))
    assert (again.taken.predictions, again.taken.outcomes) == (0, 0)
    write_log(database, 1, 4, 5, first_day=1, seed=1)  # rows that come late
    assert watch(database, task, monitor, after(3)).taken.days == {date(2026, 1, 2)}
    assert counted(database) == {"service.abstained": 80, "score.error": 80, "request.text.length": 80}


def test_an_outcome_that_comes_before_its_prediction_is_read_when_the_prediction_comes(
    records: Database, task: Task, monitor: Monitor
) -> None:
    write_log(records, 1, 1, 2)
    with records.writing() as connection:
        kept = [dict(row) for row in connection.execute(sa.select(predictions)).mappings()]
        connection.execute(sa.delete(predictions))
        connection.execute(sa.delete(arrivals).where(arrivals.c.kind == "predictions"))
    assert watch(records, task, monitor, after(1)).taken.outcomes == 0
    with records.writing() as connection:
        records.insert(connection, predictions, kept)
    assert watch(records, task, monitor, after(1)).taken.outcomes == 2


def test_feedback_is_a_figure_of_the_version_that_had_answered(
    records: Database, task: Task, monitor: Monitor, tmp_path: Path
) -> None:
    write_log(records, 1, 2, 2)
    tell_feedback(records, {"person-0": UNHELPFUL, "person-1": HELPFUL})
    found = watch(records, task, monitor, after(1))
    assert found.breakdown is not None
    [(_, means)] = found.breakdown.versions.values()
    assert means["score.unhelpful"] == 0.5
    write_page(found, tmp_path)
    assert "unhelpful" in (tmp_path / "report.html").read_text(encoding="utf-8").partition("By version")[2]


def test_a_part_of_the_rows_is_read_in_full_and_all_others_count_for_the_service(
    records: Database, task: Task, monitor: Monitor
) -> None:
    write_log(records, 2, 10, 50)
    found = watch(records, task, replace(monitor, most_rows=200), after(2))
    assert found.taken.predictions == 1000
    assert 120 < found.taken.sampled < 280
    totals = counted(records)
    assert totals["service.abstained"] == 1000
    assert totals["request.text.length"] == found.taken.sampled


def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    records: Database, task: Task, monitor: Monitor, tmp_path: Path
) -> None:
    write_log(records, 4, 10, 30)
    code = (
        "from hallmark.watch import intake, monitor as m; import os, sys; from datetime import datetime; "
        "intake.PART = 100; n = [0]; real = intake.keep_figures\n"
        "def keep(*a):\n"
        "    real(*a); n[0] += 1\n"
        "    if n[0] == 5: os._exit(9)\n"
        "intake.keep_figures = keep\n"
        "from hallmark.build import build; from runtime.compose import compose_operation, composed\n"
        "from hallmark.records.database import Database\n"
        "m.watch(Database(sys.argv[1]), build(composed('experiment=sentiment')['task']), "
        "build(compose_operation([]))['monitor'], datetime.fromisoformat(sys.argv[2]))"
    )
    arguments = [sys.executable, "-c", code, str(records.url), after(4).isoformat()]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == 9
    found = watch(records, task, monitor, after(4))
    assert found.taken.predictions == 800, "four parts of a hundred were kept before the kill"
    assert counted(records) == {"service.abstained": 1200, "score.error": 1200, "request.text.length": 1200}


def test_two_monitors_at_once_count_every_row_once(records: Database, monitor: Monitor, tmp_path: Path) -> None:
    write_log(records, 2, 10, 30)
    environment = {**os.environ, "HALLMARK_RECORDS__URL": str(records.url)}
    code = (
        "import sys; from datetime import datetime; from hallmark.watch import intake; intake.PART = 50; "
        "from hallmark.watch.monitor import watch; from hallmark.build import build; "
        "from runtime.compose import compose_operation, composed; "
        "from hallmark.records.database import Database, configured_url; "
        "watch(Database(configured_url()), build(composed('experiment=sentiment')['task']), "
        "build(compose_operation([]))['monitor'], datetime.fromisoformat(sys.argv[1]))"
    )
    arguments = [sys.executable, "-c", code, after(2).isoformat()]
    both = [subprocess.Popen(arguments, cwd=ROOT, env=environment) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert counted(records)["service.abstained"] == 600


@pytest.fixture(scope="module")
def shifted(task: Task, monitor: Monitor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, Found]:
    """What is found on a log whose texts and errors change on day 30."""
    records = open_database(f"sqlite:///{tmp_path_factory.mktemp('shifted') / 'records.sqlite'}")
    write_log(records, 30, 20, 10)
    quiet = watch(records, task, monitor, after(30))
    assert [alarm.figure for alarm in quiet.new] == []
    write_log(records, 5, 20, 10, first_day=30, shift=0.5, errors=0.3)
    return records, watch(records, task, monitor, after(36))


def test_a_change_is_found_and_told_with_since_when_how_sure_and_what_to_do(
    shifted: tuple[Database, Found], task: Task, monitor: Monitor
) -> None:
    records, found = shifted
    by_figure = {alarm.figure: alarm for alarm in found.new}
    assert {"request", "response", "score.error"} <= set(by_figure)
    drift, worse = by_figure["request"], by_figure["score.error"]
    assert "request.text.length deviates by +" in drift.message
    assert drift.kind == "drift"
    assert date(2026, 1, 29) <= drift.since <= date(2026, 1, 31)
    assert drift.day <= date(2026, 2, 2)
    assert f"since {drift.since}" in drift.message
    assert "retrain" in drift.message
    assert "0.2 times a month" in drift.message
    assert worse.kind == "bound"
    assert "more than 10% above" in worse.message
    assert watch(records, task, monitor, after(36)).new == [], "an alarm is raised once"


def test_the_reference_stays_frozen_until_the_rule_changes(
    shifted: tuple[Database, Found], task: Task, monitor: Monitor
) -> None:
    records, found = shifted
    assert found.reference is not None
    assert (found.reference.first, found.reference.last) == (date(2026, 1, 1), date(2026, 1, 20))
    write_log(records, 1, 20, 10, first_day=2, seed=9, shift=3.0)  # late rows of a reference day
    later = watch(records, task, monitor, after(36)).reference
    assert later is not None
    assert later.mean.tolist() == found.reference.mean.tolist()
    assert "request.text.missing" in found.unwatched


def test_the_page_needs_no_network_and_shows_every_alarm(shifted: tuple[Database, Found], tmp_path: Path) -> None:
    _, found = shifted
    write_page(found, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert all(alarm.message in page for alarm in found.new)
    shown = ("score", "estimate", "service", "request", "response", "business")
    assert page.count("<svg") == sum(str(name).startswith(shown) for name in found.days)
    assert json.loads((tmp_path / "alarms.json").read_text())[0]["task"] == "sentiment"
    assert len(pd.read_csv(tmp_path / "figures.csv")) == len(found.days)


def test_versions_and_subjects_are_shown_apart(records: Database, task: Task, monitor: Monitor, tmp_path: Path) -> None:
    write_log(records, 5, 6, 10, errors=0.1)
    with records.writing() as connection:  # the last days were answered by another version
        late = predictions.c.asked_at >= FIRST + timedelta(days=3)
        connection.execute(sa.update(predictions).where(late).values(hallmark_sha256="f" * 64))
        wrong = sa.select(predictions.c.id).where(predictions.c.owner_id == "person-2")
        connection.execute(sa.update(outcomes).where(outcomes.c.prediction_id.in_(wrong)).values(value='"negative"'))
    parts = watch(records, task, monitor, after(6)).breakdown
    assert parts is not None
    assert [(digest[:1], subjects) for (_, digest), (subjects, _) in parts.versions.items()] in (
        [("f", 6), (DIGEST[:1], 6)],
        [(DIGEST[:1], 6), ("f", 6)],
    )
    assert parts.error == "score.error"
    [worst, *_] = parts.subjects
    assert worst == "person-2"
    assert parts.subjects[worst][1] == 50
    write_page(watch(records, task, monitor, after(6)), tmp_path)
    assert (tmp_path / "subjects.csv").read_text().splitlines()[1].startswith("person-2,")
    assert "person-" not in (tmp_path / "report.html").read_text()


def test_evidently_compares_the_last_days_with_the_reference(shifted: tuple[Database, Found], tmp_path: Path) -> None:
    records, found = shifted
    scores = write_comparison(records, found, tmp_path / "data.html")
    assert scores["request.text.length"] > 0.1
    assert "request.text.length" in (tmp_path / "data.html").read_text()


def test_nothing_recorded_is_no_alarm_and_is_told(
    records: Database, task: Task, monitor: Monitor, tmp_path: Path
) -> None:
    found = watch(records, task, monitor, after(1))
    assert found.days.empty
    write_page(found, tmp_path)
    assert "No answer that could be judged is recorded" in (tmp_path / "report.html").read_text()
    write_log(records, 1, 2, 3)
    write_page(watch(records, task, monitor, FIRST + timedelta(hours=12)), tmp_path)
    assert "6 answers were read; days that are not over are not judged" in (tmp_path / "report.html").read_text()


def test_a_trial_weeks_before_people_came_is_no_reference(records: Database, task: Task, monitor: Monitor) -> None:
    write_log(records, 1, 2, 2)
    write_log(records, 22, 20, 10, first_day=60)
    write_log(records, 4, 20, 10, first_day=82, shift=1.0)
    found = watch(records, task, monitor, after(87))
    assert found.reference is not None
    assert found.reference.first == date(2026, 3, 2)
    assert "request" in {alarm.figure for alarm in found.new}


def test_other_figures_freeze_the_reference_anew(records: Database, task: Task, monitor: Monitor) -> None:
    write_log(records, 22, 10, 5)
    assert "request.text.length" in watch(records, task, monitor, after(23)).reference.features  # type: ignore[union-attr]
    fewer = watch(records, task, replace(monitor, drift_figures=("response.*",)), after(23)).reference
    assert fewer is not None
    assert all(name.startswith("response.") for name in fewer.features)


def test_figures_that_drift_together_are_one_alarm(monitor: Monitor) -> None:
    def alarm(feature: str, day: int, shift: float) -> Alarm:
        return Alarm(feature, date(2026, 1, day), date(2026, 1, day), shift)

    drifted = [alarm("request.a", 5, 2.0), alarm("request.b", 5, -4.0), alarm("response.c", 6, 3.0)]
    drifted += [alarm("request.a", 8, 2.0), alarm("request.b", 25, 2.0)]
    found = drift_alarms(drifted, monitor)
    assert [(a.figure, a.day.day) for a in found] == [("request", 5), ("request", 25), ("response", 6)]
    assert found[0].message.startswith("request.b deviates by -4.0 standard deviations")
    assert "; so do request.a." in found[0].message


def days_of(values: list[float]) -> pd.DataFrame:
    index = pd.Index([date(2026, 1, 1) + timedelta(days=n) for n in range(len(values))], name="day")
    return pd.DataFrame({"service.slow": values}, index=index)


def bound(**changes: Any) -> Bound:
    return Bound(**{"figure": "service.*", "days": 2, "severity": "warning", "advice": "Look.", **changes})


NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "values", "since"),
    [
        ({"above": 0.2}, [0.1, 0.3, 0.1, 0.3, 0.3, 0.3], [4]),
        ({"above": 0.2}, [0.3, NAN, 0.3, 0.1], [1]),  # a day without a value does not end a stretch
        ({"above": 0.2}, [0.3, 0.3, 0.1, 0.3, 0.3], [1, 4]),
        ({"below": 0.2}, [0.1, 0.1, 0.3], [1]),
        ({"worse_by": 0.1}, [1.0, 1.01, 1.2, 1.2], [3]),
        ({"worse_by": 0.1}, [1.0, 1.4, 1.5, 1.5], []),  # by no more than chance
        ({"worse_by": 0.1}, [1.0, 1.01], []),
        ({"above": 0.2}, [], []),
    ],
)
def test_a_bound_is_passed_on_days_in_a_row(rule: dict[str, float], values: list[float], since: list[int]) -> None:
    assert [alarm.since.day for alarm in bound(**rule).find(days_of(values), reference_days=2)] == since


def test_a_bound_that_says_nothing_or_too_much_is_refused() -> None:
    for rule in ({}, {"above": 1.0, "below": 0.0}):
        with pytest.raises(ValueError, match="set exactly one of above, below, worse_by"):
            bound(**rule)
    with pytest.raises(ConfigError, match="settle_day is no key"):
        compose_operation(["monitor.settle_day=2"])


def test_an_alarm_near_an_earlier_one_is_no_news() -> None:
    def raised(day: int) -> Raised:
        when = date(2026, 1, day)
        return Raised("bound", "service.slow", "warning", when, when, "m")

    known = [("bound", "service.slow", date(2026, 1, 1))]
    assert news([raised(8), raised(9), raised(12), raised(20)], known, 7) == [raised(9), raised(20)]


class Hook(BaseHTTPRequestHandler):
    """Takes alarms, but for the first."""

    taken: list[dict[str, Any]]
    refusing: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.refusing:
            self.send_response(self.refusing.pop())
        else:
            self.taken.append(json.loads(body))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_alarm_is_told_until_every_sink_has_taken_it(
    task: Task, monitor: Monitor, records: Database, tmp_path: Path
) -> None:
    write_log(records, 24, 20, 10)
    write_log(records, 5, 20, 10, first_day=24, shift=1.0)
    new = watch(records, task, monitor, after(29)).new
    assert new
    Hook.taken, Hook.refusing = [], [503]
    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file = tmp_path / "told" / "alarms.ndjson"
    sinks = [FileSink(str(file)), WebhookSink(f"http://127.0.0.1:{server.server_port}", 5.0)]
    with pytest.raises(SinkError, match="the webhook has not taken an alarm"):
        tell(records, task.name, sinks, after(29))
    assert tell(records, task.name, sinks, after(29)) == len(new)
    assert tell(records, task.name, sinks, after(29)) == 0
    server.shutdown()
    server.server_close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    ids = {alarm.id(task.name) for alarm in new}
    assert sorted(line["id"] for line in lines) == sorted(ids), "the file holds each alarm once"
    assert {alarm["id"] for alarm in Hook.taken} == ids


def test_a_mail_server_that_is_away_is_told() -> None:
    alarm = {"id": "1", "task": "sentiment", "severity": "warning", "figure": "service.slow", "message": "m"}
    with pytest.raises(SinkError, match=r"the mail server 127\.0\.0\.1:9 has not taken an alarm"):
        EmailSink("127.0.0.1", 9, "a@b.example", "c@d.example", 2.0).tell(alarm)


def test_errors_are_estimated_before_outcomes_and_the_page_says_that_it_is_an_estimate(
    records: Database, task: Task, monitor: Monitor, tmp_path: Path
) -> None:
    write_log(records, 4, 3, 20, told=0.0)
    found = watch(records, task, monitor, after(4))
    assert "score.error" not in found.days
    estimated = found.days["estimate.error"]
    assert ((estimated > 0) & (estimated < 1)).all()
    write_page(found, tmp_path / "before")
    page = (tmp_path / "before" / "report.html").read_text()
    assert "An estimate from the answers' own uncertainty" in page
    assert "<td>error<td>" in page
    assert "<td>not known<td>0<td>not known" in page


def test_a_calibrated_estimate_is_what_comes_out(task: Any, records: Database) -> None:
    """Labels that are drawn from the probabilities themselves."""
    import numpy as np

    write_log(records, 10, 10, 30, told=0.0)
    with records.writing() as connection:
        texts = connection.execute(sa.select(predictions.c.response)).scalars().all()
    rng, known, expected = np.random.default_rng(0), [], []
    for text in texts:
        answer = task.response_type().model_validate_json(text)
        shares = {p.label: p.probability for p in answer.probabilities}
        truth = rng.choice(list(shares), p=np.asarray(list(shares.values())) / sum(shares.values()))
        known.append(task.errors(answer, "", str(truth)))
        expected.append(task.expected(answer, ""))
    for name in ("error", "brier"):
        difference = np.asarray([k[name] for k in known]) - [e[name] for e in expected]
        assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(difference))


def test_business_figures_are_made_of_others_and_may_be_bounded(
    records: Database, task: Task, monitor: Monitor
) -> None:
    from hallmark.watch.business import Derived

    write_log(records, 3, 4, 10, told=0.0)
    business = (
        Derived("business.subjects", "subjects"),
        Derived("business.seconds", "service.latency_ms", times="subjects", factor=0.001),
        Derived("business.share", "service.slow", over="service.latency_ms"),
        Derived("business.unknown", "nothing"),
    )
    bound = Bound("business.subjects", 2, "info", "Look why.", above=3)
    found = watch(records, task, replace(monitor, business=business, bounds=(bound,)), after(3))
    assert list(found.days["business.subjects"]) == [4, 4, 4]
    assert list(found.days["business.seconds"]) == pytest.approx(list(found.days["service.latency_ms"] * 4 / 1000))
    assert "business.unknown" not in found.days
    assert [alarm.figure for alarm in found.new] == ["business.subjects"]
    with pytest.raises(ConfigError, match=r"must begin with business\."):
        build({"_target_": "hallmark.watch.business.Derived", "name": "x", "figure": "subjects"})
