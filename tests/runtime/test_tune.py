"""`make tune` on the toy: a real study, killed and resumed, its winner taken up by params.yaml."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.workspace import copy_repository, run

pytestmark = pytest.mark.slow

RUNS = """
import json
from runtime import store
store.start()
from zenml.client import Client
runs = Client().list_pipeline_runs(pipeline="tune", size=50, hydrate=True)
print(json.dumps([[str(r.status.value), r.run_metadata.get("trial")] for r in runs]))
"""


def test_a_killed_study_goes_on_and_its_winner_composes(tmp_path: Path) -> None:
    where = copy_repository(tmp_path / "repository")
    overrides = ("experiment=toy", "model=residual_mlp", "tune.trials=3", "tune.startup=2", "train.budget_tflop=0.05")
    assert run(where, "python", "-m", "runtime.compose", *overrides).returncode == 0
    assert run(where, "python", "-m", "pipelines", "prepare").returncode == 0
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ZENML_")} | {"PYTHONPATH": str(where)}
    command = [sys.executable, "-m", "runtime.tune", "winner"]
    child = subprocess.Popen(command, cwd=where, env=environment, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("trial 0: valid"):
            break
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = run(where, "python", "-m", "runtime.tune", "winner")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trial 0:" not in done.stderr
    assert "make params OVERRIDES=tuned=winner" in done.stdout
    winner = yaml.safe_load((where / "conf" / "tuned" / "winner.yaml").read_text())
    assert run(where, "python", "-m", "runtime.compose", "tuned=winner").returncode == 0
    params = yaml.safe_load((where / "params.yaml").read_text())
    assert params["train"]["learning_rate"] == winner["train"]["learning_rate"]
    (where / "runs_of_zenml.py").write_text(RUNS)
    recorded = json.loads(run(where, "python", "-m", "runs_of_zenml").stdout.splitlines()[-1])
    assert sum(status == "completed" for status, _ in recorded) >= 3
