"""`hallmark doctor`: each line is ok, or the remedy."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hallmark import doctor
from tests.toys import ROOT


def test_it_looks_at_everything_and_this_machine_can_run() -> None:
    found = {check.name: check for check in doctor.run_checks(ROOT)}
    assert {"python", "torch", "cuda", "kernels", "memory", "disk", "dvc", "port 3000", "port 8237"} <= set(found)
    assert not found["python"].remedy
    assert not found["kernels"].remedy
    assert "avx2" in found["kernels"].found


def test_a_taken_port_and_a_full_disk_come_with_their_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Usage:
        free = 10**8

    def usage(_: Any) -> Any:
        return Usage

    monkeypatch.setattr("shutil.disk_usage", usage)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(doctor, "PORTS", {listener.getsockname()[1]: "make serve"})
        found = {check.name.split()[0]: check for check in doctor.run_checks(tmp_path)}
    assert (found["port"].found, found["port"].remedy) == ("taken (make serve)", "`make serve PORT=…` with another one")
    assert found["disk"].remedy == "free 3 GB: a run needs them"


def test_a_machine_without_torch_gets_the_remedy_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "torch" else True)
    found = {check.name: check for check in doctor.run_checks(ROOT)}
    assert (found["libraries"].found, found["libraries"].remedy) == ("torch not installed", "run `make setup`")
    assert not {"torch", "cuda", "kernels"} & set(found)


def test_the_command_prints_a_line_each_and_tells_by_its_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hallmark.cli", "doctor"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok     python")
    assert done.returncode == int(any(line.startswith("FIX") for line in lines))
