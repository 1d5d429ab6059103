"""Copies of the repository in which tests run real commands."""

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

from runtime import forked, store
from runtime.versions import CACHE
from tests.toys import ROOT, compose


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
    found |= {"PATH": path, "PYTHONPATH": str(where), CACHE: str(ROOT / ".work")}
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
