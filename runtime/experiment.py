"""Restore params.yaml after an experiment that failed.

`dvc exp run` writes params.yaml before any stage runs, and does not restore it when a stage fails: the next `dvc repro`
would run the failed experiment again.
"""

import subprocess
import sys
from pathlib import Path

from hallmark.files import write_text

PARAMS = Path("params.yaml")
LAST = Path(".work/params.yaml")


def remember(params: bytes) -> None:
    """Store the parameters of a stage that succeeded."""
    write_text(LAST, params.decode("utf-8"))


def restore() -> None:
    """Restore the parameters of the last stage that succeeded, else those of the commit; print a line on a change."""
    if LAST.is_file():
        before = LAST.read_text(encoding="utf-8")
    else:
        shown = subprocess.run(["git", "show", f"HEAD:{PARAMS}"], capture_output=True, text=True, check=False)
        if shown.returncode:
            return
        before = shown.stdout
    if PARAMS.is_file() and PARAMS.read_text(encoding="utf-8") == before:
        return
    write_text(PARAMS, before)
    print("params.yaml is back to what the earlier results were made from", file=sys.stderr)
