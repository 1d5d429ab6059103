"""Fit the base model of all subjects: population ridge, a network on its residuals, and their blend."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hallmark.arrays import Floats, Integers
from hallmark.contracts import Follow, TrainResult
from hallmark.families.forecasting.assemble import Assembler, fit_population_ridge
from hallmark.families.forecasting.base_model import Base, ForecastConfig, as_tensors, make_forecaster
from hallmark.families.forecasting.ensemble import EnsembleConfig, copy_members
from hallmark.families.forecasting.history import History, HistoryConfig
from hallmark.families.forecasting.network import BackboneConfig, Forecaster, Shape
from hallmark.families.forecasting.panel import Panel, TimeGrid, ValueScale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import SplitPanel
from hallmark.learn.trainer import TrainConfig, fit

BLEND_PRIOR = 0.02  # pulls the blend towards the network alone; a variance, relative to the horizon's own


def fit_assembler(
    split_panel: SplitPanel,
    train: Integers,
    valid: Integers,
    scale: ValueScale,
    history: HistoryConfig,
    forecast: ForecastConfig,
) -> Assembler:
    """Fit the population ridge on the training windows; the validation windows choose its penalties."""
    weights, intercept = fit_population_ridge(split_panel, train, valid, scale, forecast.ridge_penalties)
    return Assembler(split_panel.panel.grid, scale, history, weights, intercept)


def population_forecast(assembler: Assembler, panel: Panel) -> Callable[[Integers], Floats]:
    """Return the population ridge as a function of origins, for `build_history`."""

    def forecast(origins: Integers) -> Floats:
        out = np.empty((len(origins), len(assembler.intercept)), dtype=np.float32)
        for start in range(0, len(origins), 4096):
            chunk = origins[start : start + 4096]
            window = assembler.window(panel.context(chunk), panel.minute[chunk].astype(np.int64))
            out[start : start + len(chunk)] = assembler.population(window)
        return out

    return forecast


def batches(
    assembler: Assembler, split_panel: SplitPanel, split: str, history: History, origins: Integers
) -> Callable[[list[int]], dict[str, Tensor]]:
    """Return a function from positions in `origins` to a batch; no target reaches beyond the end of its split."""
    panel = split_panel.panel

    def make(positions: list[int]) -> dict[str, Tensor]:
        chosen = origins[np.asarray(positions, dtype=np.int64)]
        rows = history.rows(panel.subject[chosen], panel.day[chosen])
        batch = assembler.batch(panel.context(chosen), panel.minute[chosen].astype(np.int64), history, rows)
        return as_tensors({**batch, "target": split_panel.target(chosen, split)})

    return make


def fit_base(
    body: BackboneConfig,
    assembler: Assembler,
    split_panel: SplitPanel,
    history: History,
    train: Integers,
    valid: Integers,
    forecast: ForecastConfig,
    config: TrainConfig,
    checkpoints: Path,
    progress: Follow | None = None,
) -> tuple[Base, TrainResult]:
    """Fit one candidate network.

    Args:
        body: what to fit.
        assembler: the preprocessing, with the population ridge.
        split_panel: readings and their splits.
        history: past of all subjects.
        train: origins of the training windows.
        valid: origins of the validation windows, for early stopping and for the blend.
        forecast: what all candidates share.
        config: how to train.
        checkpoints: this run's own directory.
        progress: called with (step, steps, latest valid loss).
    """
    torch.manual_seed(config.seed)
    shape = Shape(
        inputs=assembler.input_size,
        personal=assembler.personal_size,
        recent=assembler.grid.recent_length,
        horizons=len(assembler.grid.steps),
        quantile_levels=forecast.quantile_levels,
    )
    model = make_forecaster(body, shape, forecast)
    make = batches(assembler, split_panel, "train", history, train)
    generator = np.random.default_rng(config.seed)
    valid_batch = batches(assembler, split_panel, "valid", history, valid)
    sample = np.sort(generator.choice(len(train), size=min(len(train), forecast.skip_rows), replace=False))
    sampled = [make(chunk.tolist()) for chunk in np.array_split(sample, max(1, len(sample) // 4096))]
    _initialise(model, sampled, _chunks(valid_batch, len(valid)), assembler, forecast)
    average, result = fit(model, (len(train), make), (len(valid), valid_batch), config, checkpoints, progress)
    assert isinstance(average, Forecaster)
    _fit_blend(average, _chunks(valid_batch, len(valid)))
    return Base(assembler, average), result


def average_bases(
    body: EnsembleConfig,
    members: Sequence[Base],
    forecast: ForecastConfig,
    valid_batch: Callable[[list[int]], dict[str, Tensor]],
    count: int,
) -> tuple[Base, TrainResult]:
    """Average trained bases into one, without training.

    Args:
        body: the ensemble.
        members: its trained members, in its order.
        forecast: what they share.
        valid_batch: makes a batch of validation windows.
        count: number of validation windows.

    Returns:
        The base and its loss on valid, computed as in the trainer: before the blend is fitted.
    """
    first = members[0]
    model = make_forecaster(body, first.forecaster.shape, forecast).eval()
    copy_members(model, [member.forecaster for member in members])
    loss = 0.0
    with torch.no_grad():
        for batch in _chunks(valid_batch, count):
            loss += float(model(**batch)["loss"]) * len(batch["x"]) / count
    _fit_blend(model, _chunks(valid_batch, count))
    return Base(first.assembler, model), TrainResult(loss, 0, 0, ())


def _chunks(make: Callable[[list[int]], dict[str, Tensor]], count: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, count, 4096):
        yield make(list(range(start, min(start + 4096, count))))


@torch.no_grad()
def _initialise(
    model: Forecaster,
    batches: list[dict[str, Tensor]],
    valid: Iterable[dict[str, Tensor]],
    assembler: Assembler,
    forecast: ForecastConfig,
) -> None:
    """Set scales, trust and the ridge-initialised skip from a sample of training batches; valid chooses penalties."""
    x = torch.cat([batch["x"] for batch in batches])
    model.x_mean.copy_(x.mean(0))
    model.x_sd.copy_(x.std(0).clamp_min(1e-3))
    model.adapter_columns[-assembler.adapter_size :] = 1.0
    residual = torch.cat([batch["target"] - batch["anchor"] for batch in batches])
    correction = torch.cat([batch["correction"] for batch in batches])
    observed = ~torch.isnan(residual)
    zero_filled = torch.where(observed, residual, 0.0)
    count = observed.sum(0).clamp_min(1)
    model.horizon_scale.copy_(((zero_filled**2).sum(0) / count).sqrt().clamp_min(1e-3))
    maturity = torch.cat([batch["maturity"] for batch in batches])
    model.trust.copy_(_fit_trust(zero_filled, correction * observed, maturity))
    model.horizon_weight.copy_(_horizon_weight(assembler.grid, forecast))

    def rests(batches: Iterable[dict[str, Tensor]]) -> Iterator[tuple[Any, Any]]:
        for batch in batches:
            keep = batch["known"]
            for mask in (keep, torch.zeros_like(keep)):  # with and without a history, so the skip serves both
                z = model.standardise(batch["x"], mask, mask)
                rest = batch["target"] - batch["anchor"] - model.trusted(batch["correction"], mask, batch["maturity"])
                yield z.numpy(), (rest / model.horizon_scale).numpy()
                if forecast.history_dropout == 0:
                    break

    equations = NormalEquations(x.shape[1], residual.shape[1])
    for z, rest in rests(batches):
        equations.add(z, rest)
    weights, intercept = equations.solve_best(forecast.skip_penalties, rests(valid))
    model.skip.weight.copy_(torch.from_numpy(weights.T.copy()))
    model.skip.bias.copy_(torch.from_numpy(intercept))


def _fit_trust(residual: Tensor, correction: Tensor, maturity: Tensor) -> Tensor:
    """Fit the weights of the online ridge's correction, by least squares at every horizon: (2, H).

    A ridge with little history helps about half as much as a mature one. A single weight for both would be too low for
    the mature ones, and serving uses these.
    """
    grown = correction * maturity[:, None]
    a, b, c = (correction**2).sum(0) + 1.0, (correction * grown).sum(0), (grown**2).sum(0) + 1.0
    u, v = (residual * correction).sum(0), (residual * grown).sum(0)
    determinant = (a * c - b * b).clamp_min(1e-6)
    solution = torch.stack([(c * u - b * v) / determinant, (a * v - b * u) / determinant])
    young = solution[0].clamp(0.0, 1.0)
    return torch.stack([young, (solution[0] + solution[1]).clamp(0.0, 1.0) - young])


@torch.no_grad()
def _fit_blend(model: Forecaster, batches: Iterable[dict[str, Tensor]]) -> None:
    """Fit the weights of the network and of the subject's habit, by least squares at every horizon on valid.

    The network is less accurate on subjects that it was not trained on, most of all at long horizons.
    """
    horizons = model.shape.horizons
    a, b, c, u, v = torch.zeros(5, horizons, dtype=torch.float64)
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "target"}
        linear = model.trusted(batch["correction"], batch["adapted"], batch["maturity"])
        network = (model(**inputs)["mean"] - batch["anchor"] - linear) / model.horizon_scale
        usual = (batch["habit"] - linear) / model.horizon_scale
        rest = (batch["target"] - batch["anchor"] - linear) / model.horizon_scale
        observed = (~torch.isnan(rest) & (batch["known"][:, None] > 0)).double()
        rest = torch.where(observed > 0, rest, 0.0).double()
        network, usual = network.double() * observed, usual.double() * observed
        prior = BLEND_PRIOR * observed.sum(0)
        a, b, c = a + (network**2).sum(0) + prior, b + (network * usual).sum(0), c + (usual**2).sum(0) + prior
        u, v = u + (rest * network).sum(0) + prior, v + (rest * usual).sum(0)
    determinant = (a * c - b * b).clamp_min(1e-9)
    solution = torch.stack([(c * u - b * v) / determinant, (a * v - b * u) / determinant])
    known = (a > 0).expand(2, -1)  # without a known valid window the network keeps its full weight
    model.blend.copy_(torch.where(known, solution.clamp(0.0, 1.0).float(), model.blend))


def _horizon_weight(grid: TimeGrid, forecast: ForecastConfig) -> Tensor:
    short = torch.tensor([m <= forecast.short_minutes for m in grid.horizons_minutes])
    if short.all() or not short.any():
        return torch.ones(len(short))
    share = forecast.short_weight
    weight = torch.where(short, share / short.sum(), (1 - share) / (~short).sum())
    return weight * len(short)
