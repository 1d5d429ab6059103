"""python -m benchmarks.reproduce: does a fresh clone's `dvc repro` leave dvc.lock unchanged on this machine?

Bytes are promised on the same kind of machine only: the same CPU instruction set and the same torch build.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.orchestration import cpu
from hallmark.prove.provenance import describe_machine
from runtime.compose import ROOT


def main() -> int:
    """Clone, run, compare, say."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) / "repository"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(where)], check=True)
        before = (where / "dvc.lock").read_text()
        seconds = cpu(where, "dvc", "repro")
        after = (where / "dvc.lock").read_text()
    machine = ", ".join(f"{k} {v}" for k, v in describe_machine().items())
    if before == after:
        print(f"dvc.lock unchanged after dvc repro in a fresh clone ({seconds:.0f} CPU s; {machine})")
        return 0
    was, now = (yaml.safe_load(text)["stages"] for text in (before, after))
    for stage in now:
        for kind in ("deps", "outs"):
            old = {e["path"]: e.get("md5") for e in was.get(stage, {}).get(kind, [])}
            changed = [e["path"] for e in now[stage].get(kind, []) if old.get(e["path"]) != e.get("md5")]
            if changed:
                print(f"{stage} {kind}: {', '.join(changed)}")
    print(f"dvc.lock differs: made on another kind of machine, or not committed after a change ({machine})")
    return 1


if __name__ == "__main__":
    sys.exit(main())
