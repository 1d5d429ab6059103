"""python -m benchmarks.forms: one answer of the service in every form of the packaged model, and what the form changes.

Every form answers the same requests, one at a time, in one thread; medians of CPU time.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.chain import prepare_rows, train_model
from hallmark.build import build, build_experiment
from hallmark.stages import package, prepare, train
from runtime.compose import composed as compose

FORMS = ("standard", "onnx", "onnx_int8")
PRESETS = {"glucose": (), "sentiment": ("experiment=sentiment",), "cv": ("experiment=cv",)}
ROUNDS = 15


def main() -> None:
    """Train every task's default, export it, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=sorted(PRESETS))
    torch.set_num_threads(1)
    for name in parser.parse_args().only or PRESETS:
        with tempfile.TemporaryDirectory() as scratch:
            measure(name, Path(scratch))


def measure(name: str, out: Path) -> None:
    """Take one task from its rows to a table of its forms."""
    params = compose(*PRESETS[name])
    built = build_experiment(params)
    task, learner = built["task"], built["learner"]
    train.CHECKPOINTS = out / "checkpoints"
    prepare_rows(built, out / "prepared", out / "validation")
    train_model(built, out / "prepared", out / "standard")
    request = task.request_type()(**json.loads(Path("examples", f"{name}.json").read_text(encoding="utf-8")))
    data = prepare.open_prepared(out / "prepared")
    print(f"\n{name}: CPU ms an answer, and the network's share of the bundle")
    for form in FORMS:
        shown = ""
        if form != "standard":
            how = build(compose(*PRESETS[name], f"package={form}")["package"]["form"])
            verdict = package.export(task, learner, out / "standard", out / form, out / "prepared", how)
            here, there = (learner.raw_outputs(task, data, out / name) for name in ("standard", form))
            largest = float(np.abs(there - here).max())
            size = (out / form / "base" / "network.onnx").stat().st_size / 2**20
            shown = f"  {size:6.1f} MiB  {verdict.figure:.3%} of the spread (99%), largest change {largest:.2g}"
        print(f"  {form:10s} {answer_ms(learner.open(task, out / form, '1.0.0', '0' * 64), request):8.2f}{shown}")
        if form != "standard":
            shutil.rmtree(out / form)


def answer_ms(predictor: Any, request: Any) -> float:
    """Median CPU time of one answer."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        predictor.predict([request])
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
