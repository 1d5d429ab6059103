"""python -m benchmarks.trainer: our trainer (transformers' Trainer, EMA, checkpoints) beside a bare loop.

Both make the same batches of the default cohort and as many steps of the same model with the same optimizer,
schedule, precision and average. CPU seconds, medians.
"""

import argparse
import copy
import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hallmark.build import build
from hallmark.contracts import Prepared
from hallmark.families.forecasting.base_fitting import batches, fit_assembler, population_forecast
from hallmark.families.forecasting.base_model import make_forecaster
from hallmark.families.forecasting.history import build_history
from hallmark.families.forecasting.network import Shape
from hallmark.learn.moving_average import EmaModel
from hallmark.learn.precision import resolve
from hallmark.learn.trainer import FLOP_ROWS, fit, flop_per_row, quiet, seed_everything, steps_within
from runtime.compose import composed as compose


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tflop", type=float, default=1.0)
    arguments = parser.parse_args()
    params = compose("model=residual_mlp")
    task, learner = build(params["task"]), build(params["learner"])
    config = replace(build(params["train"]), budget_tflop=arguments.tflop, evaluate_every=10**6)
    quiet()
    seed_everything(0, 1)
    clean = task.clean(build(params["data"]).load())
    split_panel = task.split_panel(Prepared(clean.rows, clean.subjects, task.split(clean)))
    train, valid = learner.origins_to_fit(split_panel)
    assembler = fit_assembler(split_panel, train, valid, task.scale, learner.history, learner.forecast)
    history = build_history(
        split_panel.panel, learner.history, task.scale, population_forecast(assembler, split_panel.panel)
    )
    make = batches(assembler, split_panel, "train", history, train)
    shape = Shape(
        assembler.input_size,
        assembler.personal_size,
        task.grid.recent_length,
        len(task.grid.steps),
        learner.forecast.quantile_levels,
    )
    model = make_forecaster(build(params["model"]["candidates"][0]), shape, learner.forecast)
    steps = steps_within(config, flop_per_row(model, make, FLOP_ROWS))
    ours, bare = [], []
    for _ in range(arguments.repeats):
        clock = time.process_time()
        with tempfile.TemporaryDirectory() as scratch:
            fit(copy.deepcopy(model), (len(train), make), (64, make), config, Path(scratch))
        ours.append(time.process_time() - clock)
        clock = time.process_time()
        loop(copy.deepcopy(model), len(train), make, config, steps)
        bare.append(time.process_time() - clock)
    one, two = statistics.median(ours), statistics.median(bare)
    print(f"{steps} steps of {config.batch_size} windows")
    print(f"trainer    {one:6.1f} CPU s  ({', '.join(f'{t:.1f}' for t in ours)})")
    print(f"bare loop  {two:6.1f} CPU s  ({', '.join(f'{t:.1f}' for t in bare)})")
    print(f"overhead   {one / two - 1:+6.1%}  (at most +10%)")


def loop(model: Any, count: int, make: Any, config: Any, steps: int) -> None:
    """Train without a framework."""
    averaged = EmaModel(model, config.ema_decay)
    optimizer = torch.optim.AdamW(
        averaged.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    warm = max(1, int(config.warmup_share * steps))

    def rate(step: int) -> float:
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    generator = np.random.default_rng(config.seed)
    order: list[int] = []
    averaged.train()
    for _ in range(steps):
        if len(order) < config.batch_size:
            order = generator.permutation(count).tolist()
        batch, order = make(order[: config.batch_size]), order[config.batch_size :]
        with torch.autocast("cpu", torch.bfloat16, enabled=resolve(config.precision) == "bf16"):
            loss = averaged(**batch)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(averaged.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        averaged.update()


if __name__ == "__main__":
    main()
