"""python -m benchmarks.ray_batch --bundle bundle: a file answered by a Ray cluster on this machine, beside the loop.

Three processes answer the same file: a loop; a Ray cluster; and a Ray cluster of which a worker is killed after a fifth
of the rows and the driver after half of them, whose work another one goes on with. All must give the same bytes.
CPU seconds are those of the process and of all processes that it began, looked at every quarter of a second: those of
a cluster are children of nobody once it has ended.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.service_batch import shortened
from benchmarks.service_load import tree
from hallmark import kernels
from hallmark.files import sha256
from hallmark.learn.cluster import ENGINE

ANSWER = """
from hallmark import kernels; kernels.pin()
import json, sys, time
from pathlib import Path
from hallmark.batch import predict_file
from hallmark.learn.trainer import quiet
from hallmark.model import Model
quiet()
model, start = Model(sys.argv[1]), time.monotonic()
counts = predict_file(model, Path(sys.argv[2]), Path(sys.argv[3]))
print(json.dumps([time.monotonic() - start, counts]))
"""


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--items", type=int, default=12, help="of the list in a request: a million rows then fit a disk"
    )
    options = parser.parse_args()
    from bentos.engine import load

    served = load(options.bundle)
    lines = [
        served.request_type.model_validate(row).model_dump_json() + "\n" for row in shortened(served, options.items)
    ]
    with tempfile.TemporaryDirectory(prefix="ray-batch-") as scratch:
        home = Path(scratch)
        source = home / "in.ndjson"
        with source.open("w") as out:
            out.writelines(lines[i % len(lines)] for i in range(options.rows))
        for engine in ("processes", "ray"):
            wall, cpu, counts = finished(begin(options.bundle, source, home / f"{engine}.ndjson", engine))
            print(f"{engine:9} {options.rows:,} rows: {wall:.0f} s, {cpu:.0f} CPU s, {counts}", flush=True)
        first = interrupted(options.bundle, source, home / "killed.ndjson", options.rows)
        wall, cpu, counts = finished(begin(options.bundle, source, home / "killed.ndjson", "ray"))
        print(f"killed after {first:,} rows, a worker of it before: went on {wall:.0f} s, {cpu:.0f} CPU s, {counts}")
        digests = {sha256(home / f"{name}.ndjson") for name in ("processes", "ray", "killed")}
        with (home / "killed.ndjson").open() as answers:
            numbers = [json.loads(line)["row"] for line in answers]
        lost = options.rows - len(set(numbers))
        print(f"bytes equal: {len(digests) == 1}; lost {lost}, doubled {len(numbers) - len(set(numbers))}")


def begin(bundle: Path, source: Path, target: Path, engine: str) -> "subprocess.Popen[str]":
    """Start a process that answers a file."""
    command = [sys.executable, "-c", ANSWER, str(bundle), str(source), str(target)]
    environment = {**os.environ, ENGINE: engine}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finished(process: "subprocess.Popen[str]") -> tuple[float, float, dict[str, int]]:
    """Wait for a process; returns its seconds, the CPU seconds of all its processes, and what it answered."""
    spent: dict[psutil.Process, float] = {}
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for one in tree(psutil.Process(process.pid)):
                with suppress(psutil.NoSuchProcess):
                    spent[one] = sum(one.cpu_times()[:2])
        time.sleep(0.25)
    assert process.stdout is not None
    wall, counts = json.loads(process.stdout.read().splitlines()[-1])
    return wall, sum(spent.values()), counts


def interrupted(bundle: Path, source: Path, target: Path, rows: int) -> int:
    """Answer a file by a cluster, kill a worker, then the driver; returns the rows of finished parts."""
    from hallmark.batch import PART

    driver, parts = begin(bundle, source, target, "ray"), target.with_name(f".{target.name}.parts")
    every, killed = rows // PART + 1, False
    while (ended := len(list(parts.glob("part-*.json")))) < every // 2 and driver.poll() is None:
        if not killed and ended > every // 5:
            found = psutil.Process(driver.pid).children(recursive=True)
            worker = max((p for p in found if p.name().startswith("ray::")), key=lambda p: sum(p.cpu_times()[:2]))
            worker.kill()
            killed = True
        time.sleep(0.2)
    driver.kill()
    driver.wait()
    assert killed
    assert not target.exists()
    return len(list(parts.glob("part-*.json"))) * PART


if __name__ == "__main__":
    main()
