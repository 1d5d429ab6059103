"""python -m benchmarks.memory: peak memory of preparing and training on two million readings.

The embedded simulator's people, repeated under other names with other noise: 168 people × 42 days.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.progress import bars
from hallmark.stages import prepare, train
from runtime.compose import composed as compose


def main() -> None:
    """Prepare and train, then print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=168)
    parser.add_argument("--tflop", type=float, default=0.3)
    arguments = parser.parse_args()
    params = compose(
        f"data.people={arguments.people}",
        f"train.budget_tflop={arguments.tflop}",
        "model=residual_mlp",
        "personalise.ways=[none,online_ridge]",
    )
    built, show = build(params), bars()
    task = built["task"]
    work = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        clock = cpu_seconds()
        rows = prepare.clean_rows(built["data"], task, work / "prepared", work / "validation", show)
        prepare.split_rows(task, work / "prepared")
        prepare.check_leakage(task, work / "prepared", work / "validation")
        _print("prepare", clock)
        candidates = built["model"]["candidates"]
        train.fit_base(task, params["model"], candidates, built["train"], work / "prepared", work / "model", show)
        _print("fit", clock)
        train.personalise(task, work / "prepared", work / "model", built["personalise"], show)
        _print("personalise", clock)
        train.calibrate(task, work / "prepared", work / "model", built["calibrate"], show)
        _print("calibrate", clock)
        peak = peak_gb()
        print(f"{rows.rows:,} readings: peak {peak:.2f} GB (at most 3)")
    finally:
        shutil.rmtree(work)


def _print(what: str, clock: float) -> None:
    peak = peak_gb()
    print(f"{what:<12} {cpu_seconds() - clock:6.0f} CPU s so far, peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
