"""python -m benchmarks.operate_monitor: the monitor over a log of a million answers, and over what came after it.

The log is a classifier's, made at random: 100 people, half of the answers with an outcome. The second run shows that
the cost follows what is new. Time and memory are those of the monitor's own process.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.recorded import FIRST, write_log
from hallmark.build import build
from hallmark.records.database import open_database
from runtime.compose import compose_operation, composed

SUBJECTS, A_DAY = 100, 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    days = max(1, options.rows // (SUBJECTS * A_DAY))
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/records.sqlite"
        database = open_database(url)
        print(
            f"{write_log(database, days, SUBJECTS, A_DAY, told=0.5):,} answers of {days} days are written", flush=True
        )
        print(json.dumps(measured(url, days + 1)), flush=True)
        write_log(database, 1, SUBJECTS, A_DAY, first_day=days, told=0.5)
        print(json.dumps(measured(url, days + 2)), flush=True)
        print(json.dumps(measured(url, days + 2)), flush=True)
        size = Path(f"{scratch}/records.sqlite").stat().st_size
        print(f"the log takes {size / 1e6:.0f} MB")


def measured(url: str, day: int) -> dict[str, Any]:
    """Run the monitor in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_watch, (url, day))


def _watch(url: str, day: int) -> dict[str, Any]:
    from hallmark.watch.monitor import watch
    from hallmark.watch.page import summary

    task, rules = build(composed("experiment=sentiment")["task"]), build(compose_operation([]))["monitor"]
    clock, cpu = time.perf_counter(), time.process_time()
    found = watch(open_database(url), task, rules, FIRST + timedelta(days=day))
    took = {"seconds": round(time.perf_counter() - clock, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return {**took, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **summary(found)}


if __name__ == "__main__":
    main()
