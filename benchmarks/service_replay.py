"""python -m benchmarks.service_replay: answers that were given in mixed batches, recorded, and computed again.

A thousand answers of a forecaster and of an encoder travel in batches of random size, are recorded in SQLite, and are
replayed one by one by a predictor that is opened anew. Every byte must be equal. Also prints what determinism costs: an
answer as the service gives it, against passes of exactly the rows that there are, with the kernels that torch chooses
(one thread); processes of both kinds alternate.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.crowd import read_example, requests
from hallmark import kernels

ROUNDS = 3
SIZES = (1, 16, 64)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, nargs="+", default=[Path("bundles/glucose"), Path("bundles/sentiment")])
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--time", choices=["fixed", "free"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.time != "free":
        kernels.pin()
    if options.time:
        print(json.dumps(timed(options.bundles[0], options.time == "fixed")))
        return
    for bundle in options.bundles:
        replayed(bundle, options.answers)
        show_cost(bundle)


def replayed(bundle: Path, count: int) -> None:
    """Answer, record, replay, compare."""
    from bentos.engine import load
    from hallmark.prove.provenance import describe_machine
    from hallmark.prove.replay import replay
    from hallmark.records import reader
    from hallmark.records.database import Database
    from hallmark.records.rows import Asked, machine_entry, prediction_id, prediction_row
    from hallmark.records.writer import RecordWriter

    served = load(bundle)
    asked = [served.request_type.model_validate(row) for row in questions(served, count)]
    generator, digest = random.Random(0), machine_entry(describe_machine())
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        database = Database(f"sqlite:///{scratch}/records.sqlite")
        writer = RecordWriter(database, Path(scratch) / "spool")
        writer.append([digest[1]])
        place = 0
        while place < count:
            batch = asked[place : place + generator.randint(1, 64)]
            for request, (answer, evidence) in zip(batch, served.answer(batch), strict=True):
                known = Asked(prediction_id("key:load", None, 0), "key:load", "key:load", datetime.now(UTC), request)
                row = prediction_row(
                    known, answer, evidence, served.hallmark, served.digest, digest[0], 0.0, len(batch), True
                )
                writer.append([("predictions", row)])
            place += len(batch)
        writer.flush(60)
        rows = reader.sample(database, count, [served.digest])
        machines = {digest[0]: reader.machine(database, digest[0]) or ""}
        start = time.process_time()
        predictor = served.open_again()
        results = [replay([row], predictor, served.request_type, served.base_sha256, machines)[0] for row in rows]
        seconds = time.process_time() - start
        writer.close()
    equal = sum(result.equal for result in results)
    print(f"{served.hallmark.task}: {equal} of {len(results)} answers replayed, equal bytes ({seconds:.1f} CPU s)")


def questions(served: Any, count: int) -> list[dict[str, Any]]:
    """Make requests: the readings of an example with noise, or texts."""
    example = read_example(served.hallmark.task)
    if "readings" in example:
        known = sorted(served.model.predictor.personalisation.methods)
        return requests(example, [known[i % len(known)] for i in range(count)])
    [name] = [name for name, value in example.items() if isinstance(value, str)]
    generator, words = random.Random(0), example[name].split()
    return [{**example, name: " ".join(generator.choices(words, k=generator.randint(3, 40)))} for _ in range(count)]


def show_cost(bundle: Path) -> None:
    """Time answers in processes with fixed passes and kernels, and in processes without."""
    took: dict[str, list[list[float]]] = {"fixed": [], "free": []}
    free = {k: v for k, v in os.environ.items() if k not in kernels.PORTABLE} | dict(kernels.ONE_THREAD)
    for _ in range(ROUNDS):
        for kind, results in took.items():
            command = [sys.executable, "-m", "benchmarks.service_replay", "--bundles", str(bundle), "--time", kind]
            environment = free if kind == "free" else dict(os.environ)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for place, rows in enumerate(SIZES):
        fixed, unbound = (statistics.median(run[place] for run in took[kind]) for kind in ("fixed", "free"))
        print(f"  {rows} rows: {fixed:.1f} CPU ms, free {unbound:.1f}: {fixed / unbound - 1:+.1%}")


def timed(bundle: Path, fixed: bool) -> list[float]:
    """Return the median CPU milliseconds of answering 1, 16 and 64 rows."""
    from bentos.engine import load

    served = load(bundle)
    predictor = served.model.predictor
    if not fixed and hasattr(predictor, "pass_sizes"):
        predictor.__dict__["pass_sizes"] = (0, 64)  # what the property would cache
    asked = [served.request_type.model_validate(row) for row in questions(served, max(SIZES))]
    medians = []
    for rows in SIZES:
        times = []
        for _ in range(max(4, 200 // rows)):
            start = time.process_time()
            served.answer(asked[:rows])
            times.append(1000 * (time.process_time() - start))
        medians.append(statistics.median(times))
    return medians


if __name__ == "__main__":
    main()
