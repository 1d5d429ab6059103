"""`make retrain`'s command, whole: records of a service, a ZenML run, a version that serves, errors in one line."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hallmark.prove.serving import ServedVersions
from hallmark.records.database import open_database
from hallmark.retrain.start import open_champion
from tests.served import END, Service, readings_after
from tests.workspace import run

PEOPLE = ["sim-000", "sim-001"]


@pytest.fixture
def repository(workspace: Path, bundle: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this one whose last training serves."""
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("HALLMARK_RECORDS__URL", f"sqlite:///{workspace}/records.sqlite")
    monkeypatch.setenv("HALLMARK_BUNDLE", "served/glucose/current")
    shutil.copytree(bundle, workspace / "bundle")
    shutil.copytree(trained / "refresh_state", workspace / "models" / "current" / "refresh_state")
    ServedVersions("glucose", workspace / "served").promote(workspace / "bundle")
    return workspace


def test_adapters_are_fitted_again_from_the_records_and_the_run_says_why(repository: Path) -> None:
    database = open_database(f"sqlite:///{repository}/records.sqlite")
    champion = open_champion(Path("served/glucose/current"))
    life = readings_after()
    later = life.assign(timestamp=life["timestamp"] + (datetime.now(UTC).replace(tzinfo=None) - LAST))
    begin = later["timestamp"].min().to_pydatetime().replace(tzinfo=UTC)
    times = [begin + timedelta(hours=6 * i) for i in range(1, 40)]
    Service(database, champion, later).answer(PEOPLE, times, lambda asked, horizon, median: median + 0.5)
    done = run(repository, "hallmark", "retrain", "--why", "--records", f"sqlite:///{repository}/records.sqlite")
    assert done.returncode == 0, done.stderr
    assert "sim-000              fit  new_observations: " in done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "6 adapters, 2 would be fitted again",
        "base model: not due: no alarm about inputs, answers or errors since it was trained",
    ]
    done = run(repository, "python", "-m", "pipelines", "retrain")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stderr.strip().splitlines()[-3:])
    assert lines["adapters"] == "2 new_observations, 4 nothing_new"
    assert lines["result"].startswith("the challenger of glucose was not deployed: its loss is +")
    assert open_champion(champion.pointer).digest == champion.digest
    code = (
        "from runtime import store; store.start(); from zenml.client import Client; import json\n"
        "[run] = Client().list_pipeline_runs(pipeline='retrain', size=9, hydrate=True)\n"
        "last = run.steps['deploy_challenger']\n"
        "stage = Client().get_model_version('glucose', '1.0.0').stage\n"
        "print(json.dumps([str(run.status), sorted(run.steps), last.run_metadata['verdict'], stage]))"
    )
    status, steps, verdict, stage = json.loads(run(repository, "python", "-c", code).stdout.splitlines()[-1])
    assert (status, steps) == ("completed", ["decide_retraining", "deploy_challenger", "fit_challenger"])
    assert "held-out days of 2 subjects" in verdict
    assert stage == "production", "of the version that serves, whoever has promoted it"


def test_a_failure_is_one_line_and_an_alarm(repository: Path) -> None:
    shutil.rmtree(repository / "models")
    done = run(repository, "python", "-m", "pipelines", "retrain")
    assert done.returncode == 1
    assert "error: the refresh state of glucose 1.0.0 (" in done.stderr.strip().splitlines()[-1]
    told = [json.loads(line) for line in (repository / ".records" / "alarms.ndjson").read_text().splitlines()]
    assert [(alarm["kind"], alarm["severity"]) for alarm in told] == [("retrain", "critical")]
    assert "is not here" in told[0]["message"]


LAST = (END + timedelta(days=10)).replace(tzinfo=None)
