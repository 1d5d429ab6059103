"""Shared fixtures: a toy cohort, its model trained once, and copies of the repository to run commands in."""

from hallmark import kernels

kernels.pin()  # as the product runs, and before numpy loads

import functools
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from benchmarks.composition import compose as compose
from pipelines import forked, store

os.environ.update({"DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"})

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def params() -> dict[str, Any]:
    """The toy composition."""
    return compose("experiment=toy")


@pytest.fixture(scope="session")
def task(params: dict[str, Any]) -> Any:
    """The toy composition's task."""
    from hallmark.build import build

    return build(params["task"], "task")


@pytest.fixture(scope="session")
def prepared(params: dict[str, Any], task: Any) -> Any:
    """The toy cohort, cleaned and split."""
    return prepare(params, task)


@pytest.fixture(scope="session")
def trained(params: dict[str, Any], task: Any, prepared: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy cohort's model: base, people, calibration."""
    return train(params, task, prepared, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def bundle(params: dict[str, Any], task: Any, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the toy model."""
    from hallmark.prove.bundle import make_bundle

    out = tmp_path_factory.mktemp("bundle") / "bundle"
    schema = {"request": task.request_type().model_json_schema(), "response": task.response_type().model_json_schema()}
    make_bundle(trained, out, task.name, params["task"], [], schema, {"data": "toy"}, {}, [], "# toy\n", None)
    return out


def prepare(params: dict[str, Any], task: Any) -> Any:
    """Load, clean and split, as the stage does."""
    from hallmark.build import build
    from hallmark.contracts import Prepared

    clean = task.clean(build(params["data"], "data").load())
    return Prepared(clean.rows, clean.subjects, task.split(clean))


def train(params: dict[str, Any], task: Any, prepared: Any, out: Path) -> Path:
    """Fit, personalise and calibrate into a directory, as the stage does."""
    from hallmark.build import build
    from hallmark.contracts import silent

    nodes = params["model"]["candidates"]
    task.fit(prepared, build(nodes), nodes, build(params["train"]), out, out / "scratch", silent)
    task.personalise(prepared, out, build(params["personalise"]), out / "scratch", silent)
    task.calibrate(prepared, out, build(params["calibrate"]), silent)
    return out


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the repository as it now stands, with git and DVC, for real commands."""
    return copy_repository(tmp_path / "repository")


def copy_repository(to: Path) -> Path:
    """Copy what git tracks or would track, and commit it there."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "copy"],
    ):
        subprocess.run(command, cwd=to, check=True, capture_output=True)
    return to


def environment(where: Path) -> dict[str, str]:
    """The environment of a command of the virtual environment, against a workspace's own code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "DVC_STAGE", "DVC_ROOT"))}
    found |= {"PATH": path, "PYTHONPATH": str(where)}
    for role in ("AUTHOR", "COMMITTER"):
        found |= {f"GIT_{role}_NAME": "test", f"GIT_{role}_EMAIL": "test@localhost"}
    return found


def run(where: Path, *command: str, timeout: float = 1200) -> "subprocess.CompletedProcess[str]":
    """Run a command of the virtual environment in a workspace.

    `python -m` with a module of ours runs in a fork of this process, as the stages of `make repro` do: loading torch
    and ZenML anew would be most of its time.
    """
    if command[:2] == ("python", "-m") and command[2].partition(".")[0] in forked.OURS:
        return _run_forked(where, command)
    return subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=timeout, env=environment(where), check=False
    )


def _run_forked(where: Path, command: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    _load_libraries()
    from zenml.utils import source_utils

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

        def first() -> None:
            """Undo what pytest has done to a process: captured output, recorded warnings, handlers of logs."""
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = (open(fd, "w", closefd=False, buffering=1) for fd in (1, 2))  # noqa: SIM115
            importlib.reload(warnings)
            logging.getLogger().handlers.clear()
            source_utils.set_custom_source_root(str(where))  # ZenML read it when it was imported

        process = forked.start(command[2], command[3:], str(where), environment(where), first)
        _, status = os.waitpid(process, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), *texts)


@functools.cache
def _load_libraries() -> None:
    """Load them with the settings of our commands, which ZenML reads when it is imported."""
    before = dict(os.environ)
    os.environ.update(store.environment())
    try:
        forked.load_libraries(compose())
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a process whole files, whose tests share what was trained, but single tests of files that share nothing."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file in ("tests/test_tasks.py", "tests/test_real.py") else file

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first, and say why real-data tests cannot run where the data are not."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not SHARED.is_dir():
        reason = f"real data are not at {SHARED.parent.name}/{SHARED.name} beside the checkout"
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason=reason))
