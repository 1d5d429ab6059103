"""python -m benchmarks.service_batch --bundle bundle: `predict-batch` beside a bare loop, and its memory as files grow.

The bare loop calls the predictor with the same 256 requests again and again, without a file. Memory is the peak of a
process of its own for every size; it must not grow with the rows.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.service_replay import questions
from hallmark import kernels


def main() -> None:
    """Measure and print."""
    kernels.pin()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("bundle"))
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file is not None:
        print(json.dumps(answered(options.bundle, options.file)))
        return
    from bentos.engine import load

    served = load(options.bundle)
    asked = [served.request_type.model_validate(row) for row in questions(served, 256)]
    start = time.process_time()
    for _ in range(8):
        served.model.predictor.predict(asked)
    bare = 8 * len(asked) / (time.process_time() - start)
    print(f"bare loop: {bare:.0f} rows a CPU second")
    lines = [request.model_dump_json() + "\n" for request in asked]
    with tempfile.TemporaryDirectory(prefix="batch-") as scratch:
        for rows in options.rows:
            file = Path(scratch) / "in.ndjson"
            with file.open("w") as out:
                out.writelines(lines[i % len(lines)] for i in range(rows))
            command = [sys.executable, "-m", "benchmarks.service_batch", "--bundle", str(options.bundle)]
            done = subprocess.run([*command, "--file", str(file)], capture_output=True, text=True, check=True)
            seconds, peak = json.loads(done.stdout.splitlines()[-1])
            rate = rows / seconds
            print(f"{rows:9,} rows: {rate:.0f} rows a CPU second, {rate / bare:.2f} of the loop, peak {peak:.0f} MB")


def answered(bundle: Path, file: Path) -> tuple[float, float]:
    """Answer a file; returns CPU seconds, and the peak of memory in MB."""
    from hallmark.batch import predict_file
    from hallmark.model import Model

    model = Model(bundle)
    _ = model.predictor
    start = time.process_time()
    predict_file(model, file, file.with_name("out.parquet"))
    return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
