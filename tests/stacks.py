"""Small presets on a stack whose steps share nothing but a bucket."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.isolated import FORKS, LOG, forks
from tests.presets import OURS, composition
from tests.workspace import environment

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
    """Run our `make repro` in a changed environment, or DVC's own command where it has arguments."""
    surroundings = environment(where) | changes
    command = ["dvc", "repro", *arguments] if arguments else OURS
    return subprocess.run(command, cwd=where, env=surroundings, capture_output=True, text=True)


def on_stack(where: Path, bucket: tuple[str, str], changes: dict[str, str], *arguments: str) -> list[list[str]]:
    """Run `dvc repro` on a stack whose steps share a bucket; returns a line of every step's process."""
    log = where.with_name("log")
    command = [sys.executable, "-c", REGISTER, *bucket, "key", "secret"]
    registered = subprocess.run(command, cwd=where, env=environment(where), capture_output=True, text=True)
    assert registered.returncode == 0, registered.stderr[-2000:]
    (where / "conf/stack/isolated.yaml").write_text(STACK)
    with tempfile.TemporaryDirectory() as scratch, forks(address := f"{scratch}/forks", environment(where)):
        changes = {LOG: str(log), FORKS: address, "AWS_EC2_METADATA_DISABLED": "true"} | changes
        done = repro(where, *arguments, **changes)
    said = log.read_text() if log.exists() else ""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:] + said[-3000:]
    return [line.split() for line in said.splitlines() if re.fullmatch(r"\w+ \d -?\d+ \w+", line)]
