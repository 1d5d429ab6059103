"""Real `dvc repro` on the toy, twice: the same bytes, the runs in ZenML, the version in the registry, nothing stale."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hallmark.prove.bundle import open_bundle
from tests.presets import GATE
from tests.workspace import environment, run

pytestmark = pytest.mark.slow

FACTS = """
import json
from runtime import store
store.start()
from zenml.client import Client
client = Client()
runs = [
    {"name": r.pipeline.name, "status": str(r.status.value), "metadata": {k: v for k, v in r.run_metadata.items()}}
    for r in client.list_pipeline_runs(size=100, hydrate=True)
]
versions = [[v.name, v.stage, dict(v.run_metadata)] for v in client.list_model_versions(model="glucose", hydrate=True)]
shown = []
for artifact in ("validation", "report"):
    [version] = client.list_artifact_versions(artifact=artifact, size=1, sort_by="desc:created", hydrate=True).items
    shown.append([artifact, sorted(str(v.type.value) for v in version.visualizations)])
[version] = client.list_model_versions(model="glucose").items
link = dict(model_version_id=version.id)
linked_runs = client.list_model_version_pipeline_run_links(**link)
linked_artifacts = client.list_model_version_artifact_links(**link)
linked = {
    "runs": [r.pipeline_run.name.split("-")[0] for r in linked_runs],
    "artifacts": [a.artifact_version.artifact.name for a in linked_artifacts],
}
print(json.dumps([runs, versions, shown, linked], default=str))
"""


@pytest.fixture(scope="module")
def repository(ran: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository on which the toy ran once."""
    return Path(shutil.copytree(ran("toy"), tmp_path_factory.mktemp("repro") / "repository", symlinks=True))


@pytest.fixture(scope="module")
def store(repository: Path) -> Any:
    """What ZenML recorded."""
    (repository / "facts_of_zenml.py").write_text(FACTS)
    done = run(repository, "python", "-m", "facts_of_zenml")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_stage_is_a_run_that_carries_its_facts(store: Any) -> None:
    runs = {r["name"]: r for r in store[0]}
    assert set(runs) == {"prepare", "train", "evaluate", "package"}
    for name, found in runs.items():
        assert found["status"] == "completed"
        facts = found["metadata"]
        assert facts["dvc_stage"] == name
        assert len(facts["params_sha256"]) == 64
        assert len(facts["git_commit"]) == 40
        assert facts["dvc_deps"]


def test_a_copied_repository_keeps_records_of_its_own(repository: Path, store: Any, ran: Callable[[str], Path]) -> None:
    configuration = (repository / ".zen" / "config" / "config.yaml").read_text()
    assert f"sqlite:///{repository}/.zen" in configuration
    assert f"{ran('toy')}/" not in configuration
    assert len(store[0]) == 4, "the runs before it was copied are among them"


def test_the_dependency_hashes_are_those_of_dvc(repository: Path, store: Any) -> None:
    lock = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]
    for found in store[0]:
        theirs = {dep["path"]: dep["md5"] for dep in lock[found["name"]]["deps"]}
        assert found["metadata"]["dvc_deps"] == theirs


def test_reports_are_shown_in_the_dashboard(store: Any) -> None:
    shown = dict(store[2])
    assert shown["validation"] == ["html"]
    assert shown["report"].count("image") >= 5
    assert "html" in shown["report"]


def test_the_version_is_registered_with_its_proof(repository: Path, store: Any) -> None:
    hallmark, digest = open_bundle(repository / "bundle")
    [[version, _, metadata]] = store[1]
    assert version == hallmark.version == "1.0.0"
    assert metadata["hallmark_sha256"] == digest
    assert sorted(store[3]["runs"]) == ["evaluate", "package", "prepare", "train"]
    assert "bundle" in store[3]["artifacts"]


def test_a_second_run_has_nothing_to_do(repository: Path) -> None:
    done = run(repository, "dvc", "repro")
    assert done.returncode == 0
    assert "Stage 'train' didn't change, skipping" in done.stdout
    ran = [line for line in done.stdout.splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'code':"]  # it decides, by the syntax trees and versions that it lists


def test_a_forced_run_in_forks_gives_the_lock_that_a_run_in_shells_gave(repository: Path) -> None:
    before = (repository / "dvc.lock").read_text()
    done = run(repository, "python", "-m", "runtime.repro", "--force")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (repository / "dvc.lock").read_text() == before


def test_a_run_killed_in_training_goes_on_and_ends_with_the_same_bytes(repository: Path) -> None:
    before = (repository / "dvc.lock").read_text()
    killed = subprocess.Popen(
        [str(Path(sys.executable).parent / "dvc"), "repro", "--force", "--single-item", "train"],
        cwd=repository,
        env=environment(repository),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = repository / ".work" / "checkpoints"
    until = time.monotonic() + 600
    while not list(checkpoints.glob("*/*/checkpoint-*/trainer_state.json")):
        assert killed.poll() is None, "training ended before its first checkpoint"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert run(repository, "dvc", "checkout", "models/current").returncode == 0  # the results before it lie safe
    done = run(repository, "dvc", "repro", "--force", "--single-item", "train")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (repository / "dvc.lock").read_text() == before
    assert not checkpoints.exists()


def test_the_bento_holds_the_bundle(repository: Path) -> None:
    [inside] = (repository / ".bentoml" / "bentos" / "hallmark-glucose").glob("*/src/hallmark-bundle")
    assert open_bundle(inside)[1] == open_bundle(repository / "bundle")[1]


def test_a_failed_gate_fails_the_stage_and_keeps_its_report(repository: Path) -> None:
    file = repository / "params.yaml"
    before = file.read_text()
    params = yaml.safe_load(before)
    gate = {
        "_target_": "hallmark.judge.gates.Within",
        "metric": "rmse",
        "horizon": "60",
        "low": 0.0,
        "high": 1.0,
        "segment": "all",
    }
    params["evaluate"]["gates"] = [gate]
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        done = run(repository, "python", "-m", "runtime.repro", "package")
        assert done.returncode != 0
        assert "1 of 1 gates failed: rmse@60 within 0–1: " in done.stderr
        assert "mg/dL" in done.stderr
        verdicts = json.loads((repository / "reports" / "evaluation" / "verdicts.json").read_text())
        assert [v["status"] for v in verdicts] == ["failed"]
        assert "failed" in (repository / "reports" / "evaluation" / "report.html").read_text()
    finally:
        file.write_text(before)
        assert run(repository, "python", "-m", "runtime.repro").returncode == 0


def test_the_report_names_no_machine_and_loads_nothing_from_elsewhere(repository: Path) -> None:
    page = (repository / "reports" / "evaluation" / "report.html").read_text()
    assert str(repository) not in page
    assert "src='http" not in page
    assert 'src="http' not in page


def test_promotion_makes_the_next_model_answer_to_the_champion(repository: Path) -> None:
    done = run(repository, "python", "-m", "runtime.registry", "promote")
    assert done.returncode == 0, done.stderr
    assert "1.0.0 is the champion, stage production" in done.stdout
    assert open_bundle((repository / "served" / "glucose" / "current").resolve())[0].version == "1.0.0"
    done = run(repository, "python", "-m", "runtime.registry", "rollback")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "promoted over no version of glucose" in done.stderr
    release = json.loads((repository / "releases.json").read_text())["glucose"]
    assert release["version"] == "1.0.0"
    assert "path: glucose" in (repository / "champions" / "glucose.dvc").read_text()
    # An experiment removes what DVC does not know to be in use: the champion must not be among it.
    settings = ["-S", "experiment=toy", "-S", GATE, "-S", "train.seed=1"]
    done = run(repository, "python", "-m", "runtime.repro", *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert open_bundle(repository / "champions" / "glucose")[0].version == "1.0.0"
    assert open_bundle(repository / "bundle")[0].version == "1.1.0"
    summary = (repository / "reports" / "evaluation" / "summary.csv").read_text()
    assert "champion,rmse,60" in summary
    assert run(repository, "hallmark", "promote").returncode == 0
    done = run(repository, "python", "-m", "runtime.registry", "rollback", "glucose")
    assert done.returncode == 0, done.stderr
    assert re.search(r"glucose 1\.0\.0 \(\w{12}\) serves now instead of 1\.1\.0 .*, stage production", done.stdout)


def test_experiments_compare(repository: Path) -> None:
    """`dvc exp show` and `dvc metrics diff` read the figures."""
    shown = run(repository, "dvc", "metrics", "show", "--json")
    figures = json.loads(shown.stdout)[""]["data"]["reports/evaluation/metrics.json"]["data"]
    assert figures["rmse_60"] > 0
    assert 3 < len(figures) <= 6
    table = run(repository, "python", "-m", "runtime.experiments").stdout
    assert max(map(len, table.splitlines())) <= 160
    rows = [line.split()[1] for line in table.splitlines() if line.startswith("│")]
    assert rows[: len(figures)] == list(figures)
    assert "train.seed" in rows
    assert "task.name" not in rows  # it is the same in all
    assert "reports/code" not in table


def test_the_stage_that_plans_runs_when_it_is_asked_for(repository: Path) -> None:
    assert not (repository / "reports" / "plan").exists()
    done = run(repository, "dvc", "repro", "conf/plan/dvc.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((repository / "reports" / "plan" / "plan.json").read_text())["task"] == "glucose"
    assert "Machines, the cheapest first" in (repository / "reports" / "plan" / "plan.html").read_text()
    again = run(repository, "dvc", "repro", "conf/plan/dvc.yaml")
    assert "plan' didn't change, skipping" in again.stdout
