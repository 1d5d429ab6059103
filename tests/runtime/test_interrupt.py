"""Ctrl-C ends a process with the status that was chosen, wherever it comes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.toys import ROOT

PROGRAM = """
import os, signal, sys
from runtime.interrupt import raise_on_sigint
received = raise_on_sigint()
try:
    exec("os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass")
except KeyboardInterrupt:
    sys.exit(130 if received == [signal.SIGINT] else 1)
"""


def test_an_interrupt_within_an_exec_ends_with_the_chosen_status(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(PROGRAM)
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, env=surroundings, check=False)
    assert done.returncode == 130, "of a plain KeyboardInterrupt it would be the signal"
