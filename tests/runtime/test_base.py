"""A base model that is due is trained by `make retrain`: a better one serves, a failure brings everything back."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from hallmark.errors import HallmarkError
from hallmark.files import tree_digests, write_json
from hallmark.prove.bundle import read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.records.database import Database, open_database
from hallmark.records.rows import model_version_entry, training_row
from hallmark.records.tables import alarms, days, model_versions, training_jobs
from hallmark.retrain.start import Champion, open_champion, state_of
from hallmark.watch.alarms import Raised
from runtime import base_training
from runtime.base_training import brought_back
from runtime.compose import compose_operation
from tests.served import END, Service, readings_after
from tests.toys import another_version
from tests.workspace import run

PEOPLE = [f"sim-{number:03}" for number in range(6)]
KEPT = ("params.yaml", "dvc.lock", "reports/evaluation/metrics.json")


@pytest.fixture(scope="module")
def prepared(ran: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose toy model serves people whose readings are waves; what it recorded says that it is due."""
    where = Path(shutil.copytree(ran("toy"), tmp_path_factory.mktemp("base") / "repository", symlinks=True))
    ServedVersions("glucose", where / "served").promote(where / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        champion = open_champion(Path("served/glucose/current"))
        database = open_database(f"sqlite:///{where}/records.sqlite")
        life = readings_after()
        later = life.assign(timestamp=life["timestamp"] + (datetime.now(UTC).replace(tzinfo=None) - LAST))
        hours = (later["timestamp"] - later["timestamp"].min()).dt.total_seconds() / 3600
        later["glucose"] = (130 + 50 * np.sin(2 * np.pi * hours / 3) + 0.1 * (life["glucose"] - 130)).round(1)
        begin = later["timestamp"].min().to_pydatetime().replace(tzinfo=UTC)
        series = {who: mine.set_index("timestamp")["glucose"] for who, mine in later.groupby("subject_id")}

        def what_happens(asked: object, horizon: str, median: float) -> float:
            mine = series[asked.subject_id]  # type: ignore[attr-defined]
            then = asked.asked_at + timedelta(minutes=int(horizon))  # type: ignore[attr-defined]
            return float(mine.iloc[abs(mine.index - then).argmin()])

        times = [begin + timedelta(hours=6 * i) for i in range(1, 39)]
        Service(database, champion, later).answer(PEOPLE, times, what_happens)
        say_that_it_is_due(database, champion)
        database.close()
    return where


@pytest.fixture
def repository(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test."""
    where = Path(shutil.copytree(prepared, tmp_path / "repository", symlinks=True))
    monkeypatch.chdir(where)
    monkeypatch.setenv("HALLMARK_RECORDS__URL", f"sqlite:///{where}/records.sqlite")
    return where


def say_that_it_is_due(database: Database, champion: Champion) -> None:
    """Record what the monitor and a refit would have: drift, adapters fitted since, errors that stay larger."""
    today, now = date.today(), datetime.now(UTC)
    drift = Raised(
        "drift", "request.readings.glucose_mg_dl", "warning", today - timedelta(6), today - timedelta(8), "!"
    )
    refit = training_row("1" * 36, PEOPLE[0], "retrain", "glucose", "deployed", "schedule: …", now - timedelta(5))
    errors = {today - timedelta(80 - i): 10.0 if i < 70 else 20.0 for i in range(80)}
    _, version = model_version_entry(champion.hallmark, champion.digest)
    with database.writing() as connection:
        database.insert(connection, alarms, [drift.row("glucose", now)])
        database.insert(connection, training_jobs, [refit])
        database.insert(connection, model_versions, [{**version, "first_served_at": now - timedelta(days=90)}])
        means = [{"score.absolute_error": error, "subjects": 6.0} for error in errors.values()]
        rows = [
            {"task": "glucose", "day": day, "figures": json.dumps(mean)}
            for day, mean in zip(errors, means, strict=True)
        ]
        database.insert(connection, days, rows)


@pytest.mark.slow
def test_it_is_trained_on_recorded_answers_and_serves_if_it_is_better(repository: Path) -> None:
    (repository / "conf/base/toy.yaml").write_text(
        "defaults: [observed, _self_]\n"
        "settings: [experiment=toy, data=table, data.path=data/sources/observed.parquet]\n"
    )
    champion = open_champion(Path("served/glucose/current"))
    done = run(repository, "python", "-m", "pipelines", "retrain", "base=toy")
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("base").strip() for line in done.stderr.splitlines() if line.startswith("base ")]
    assert lines[0].startswith("due: an alarm began on ")
    assert "is trained again on " in lines[1]
    assert lines[2].startswith("glucose 1.")
    assert " serves now instead of 1.0.0 (" in lines[2]
    assert " held-out days of 6 subjects, at most " in lines[2]
    after = open_champion(champion.pointer)
    assert after.trained == after.digest == read_hallmark(repository / "bundle")[1] != champion.digest
    database = open_database(f"sqlite:///{repository}/records.sqlite")
    assert audit.entries(database, 1)[0]["action"] == "promoted"
    ServedVersions("glucose", repository / "served").roll_back()
    assert state_of(open_champion(champion.pointer))[1].is_dir(), "adapters go on from there after a rollback, too"
    ServedVersions("glucose", repository / "served").promote(repository / "bundle")
    again = run(repository, "hallmark", "retrain", "--why", "--records", f"sqlite:///{repository}/records.sqlite")
    assert again.stdout.splitlines()[-1].startswith("base model: not due")
    assert "skip canary" not in again.stdout, "of whoever is asked about alone"


def test_a_training_that_fails_brings_everything_back_and_is_an_alarm(repository: Path) -> None:
    (repository / "models/current/changed.txt").write_text("as by an erasure: neither dvc.lock nor the cache knows it")
    shutil.rmtree(repository / ".dvc/cache")
    outputs = {name: tree_digests(repository / name) for name in ("bundle", "models/current", "data/prepared")}
    kept = {name: (repository / name).read_bytes() for name in KEPT}
    (repository / "conf/base/gone.yaml").write_text(
        "defaults: [observed, _self_]\nsettings: [experiment=toy, data=table, data.path=data/gone.csv]\n"
    )
    done = run(repository, "python", "-m", "pipelines", "retrain", "base=gone")
    assert done.returncode == 1
    assert "with base.settings (experiment=toy data=table data.path=data/gone.csv) ended with 1" in done.stderr
    assert {name: tree_digests(repository / name) for name in outputs} == outputs
    assert {name: (repository / name).read_bytes() for name in KEPT} == kept
    told = [json.loads(line) for line in (repository / ".records" / "alarms.ndjson").read_text().splitlines()]
    assert told[-1]["message"].startswith("Training the base model again failed: `make repro` with base.settings")
    assert told[-1]["severity"] == "critical"


def test_what_serves_stays_in_the_repository_even_if_the_end_of_its_deployment_fails(
    repository: Path, tmp_path: Path
) -> None:
    champion, earlier = open_champion(Path("served/glucose/current")), tree_digests(repository / "bundle")
    database = open_database(f"sqlite:///{repository}/records.sqlite")

    def fail(name: str, serves: bool) -> None:
        with brought_back(database, champion):
            new = another_version(repository / "bundle", tmp_path / name, name)
            shutil.rmtree(repository / "bundle")
            shutil.copytree(new, repository / "bundle")
            (repository / "params.yaml").write_text("data: other\n")
            if serves:
                ServedVersions("glucose", repository / "served").promote(repository / "bundle")
            raise HallmarkError("the audit log is away")

    with pytest.raises(HallmarkError, match="the audit log is away"):
        fail("refused", serves=False)
    assert tree_digests(repository / "bundle") == earlier
    assert "data: other" not in (repository / "params.yaml").read_text()
    with pytest.raises(HallmarkError, match="the audit log is away"):
        fail("promoted", serves=True)
    assert read_hallmark(repository / "bundle")[1] == open_champion(champion.pointer).digest != champion.digest
    assert (repository / "params.yaml").read_text() == "data: other\n"


def test_a_model_that_a_gate_refused_is_kept_aside_and_the_next_training_waits(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = open_champion(Path("served/glucose/current"))
    database = open_database(f"sqlite:///{repository}/records.sqlite")
    operation, earlier = compose_operation(["base=same_data"]), tree_digests(repository / "reports/evaluation")

    def refused(settings: object) -> int:
        """End as `make repro` does when a gate has refused what was trained."""
        for name, value in (("made_from.json", {"train": "new"}), ("verdicts.json", [REFUSED])):
            write_json(Path("reports/evaluation") / name, value)
        return 1

    monkeypatch.setattr(base_training, "_repro", refused)
    told = base_training.train(database, champion, operation, datetime.now(UTC))
    assert told.endswith("was not deployed: the gate rmse@60 against ridge refused it")
    assert tree_digests(repository / "reports/evaluation") == earlier
    assert "rmse@60" in (champion.directory / "base/evaluation/verdicts.json").read_text()
    assert audit.entries(database, 1)[0]["action"] == "base_rejected"
    again = base_training.train(database, champion, operation, datetime.now(UTC))
    assert again.startswith("due, but the last training was no better: the next begins on ")


def test_nothing_is_trained_while_a_challenger_stands_beside_the_champion(repository: Path, tmp_path: Path) -> None:
    champion = open_champion(Path("served/glucose/current"))
    database = open_database(f"sqlite:///{repository}/records.sqlite")
    champion.versions().challenge(another_version(repository / "bundle", tmp_path / "beside", "beside"), 10, "split")
    told = base_training.train(database, champion, compose_operation(["base=same_data"]), datetime.now(UTC))
    assert told == "due, but another version serves beside the champion, and is compared with it"


def test_what_a_killed_training_has_left_aside_comes_back_first(repository: Path, tmp_path: Path) -> None:
    champion = open_champion(Path("served/glucose/current"))
    database = open_database(f"sqlite:///{repository}/records.sqlite")
    earlier = tree_digests(repository / "models/current")
    with brought_back(database, champion):
        shutil.copytree(base_training.ASIDE, tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", base_training.ASIDE)  # as a kill leaves it
    shutil.rmtree(repository / "models/current")
    with brought_back(database, champion):
        assert tree_digests(repository / "models/current") == earlier
    assert tree_digests(repository / "models/current") == earlier
    assert not base_training.ASIDE.exists()


def test_settings_of_another_task_are_refused_before_anything_is_trained(repository: Path) -> None:
    (repository / "conf/base/other.yaml").write_text("defaults: [observed, _self_]\nsettings: [experiment=sentiment]\n")
    done = run(repository, "python", "-m", "pipelines", "retrain", "base=other")
    assert done.returncode == 1
    expected = "error: base.settings train a model of sentiment, but glucose serves: add experiment=glucose"
    assert done.stderr.splitlines()[-1] == expected


REFUSED = {"gate": "rmse@60 against ridge", "status": "failed", "reason": "-3% better, +0% needed", "value": -0.03}
LAST = (END + timedelta(days=10)).replace(tzinfo=None)
