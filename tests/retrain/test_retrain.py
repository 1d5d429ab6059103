"""Adapters are fitted again from what a service has recorded; a better challenger serves, a worse one never does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hallmark.build import build
from hallmark.cli import app
from hallmark.errors import BundleError, ConfigError
from hallmark.outcomes import HELPFUL
from hallmark.prove.bundle import open_bundle, read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.records.database import Database
from hallmark.records.tables import alarms, predictions
from hallmark.retrain.challenge import challenge, fit_trial
from hallmark.retrain.decide import decide_now, keep_decisions, request
from hallmark.retrain.deploy import deploy, report_failure
from hallmark.retrain.jobs import note
from hallmark.retrain.start import Champion, open_champion
from hallmark.watch.adapters import read_ledgers
from hallmark.watch.never_worse import NeverWorseRule
from hallmark.watch.pairs import open_serving
from hallmark.watch.retraining import Challenged, RetrainRule
from hallmark.watch.standing import last_jobs, open_requests
from runtime.compose import compose_operation
from tests.retrain.conftest import NOW
from tests.served import END, Service
from tests.toys import another_version
from tests.written import tell_feedback

PEOPLE = ["sim-000", "sim-001", "sim-002"]
TIMES = [END + timedelta(hours=6 * i) for i in range(1, 37)]
BEFORE = [at for at in TIMES if at < NOW.replace(hour=0) - timedelta(days=2)]
HELD_OUT = [at for at in TIMES if at >= NOW.replace(hour=0) - timedelta(days=2)]


def whatever(asked: Any, horizon: str, median: float) -> float:
    """What happens before the days that are held out is of no concern."""
    return min(max(median + 9, 40.0), 400.0)


@pytest.fixture
def never_worse() -> NeverWorseRule:
    """As configured."""
    found: NeverWorseRule = build(compose_operation([]))["monitor"].adapters.rule
    return found


def fitted(service: Service, champion: Champion, rule: RetrainRule) -> Path:
    """Decide and fit the challenger; returns its directory."""
    keep_decisions(service.database, decide_now(service.database, champion, rule, NOW), champion.directory)
    assert fit_trial(champion, champion.directory)
    return champion.directory


def as_the_challenger_says(service: Service, directory: Path, people: list[str]) -> None:
    """Let everything happen on the held-out days as the challenger forecasts it."""
    predictor = open_serving(directory / "trial" / "bundle").predictor

    def truth(asked: Any, horizon: str, median: float) -> float:
        [answer] = predictor.predict([asked])
        return float(next(step.median_mg_dl for step in answer.forecast if str(step.minutes) == horizon))

    service.answer(people, HELD_OUT, truth)


def statuses(database: Database) -> dict[str, str]:
    return {subject: job.status for subject, job in last_jobs(database, "glucose").items()}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_better_challenger_serves_and_goes_on_from_there(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule, tmp_path: Path
) -> None:
    service.answer(PEOPLE, BEFORE, whatever)
    service.answer(PEOPLE, HELD_OUT, whatever)  # readings are known, whose outcomes decide nothing
    directory = fitted(service, champion, rule)
    with service.database.writing() as connection:
        connection.execute(sa.text("delete from outcomes where observed_at >= '2024-01-24'"))
    as_the_challenger_says(service, directory, PEOPLE)
    found = challenge(service.database, champion, directory, rule)
    assert found.deploys, found.text
    assert not found.taken_back
    assert found.pairs == 3 * len({at.date() for at in HELD_OUT})
    told = deploy(service.database, champion, directory, found, never_worse, NOW)
    assert told.startswith("glucose 1.0.1 ")
    assert told.endswith("3 adapters were fitted again, 0 stay as they were")
    after = open_champion(champion.pointer)
    assert after.digest != champion.digest
    assert after.trained == champion.trained
    assert open_bundle(Path("refreshed/bundle"))[1] == after.digest
    assert {s: status for s, status in statuses(service.database).items() if s in PEOPLE} == dict.fromkeys(
        PEOPLE, "deployed"
    )
    assert [path.name for path in directory.iterdir()] == ["states"], "no rows of subjects stay"
    assert [path.name for path in (directory / "states").iterdir()] == [after.digest[:16]]
    assert audit.entries(service.database, 1)[0]["action"] == "promoted"
    assert audit.check(service.database) is None
    again = decide_now(service.database, after, rule, NOW + timedelta(hours=1))
    assert {d.why for d in again.decisions} == {"nothing_new"}, "nothing is fitted twice"
    ServedVersions("glucose", tmp_path / "served").roll_back()
    assert open_champion(champion.pointer).digest == champion.digest
    anew = decide_now(service.database, champion, rule, NOW + timedelta(hours=1))
    assert anew.chosen == PEOPLE, "what the version that was rolled back had learned is new again"


def test_a_worse_challenger_is_kept_and_never_serves(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule
) -> None:
    service.answer(PEOPLE, BEFORE, whatever)
    service.answer(PEOPLE, HELD_OUT, lambda asked, horizon, median: median + 0.5)  # the champion is right
    directory = fitted(service, champion, rule)
    found = challenge(service.database, champion, directory, rule)
    assert not found.deploys
    assert found.why == "no_improvement"
    told = deploy(service.database, champion, directory, found, never_worse, NOW)
    assert told.startswith("the challenger of glucose was not deployed: its loss is +")
    assert open_champion(champion.pointer).digest == champion.digest
    assert not Path("refreshed").exists()
    kept = read_hallmark(directory / "trial" / "bundle")[0]
    assert kept.provenance["refreshed"]["from"] == champion.digest
    assert [path.name for path in directory.iterdir()] == ["trial"]
    rejected = {s: job for s, job in last_jobs(service.database, "glucose").items() if s in PEOPLE}
    assert {job.status for job in rejected.values()} == {"rejected"}
    assert all(job.reason.startswith("no_improvement: its loss is +") for job in rejected.values())
    assert audit.entries(service.database, 1)[0]["action"] == "challenger_rejected"


def test_whoever_it_is_worse_for_keeps_the_adapter_of_before(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule
) -> None:
    service.answer(PEOPLE, BEFORE, whatever)
    directory = fitted(service, champion, rule)
    as_the_challenger_says(service, directory, PEOPLE[:2])
    service.answer(PEOPLE[2:], HELD_OUT, lambda asked, horizon, median: median + 0.5)
    found = challenge(service.database, champion, directory, rule)
    assert found.deploys
    assert found.taken_back == ("sim-002",)
    deploy(service.database, champion, directory, found, never_worse, NOW)
    before, after = champion.hallmark.files, read_hallmark(Path("refreshed/bundle"))[0].files
    same = {who: before[name] == after[name] for who in PEOPLE for name in before if f"{who}/history" in name}
    assert same == {"sim-000": False, "sim-001": False, "sim-002": True}
    assert statuses(service.database)["sim-002"] == "rejected"


def test_without_outcomes_of_the_held_out_days_nothing_serves(
    service: Service, champion: Champion, rule: RetrainRule
) -> None:
    service.answer(PEOPLE, BEFORE, whatever)
    found = challenge(service.database, champion, fitted(service, champion, rule), rule)
    assert (found.deploys, found.why, found.pairs) == (False, "insufficient_data", 0)


def test_rows_of_the_held_out_days_are_not_fitted(service: Service, champion: Champion, rule: RetrainRule) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    decided = decide_now(service.database, champion, rule, NOW)
    assert decided.cutoff == datetime(2024, 1, 24, tzinfo=UTC)
    learner: Any = champion.learner
    directory = fitted(service, champion, rule)
    newest = learner.known_until(directory / "trial" / "refresh_state")
    assert max(newest[who] for who in PEOPLE) < datetime(2024, 1, 24)
    assert min(newest[who] for who in PEOPLE) >= datetime(2024, 1, 23, 22)


def test_everybody_reads_why(service: Service, champion: Champion, rule: RetrainRule) -> None:
    service.answer(PEOPLE[:1], [NOW - timedelta(hours=30)], whatever)
    only_since(service, "sim-000", datetime(2024, 1, 24))
    request(service.database, champion, ["sim-000", "sim-001"], "command", NOW - timedelta(hours=1))
    decided = decide_now(service.database, champion, rule, NOW)
    assert {d.subject_id: d.why for d in decided.decisions}["sim-000"] == "insufficient_data"
    assert {d.subject_id: d.why for d in decided.decisions}["sim-001"] == "nothing_new"
    keep_decisions(service.database, decided, champion.directory)
    assert set(statuses(service.database).values()) == {"skipped"}
    keep_decisions(service.database, decided, champion.directory)
    with service.database.writing() as connection:
        count = connection.execute(sa.text("select count(*) from training_jobs")).scalar()
    assert count == 2 + 6, "what is decided again is not written again"


def test_what_was_asked_for_comes_first(service: Service, champion: Champion, rule: RetrainRule) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    request(service.database, champion, ["sim-002"], "key:app", NOW - timedelta(hours=1))
    one = build(compose_operation(["retrain.budget_s=0.8"]))["retrain"]
    decided = decide_now(service.database, champion, one, NOW)
    assert decided.chosen == ["sim-002"]
    why = {d.subject_id: d for d in decided.decisions}
    assert why["sim-002"].text.startswith("asked for by key:app; ")
    assert why["sim-000"].why == why["sim-001"].why == "budget"


def test_a_newly_trained_version_is_watched_first(
    service: Service, champion: Champion, rule: RetrainRule, bundle: Path, tmp_path: Path
) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    now = datetime.now(UTC)
    over = champion.pointer.parent / f"{champion.digest[:16]}.json"
    text = over.read_text()
    other = champion.pointer.parent / ("0" * 16)
    other.mkdir()
    (other / "hallmark.json").write_bytes((bundle / "hallmark.json").read_bytes())
    over.write_text(text.replace('"promoted_over": ""', f'"promoted_over": "{other.name}"'))
    wide = build(compose_operation(["retrain.longest_days=5000"]))["retrain"]
    assert {d.why for d in decide_now(service.database, champion, wide, now).decisions} == {"canary", "nothing_new"}
    later = decide_now(service.database, champion, wide, now + timedelta(days=8))
    assert later.chosen == PEOPLE


def test_a_failure_changes_nothing_and_is_an_alarm(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule
) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    keep_decisions(service.database, decide_now(service.database, champion, rule, NOW), champion.directory)
    readings = Path("models/current/refresh_state/readings.parquet")
    readings.write_bytes(readings.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="was changed after it was written") as caught:
        fit_trial(champion, champion.directory)
    report_failure(service.database, champion, caught.value, NOW)
    assert open_champion(champion.pointer).digest == champion.digest
    assert [path.name for path in champion.directory.iterdir()] == []
    assert {statuses(service.database)[who] for who in PEOPLE} == {"failed"}
    with service.database.writing() as connection:
        [alarm] = connection.execute(sa.select(alarms)).all()
    assert (alarm.kind, alarm.severity) == ("retrain", "critical")
    assert "was changed after it was written" in alarm.message
    assert "sim-00" not in alarm.message


def test_a_failure_after_the_deployment_keeps_what_the_next_fit_goes_on_from(
    service: Service,
    champion: Champion,
    rule: RetrainRule,
    never_worse: NeverWorseRule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    directory = fitted(service, champion, rule)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    improved = Challenged(True, "improved", "better", -0.1, -0.05, 9, 3)
    with monkeypatch.context() as disk:
        disk.setattr("hallmark.retrain.deploy.keep_refreshed", full)
        with pytest.raises(OSError, match="No space left"):
            deploy(service.database, champion, directory, improved, never_worse, NOW)
    after = open_champion(champion.pointer)
    assert after.digest != champion.digest
    report_failure(service.database, champion, OSError(28, "No space left on device"), NOW)
    assert "failed" not in statuses(service.database).values()
    with service.database.writing() as connection:
        [alarm] = connection.execute(sa.select(alarms)).all()
    assert alarm.message.startswith(f"What was fitted again serves ({after.digest[:12]}), but")
    assert decide_now(service.database, after, rule, NOW + timedelta(hours=1)).chosen == []


def test_with_empty_records_nothing_is_due(champion: Champion, rule: RetrainRule, database: Database) -> None:
    decided = decide_now(database, champion, rule, NOW)
    assert {d.why for d in decided.decisions} == {"nothing_new"}
    keep_decisions(database, decided, champion.directory)
    assert not decided.base.due


def test_nobody_erased_comes_back(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule
) -> None:
    service.answer(PEOPLE, BEFORE, whatever)
    directory = fitted(service, champion, rule)
    from hallmark.forget.rows import delete_subject

    delete_subject(service.database, "sim-001", NOW, "command", "")
    improved = Challenged(True, "improved", "better", -0.1, -0.05, 9, 3)
    with pytest.raises(BundleError, match="knows 1 of the subjects that were erased") as caught:
        deploy(service.database, champion, directory, improved, never_worse, NOW)
    assert open_champion(champion.pointer).digest == champion.digest
    assert not read_ledgers(service.database, "glucose")
    report_failure(service.database, champion, caught.value, NOW)
    assert "sim-001" not in statuses(service.database)
    assert statuses(service.database)["sim-000"] == "failed"


def test_without_a_champion_or_its_state_it_says_what_to_do(
    champion: Champion, rule: RetrainRule, database: Database
) -> None:
    with pytest.raises(ConfigError, match="bundle is no champion: run `make promote`"):
        open_champion(Path("bundle"))
    Path("models/current/refresh_state").rename("elsewhere")
    with pytest.raises(BundleError, match=r"the refresh state of glucose 1\.0\.0 .* is not here: let a version"):
        decide_now(database, champion, rule, NOW)


def test_rows_for_the_base_model_are_written_and_read_as_an_own_table(
    service: Service, champion: Champion, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    tell_feedback(service.database, dict.fromkeys(PEOPLE, HELPFUL))  # holds no reading
    url = service.database.url.render_as_string(hide_password=False)
    ages = (datetime.now(UTC) - END).days + 2
    out = tmp_path / "data" / "observed.parquet"
    options = ["--bundle", "bundle", "--records", url]
    done = CliRunner().invoke(app, ["observed", str(out), "--days", str(ages), *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "rows of 3 subjects" in done.stdout
    task: Any = champion.task
    raw = build({**task.own_source, "path": str(out)}).load()
    cleaned = task.clean(raw).rows
    assert set(cleaned["subject_id"]) == set(PEOPLE)
    mine = service.life[service.life["subject_id"].isin(PEOPLE)]
    asked = mine[mine["timestamp"] <= TIMES[-1].replace(tzinfo=None)]
    assert len(cleaned) >= len(asked), "every reading that a request held"
    nothing = CliRunner().invoke(app, ["observed", str(out), "--days", "1", *options])
    assert "no answer of the last 1 days names a subject" in str(nothing.exception)


def test_a_rollback_while_it_is_fitted_wins(
    service: Service, champion: Champion, rule: RetrainRule, never_worse: NeverWorseRule, bundle: Path, tmp_path: Path
) -> None:
    versions = ServedVersions("glucose", tmp_path / "served")
    service.answer(PEOPLE, BEFORE, whatever)
    directory = fitted(service, champion, rule)
    other = another_version(bundle, tmp_path / "other", "other")
    versions.promote(other)
    improved = Challenged(True, "improved", "better", -0.1, -0.05, 9, 3)
    with pytest.raises(BundleError, match="serves meanwhile"):
        deploy(service.database, champion, directory, improved, never_worse, NOW)
    assert versions.digest() == read_hallmark(other)[1][:16]
    with pytest.raises(BundleError, match="another version serves than when it was decided"):
        challenge(service.database, open_champion(champion.pointer), directory, rule)


def only_since(service: Service, subject: str, first: datetime) -> None:
    """Let a subject's recorded requests hold no reading of before some time."""
    with service.database.writing() as connection:
        rows = connection.execute(sa.select(predictions).where(predictions.c.owner_id == subject)).all()
        kind = service.serving.task.request_type()
        for row in rows:
            asked = kind.model_validate_json(row.request)
            kept = [reading for reading in asked.readings if reading.timestamp >= first]
            text = asked.model_copy(update={"readings": kept}).model_dump_json()
            connection.execute(predictions.update().where(predictions.c.id == row.id).values(request=text))


def test_only_who_was_in_the_trial_is_fitted(service: Service, champion: Champion, rule: RetrainRule) -> None:
    service.answer(["sim-000"], BEFORE, whatever)
    service.answer(["sim-001"], [NOW - timedelta(hours=30)], whatever)
    only_since(service, "sim-001", datetime(2024, 1, 24))
    decided = decide_now(service.database, champion, rule, NOW)
    why = {d.subject_id: d.why for d in decided.decisions}
    assert (why["sim-000"], why["sim-001"]) == ("new_observations", "insufficient_data")


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_request_waits_while_something_is_in_its_way(service: Service, champion: Champion) -> None:
    database = service.database
    request(database, champion, ["sim-000"], "key:app", NOW - timedelta(hours=3))
    request(database, champion, ["sim-000"], "key:app", NOW - timedelta(hours=2))
    request(database, champion, ["sim-000"], "command", NOW - timedelta(hours=1))
    assert open_requests(database, "glucose") == {"sim-000": {"key:app", "command"}}
    for code in ("canary", "budget"):
        note(database, "glucose", "skipped", {"sim-000": (code, "later")}, NOW)
    note(database, "glucose", "failed", {"sim-000": ("failed", "disk")}, NOW)
    assert open_requests(database, "glucose") == {"sim-000": {"key:app", "command"}}
    note(database, "glucose", "rejected", {"sim-000": ("no_improvement", "worse")}, NOW)
    assert open_requests(database, "glucose") == {}
    with database.writing() as connection:
        told = connection.execute(sa.text("select client_id from training_jobs where status = 'rejected'")).scalars()
        assert sorted(told) == ["command", "key:app"], "whoever asked reads what came of it"
    with pytest.raises(ConfigError, match="no adapter and no recorded answer is that of 'typo'"):
        request(database, champion, ["typo"], "command", NOW)
