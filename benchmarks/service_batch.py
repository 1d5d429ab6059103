"""python -m benchmarks.service_batch --bundle bundle: `predict-batch` beside a bare loop, and its memory as files grow.

The bare loop is what a user would write: read a line, validate it, predict 256 at once, write answers as JSON. Memory
is the peak of a process of its own for every size; it must not grow with the rows. Rows a CPU second.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.service_replay import questions
from hallmark import kernels


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--items", type=int, help="of the list in a request: a million rows then fit a disk")
    parser.add_argument("--loop-up-to", type=int, default=100_000, help="rows; the loop is not run on larger files")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file or options.loop:
        print(json.dumps(answered(options.bundle, options.file or options.loop, bool(options.loop))))
        return
    from bentos.engine import load

    served = load(options.bundle)
    rows_of = shortened(served, options.items) if options.items else questions(served, 256)
    lines = [served.request_type.model_validate(row).model_dump_json() + "\n" for row in rows_of]
    with tempfile.TemporaryDirectory(prefix="batch-") as scratch:
        for rows in options.rows:
            file = Path(scratch) / "in.ndjson"
            with file.open("w") as out:
                out.writelines(lines[i % len(lines)] for i in range(rows))
            seconds, peak = in_a_process(options.bundle, "--file", file)
            print(f"{rows:9,} rows: {rows / seconds:.0f} a CPU second, peak {peak:.0f} MB", end="", flush=True)
            if rows <= options.loop_up_to:
                of_loop, peak = in_a_process(options.bundle, "--loop", file)
                print(
                    f"; the bare loop {rows / of_loop:.0f}, {peak:.0f} MB; ours is {of_loop / seconds:.2f} of it",
                    end="",
                )
            print(flush=True)


def in_a_process(bundle: Path, how: str, file: Path) -> tuple[float, float]:
    """Answer a file in a process of its own; see `answered`."""
    command = [sys.executable, "-m", "benchmarks.service_batch", "--bundle", str(bundle), how, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def shortened(served: Any, items: int) -> list[dict[str, Any]]:
    """Make 256 requests of the example's last items, each with numbers of its own."""
    example = served.example.model_dump(mode="json")
    [name, *_] = [name for name, value in example.items() if isinstance(value, list) and value]
    last = example[name][-items:]
    changed = (
        [{k: v * (1 + i / 1000) if isinstance(v, float) else v for k, v in item.items()} for item in last]
        for i in range(256)
    )
    return [{**example, name: listed} for listed in changed]


def answered(bundle: Path, file: Path, bare: bool) -> tuple[float, float]:
    """Answer a file; returns CPU seconds, and the peak of memory in MB."""
    from hallmark.batch import predict_file
    from hallmark.learn.trainer import quiet
    from hallmark.model import Model

    quiet()
    model = Model(bundle)
    _ = model.predictor
    start = time.process_time()
    if bare:
        loop(model, file, file.with_name("loop.ndjson"))
    else:
        predict_file(model, file, file.with_name("out.ndjson"))
    return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def loop(model: Any, source: Path, target: Path) -> None:
    """Answer a file as a short script would."""
    kind = model.task.request_type()
    with source.open("rb") as lines, target.open("w") as out:
        while block := [kind.model_validate_json(line) for line in islice(lines, 256)]:
            out.writelines(answer.model_dump_json() + "\n" for answer in model.predictor.predict(block))


if __name__ == "__main__":
    main()
