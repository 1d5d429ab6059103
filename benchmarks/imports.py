"""python -m benchmarks.imports: CPU seconds of starting a task, `hallmark --help`, and `dvc repro` with nothing to do.

Each figure is the median of several processes. The peers are a process that imports a task's libraries alone, and `dvc
repro` of a pipeline of three `echo` in an empty repository. Also counts the files that every stage depends on.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hallmark.prove.code import ROOT
from runtime.code import code_lists
from runtime.compose import composed
from runtime.facts import STAGES

TASKS = ("glucose", "cv", "sentiment", "text", "trades")
LIBRARIES = "import numpy, pandas, pydantic, safetensors, typing_extensions"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    libraries = spent([sys.executable, "-c", LIBRARIES], repeats)
    print(f"libraries of a task        {libraries:5.2f}")
    for name in TASKS:
        node = composed(f"task={name}")["task"]
        start = f"{LIBRARIES}; import json; from hallmark.build import build"
        code = f"{start}; build(json.loads({json.dumps(node)!r}), 'task')"
        more = spent([sys.executable, "-c", code], repeats) - libraries
        print(f"task {name:21s} {more:+5.2f}  (at most +0.5)")
    shown = spent([sys.executable, "-m", "hallmark.cli", "--help"], repeats)
    print(f"hallmark --help            {shown:5.2f}  (at most 1)")
    print(f"stage code                 {spent([sys.executable, '-m', 'runtime.code'], repeats):5.2f}")
    dvc = str(Path(sys.executable).with_name("dvc"))
    print(f"dvc repro, nothing to do   {spent([dvc, 'repro', '-q'], repeats):5.2f}  (at most 0.8)")
    with tempfile.TemporaryDirectory() as scratch:
        bare(Path(scratch), dvc)
        print(f"the same of three echo     {spent([dvc, 'repro', '-q'], repeats, scratch):5.2f}")
    listed = code_lists(composed())
    for stage in STAGES:
        files = [name for name in listed[stage] if name.endswith(".py")]
        learn = sum(name.startswith("hallmark/learn/") for name in files)
        print(f"{stage:10s} depends on {len(files):3d} files, {learn} of them in hallmark/learn")
    print(f"dvc.yaml has {len((ROOT / 'dvc.yaml').read_text(encoding='utf-8').splitlines())} lines (at most 120)")


def spent(command: list[str], repeats: int, cwd: str | Path = ROOT) -> float:
    """Median CPU seconds of a command, after one run that is not counted."""
    found = []
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(found[1:])


def bare(where: Path, dvc: str) -> None:
    """Make a repository with a pipeline of three stages."""
    stage = "  {0}:\n    cmd: echo {0} > {0}.txt\n    deps: [{1}]\n    outs: [{0}.txt]\n"
    (where / "source.txt").write_text("x\n", encoding="utf-8")
    names = ("a", "b", "c")
    before = ("source.txt", "a.txt", "b.txt")
    text = "".join(stage.format(*pair) for pair in zip(names, before, strict=True))
    (where / "dvc.yaml").write_text(f"stages:\n{text}", encoding="utf-8")
    for command in (["git", "init", "-q"], [dvc, "init", "-q"], [dvc, "repro", "-q"]):
        subprocess.run(command, cwd=where, capture_output=True, check=True)


if __name__ == "__main__":
    main()
