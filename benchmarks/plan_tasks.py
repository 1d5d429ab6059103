"""Plans of the tasks' own training steps against what they take on this CPU.

    python -m benchmarks.plan_tasks [EXPERIMENT …] [--time]

Memory: every allocation of torch while the trainer makes three real steps and a validation pass, as torch's profiler
records them, beside the trace. Time (--time): seconds told from 20 measured steps beside those of the whole run.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from hallmark.build import build_experiment
from hallmark.learn.trainer import Run, fit, quiet
from hallmark.plan.measure import measure
from hallmark.plan.runs import PlannedRun, prepare, runs_of, trace
from runtime.compose import composed

EXPERIMENTS = ("glucose", "cv", "sentiment", "text")  # trees are not trained by steps


def main() -> None:
    """Print a line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS)
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    quiet()
    errors = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True):  # its first session misses allocations
        torch.zeros(1)
    for name in options.experiments:
        built = build_experiment(composed(*([] if name == "glucose" else [f"experiment={name}"])))
        for network, run in runs_of(built, prepare(built)).items():
            planned = trace(network, run)
            pair = seconds(run, planned) if options.time else allocated(run, planned)
            errors.append(pair[0] / pair[1] - 1)
            unit, scale = ("s", 1.0) if options.time else ("MB", 1e6)
            print(
                f"{name:10} {network:18} planned {pair[0] / scale:9.1f} {unit}, taken {pair[1] / scale:9.1f} {unit}: "
                f"{errors[-1]:+.1%}",
                flush=True,
            )
    print(f"mean absolute error {sum(map(abs, errors)) / len(errors):.1%}, worst {max(map(abs, errors)):.1%}")


def allocated(run: Run, planned: PlannedRun, steps: int = 3) -> tuple[float, float]:
    """Return the peak of the trace, and that of the allocations of a real run of three steps, in bytes."""

    def owned(make: Any) -> Any:  # arrays of numpy are no allocations of torch
        return lambda rows: {name: value.clone() for name, value in make(rows).items()}

    few = replace(run.config, budget_tflop=run.config.budget_tflop * steps / planned.steps, evaluate_every=steps)
    held = sum(value.numel() * value.element_size() for value in [*run.model.parameters(), *run.model.buffers()])
    with (
        tempfile.TemporaryDirectory() as scratch,
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        fit(
            run.model,
            (run.train[0], owned(run.train[1])),
            (run.valid[0], owned(run.valid[1])),
            few,
            Path(scratch) / "run",
        )
    now = peak = held
    events: Any = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return planned.cost.peak, peak


def seconds(run: Run, planned: PlannedRun) -> tuple[float, float]:
    """Return the time told from 20 steps for the steps that were made, and the time that they took."""
    step, evaluation = measure(run, planned)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        _, result = fit(run.model, run.train, run.valid, run.config, Path(scratch) / "run")
    taken = time.perf_counter() - began
    return result.steps * step + len(result.curve) * evaluation, taken


if __name__ == "__main__":
    main()
