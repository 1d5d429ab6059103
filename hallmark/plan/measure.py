"""Seconds of a step and of a validation pass on this machine, from a few real ones."""

import copy
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from hallmark.errors import ConfigError
from hallmark.learn.trainer import Run, fit
from hallmark.plan.runs import PlannedRun

STEPS = 20
WARM = 3  # first steps allocate and are not counted


def measure(run: Run, planned: PlannedRun, steps: int = STEPS) -> tuple[float, float]:
    """Train a few steps with the trainer itself, and throw the result away.

    Returns:
        Seconds of a step (median after the first three), and of a validation pass with its checkpoint.

    Raises:
        ConfigError: the network has no weights here.
    """
    if any(value.is_meta for value in run.model.parameters()):
        raise ConfigError("--measure needs the weights, and --model has none: leave one of them out")
    config = run.config
    budget = config.budget_tflop * min(steps, planned.steps) / planned.steps
    few = replace(config, budget_tflop=budget, evaluate_every=10**9, patience=1, n_jobs=1)
    ends: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hallmark-measure-") as scratch:
        fit(copy.deepcopy(run.model), run.train, run.valid, few, Path(scratch) / "run", lambda *_: ends.append(_now()))
        done = _now()
    gaps = [after - before for before, after in zip(ends[WARM:], ends[WARM + 1 :], strict=False)]
    if not gaps:
        raise ConfigError(f"{planned.name} makes only {len(ends)} steps: there is nothing to plan")
    return statistics.median(gaps), done - ends[-1]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
