"""python -m benchmarks.orchestration: what DVC and ZenML cost, in CPU seconds, beside one plain script.

Both run the toy experiment in a copy of the repository; child processes are counted. Medians of some repeats.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from runtime.compose import ROOT

STAGES = 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) / "repository"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(where)], check=True)
        cpu(where, "python", "-m", "runtime.compose", "experiment=toy", "package.bento=true")
        cpu(where, "dvc", "repro", "--force")  # makes the store, warms the disk
        repro = [cpu(where, "dvc", "repro", "--force") for _ in range(repeats)]
        idle = [cpu(where, "dvc", "repro") for _ in range(repeats)]
        plain = [cpu(where, "python", "-m", "benchmarks.plain") for _ in range(repeats)]
    tax = statistics.median(repro) - statistics.median(plain)
    print(f"dvc repro --force     {statistics.median(repro):6.1f} CPU s  ({', '.join(f'{t:.1f}' for t in repro)})")
    print(f"the same, plain       {statistics.median(plain):6.1f} CPU s  ({', '.join(f'{t:.1f}' for t in plain)})")
    print(f"tax a stage           {tax / STAGES:6.1f} CPU s  (at most 5)")
    print(f"dvc repro, no change  {statistics.median(idle):6.2f} CPU s  (at most 1.5)")


def cpu(where: Path, *command: str) -> float:
    """Run a command and return the CPU seconds of it and its children."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "DVC_STAGE", "DVC_ROOT"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment |= {"PYTHONPATH": str(where), "PATH": path, "DVC_NO_ANALYTICS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
