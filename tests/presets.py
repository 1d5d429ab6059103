"""Presets of conf/experiment, small enough for a test, and repositories on which each ran once in a test run."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.workspace import copy_repository, run

GATE = (
    "evaluate.gates=[{_target_: hallmark.judge.gates.Within, metric: rmse, horizon: '60', low: 0.0, high: 999.0, "
    "segment: all}]"
)
"""What no gate has judged cannot be promoted."""

SMALL = {
    "toy": (GATE, "package.bento=true"),
    "cv": ("data.sentences=1", "data.cvs=1", "train.budget_tflop=0.4", "evaluate.gates=[]"),
    "sentiment": ("data.rows=260", "train.budget_tflop=0.4", "evaluate.gates=[]", "package=onnx_int8"),
    "text": (
        "data.reports=200",
        "data.recipes=120",
        "model.initial_checkpoint.vocabulary=300",
        "model.initial_checkpoint.budget_tflop=0.3",
        "train.budget_tflop=0.3",
        "evaluate.gates=[]",
    ),
    "trades": ("data.trades=2500", "model.candidates.0.iterations=60", "evaluate.gates=[]"),
}
"""Name of a preset → what makes it small; little data is not judged."""

COMMANDS = {"toy": ("dvc", "exp", "run")}
"""One preset goes through DVC's own command, whose stages start in shells; the others through ours."""
OURS = ("python", "-m", "runtime.repro")


def composition(name: str) -> tuple[str, ...]:
    """Return the overrides of a small preset."""
    return (f"experiment={name}", *SMALL[name])


def outputs(where: Path) -> dict[str, str]:
    """Return path → digest of every output in dvc.lock."""
    stages = yaml.safe_load((where / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: name of a preset → a repository on which it ran, which no test may change.

    All processes of a test run share it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @functools.cache
    def made(name: str) -> Path:
        where, done = shared / f"ran-{name}", shared / f"ran-{name}.done"
        with FileLock(shared / f"ran-{name}.lock"):
            if not done.is_file():
                copy_repository(where)
                settings = [part for change in composition(name) for part in ("-S", change)]
                result = run(where, *COMMANDS.get(name, OURS), *settings)
                assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
                assert "Warning" not in result.stderr
                done.touch()
        return where

    return made
