"""Steps that share nothing but a bucket: the outputs of a local run, and a machine that is lost while it trains."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.learn.cluster import ENGINE
from tests.isolated import KILL, LOG
from tests.presets import composition, outputs
from tests.workspace import copy_repository, environment

pytestmark = pytest.mark.slow
REGISTER = """
import sys
from runtime import store
store.start()
from tests.isolated import register
register(*sys.argv[1:])
"""

STACK = """
components: {}
lock: requirements.lock
image: null
secrets: []
pipelines: {train: {fit_base: {retry: {max_retries: 2}}}}
"""


@pytest.mark.parametrize(("name", "killed"), [("toy", "fit_base"), ("trades", "")])
def test_a_run_whose_steps_share_only_a_bucket_has_the_outputs_of_a_local_run(
    tmp_path: Path, bucket: tuple[str, str], ran: Callable[[str], Path], name: str, killed: str
) -> None:
    where = copy_repository(tmp_path / "remote")
    compose(where, name)
    pods = on_stack(where, bucket, {KILL: killed})
    assert len(pods) >= 6, "every step ran in a process of its own"
    assert outputs(where) == outputs(ran(name))
    if killed:
        of_killed = [pod[1:] for pod in pods if pod[0] == killed]
        assert of_killed == [["0", "-9", "new"], ["1", "0", "resumed"]], "the second machine went on"


def test_training_and_evaluation_on_a_ray_cluster_have_the_outputs_of_a_local_run(
    tmp_path: Path, ran: Callable[[str], Path]
) -> None:
    where = trained_again(ran("toy"), tmp_path / "ray")
    done = repro(where, "--force", "--single-item", "train", "evaluate", **{ENGINE: "ray"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert outputs(where) == outputs(ran("toy"))


def trained_again(made: Path, where: Path) -> Path:
    """Return a copy of a repository on which a preset ran, of which the model and its digest are gone."""
    shutil.copytree(made, where, symlinks=True)
    shutil.rmtree(where / "models" / "current")
    shutil.rmtree(where / ".dvc" / "cache" / "runs")
    return where


def compose(where: Path, name: str) -> None:
    """Write the parameters of a small preset."""
    command = [sys.executable, "-m", "runtime.compose", *composition(name)]
    composed = subprocess.run(command, cwd=where, env=environment(where), capture_output=True, text=True)
    assert composed.returncode == 0, composed.stderr


def repro(where: Path, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run `dvc repro` in a changed environment."""
    surroundings = environment(where) | changes
    return subprocess.run(["dvc", "repro", *arguments], cwd=where, env=surroundings, capture_output=True, text=True)


def on_stack(where: Path, bucket: tuple[str, str], changes: dict[str, str], *arguments: str) -> list[list[str]]:
    """Run `dvc repro` on a stack whose steps share a bucket; returns a line of every step's process."""
    name, address = bucket
    log = where.with_name("log")
    command = [sys.executable, "-c", REGISTER, name, address, "key", "secret"]
    registered = subprocess.run(command, cwd=where, env=environment(where), capture_output=True, text=True)
    assert registered.returncode == 0, registered.stderr[-2000:]
    (where / "conf/stack/isolated.yaml").write_text(STACK)
    done = repro(where, *arguments, **{LOG: str(log), "AWS_EC2_METADATA_DISABLED": "true"} | changes)
    said = log.read_text() if log.exists() else ""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:] + said[-3000:]
    return [line.split() for line in said.splitlines() if re.fullmatch(r"\w+ \d -?\d+ \w+", line)]
