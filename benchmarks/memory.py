"""python -m benchmarks.memory: peak memory of preparing and training on two million readings.

The embedded simulator's people, repeated under other names with other noise: 168 people × 42 days.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.chain import calibrate, fit_base, personalise, prepare_rows
from benchmarks.spent import cpu_seconds, peak_gb
from hallmark.build import build
from hallmark.progress import bars
from runtime.compose import composed as compose


def main() -> None:
    """Prepare and train, then print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=168)
    parser.add_argument("--tflop", type=float, default=0.3)
    arguments = parser.parse_args()
    params = compose(
        f"data.subjects={arguments.people}",
        f"train.budget_tflop={arguments.tflop}",
        "model=residual_mlp",
        "personalise.methods=[none,online_ridge]",
    )
    built, show = build(params), bars()
    work = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        clock = cpu_seconds()
        prepared, model = work / "prepared", work / "model"
        prepare_rows(built, prepared, work / "validation", show)
        _print("prepare", clock)
        for step in (fit_base, personalise, calibrate):
            step(built, prepared, model, show)
            _print(step.__name__, clock)
        peak = peak_gb()
        print(f"{pq.read_metadata(prepared / 'rows.parquet').num_rows:,} readings: peak {peak:.2f} GB (at most 3)")
    finally:
        shutil.rmtree(work)


def _print(what: str, clock: float) -> None:
    peak = peak_gb()
    print(f"{what:<12} {cpu_seconds() - clock:6.0f} CPU s so far, peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
