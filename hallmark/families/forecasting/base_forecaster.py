"""Fit, save, load and export the base model of all subjects: ridge, and a network on its residuals.

A base is a directory: `ridge.safetensors`, `model.safetensors`, `spec.json`. Loading it gives an
`Assembler` and a `Forecaster`, which is all that training, evaluation and serving need.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from torch import Tensor, nn

from hallmark.arrays import Floats, Integers
from hallmark.build import build, dump
from hallmark.contracts import Follow, TrainResult
from hallmark.families.forecasting.assemble import Assembler, fit_population_ridge
from hallmark.families.forecasting.ensemble import EnsembleConfig, average
from hallmark.families.forecasting.history import History, HistoryConfig
from hallmark.families.forecasting.network import BodyConfig, Forecaster, Shape
from hallmark.families.forecasting.panel import Grid, Panel, Scale
from hallmark.families.forecasting.ridge import NormalEquations
from hallmark.families.forecasting.splits import Parts
from hallmark.files import read_json, readable, sha256, write_json
from hallmark.learn.export import NETWORK, Exported, Onnx, export
from hallmark.learn.trainer import TrainConfig, fit

BLEND_PRIOR = 0.02  # pulls the blend to the network alone, as a variance in units of the horizon's own


@dataclass(frozen=True)
class ForecastConfig:
    """What all candidate forecasters share.

    Attributes:
        quantile_levels: ascending, with 0.5.
        ridge_penalties: of the population ridge, ascending; valid chooses one for every horizon.
        skip_penalties: of the ridge that the network's skip starts from, chosen alike.
        skip_rows: windows that this second ridge sees.
        history_dropout: share of training windows that lose all personal inputs.
        adapter_dropout: share that lose the online ridge only.
        pinball_weight: weight of the quantile loss beside the squared error.
        valid_stride: grid points between two valid windows that early stopping looks at.
        short_minutes: where the short horizons end.
        short_weight: share of the loss that the short horizons carry.
    """

    quantile_levels: tuple[float, ...]
    ridge_penalties: tuple[float, ...]
    skip_penalties: tuple[float, ...]
    skip_rows: int
    history_dropout: float
    adapter_dropout: float
    pinball_weight: float
    valid_stride: int
    short_minutes: int
    short_weight: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantile_levels", tuple(self.quantile_levels))
        for name in ("ridge_penalties", "skip_penalties"):
            found = tuple(getattr(self, name))
            object.__setattr__(self, name, found)
            if not found or found[0] <= 0 or list(found) != sorted(found):
                raise ValueError(f"{name}={found} must be positive and ascending")
        for name in ("history_dropout", "adapter_dropout", "short_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie within 0…1")


@dataclass(frozen=True)
class Base:
    """A trained base: what turns contexts into forecasts.

    Attributes:
        assembler: the preprocessing.
        forecaster: the network.
        exported: the same in another form, if it was packaged in one; adapters need the first.
        digest: sha256 of the network's file, which adapters name; empty before it was saved.
    """

    assembler: Assembler
    forecaster: Forecaster
    digest: str = ""
    exported: Exported | None = None

    @property
    def network(self) -> nn.Module:
        """What answers where no adapter speaks."""
        return self.forecaster if self.exported is None else self.exported

    @torch.no_grad()
    def forecast(
        self,
        context: Floats,
        minute: Any,
        history: History | None,
        rows: Integers | None,
    ) -> tuple[Floats, Floats]:
        """Forecast some windows.

        Args:
            context: (B, C) readings, oldest first.
            minute: (B,) local wall-clock minute of the last reading.
            history: past of the people in the batch.
            rows: (B,) row of each window in it, -1 for a newcomer.

        Returns:
            Mean (B, H) and quantiles (B, H, Q), in the value's unit.
        """
        if not len(context):  # encoders refuse empty batches
            shape = self.forecaster.shape
            empty = np.empty((0, shape.horizons, len(shape.quantile_levels)), dtype=np.float32)
            return empty[..., 0], empty
        out = self.network(**as_tensors(self.assembler.batch(context, minute, history, rows)))
        return out["mean"].numpy(), out["quantiles"].numpy()


def as_tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Wrap a batch's arrays."""
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}


def fit_assembler(
    parts: Parts, train: Integers, valid: Integers, scale: Scale, history: HistoryConfig, forecast: ForecastConfig
) -> Assembler:
    """Fit the population ridge on the training windows; valid ones choose its penalties."""
    weights, intercept = fit_population_ridge(parts, train, valid, scale, forecast.ridge_penalties)
    return Assembler(parts.panel.grid, scale, history, weights, intercept)


def population_forecast(assembler: Assembler, panel: Panel) -> Callable[[Integers], Floats]:
    """Return the population ridge as a function of origins, for `build_history`."""

    def forecast(origins: Integers) -> Floats:
        out = np.empty((len(origins), len(assembler.intercept)), dtype=np.float32)
        for start in range(0, len(origins), 4096):
            part = origins[start : start + 4096]
            window = assembler.window(panel.context(part), panel.minute[part].astype(np.int64))
            out[start : start + len(part)] = assembler.population(window)
        return out

    return forecast


def batches(
    assembler: Assembler, parts: Parts, part: str, history: History, origins: Integers
) -> Callable[[list[int]], dict[str, Tensor]]:
    """Return what makes a batch of some positions in `origins`; no target reaches beyond its part."""
    panel = parts.panel

    def make(positions: list[int]) -> dict[str, Tensor]:
        chosen = origins[np.asarray(positions, dtype=np.int64)]
        rows = history.rows(panel.subject[chosen], panel.day[chosen])
        batch = assembler.batch(panel.context(chosen), panel.minute[chosen].astype(np.int64), history, rows)
        return as_tensors({**batch, "target": parts.target(chosen, part)})

    return make


def fit_base(
    body: BodyConfig,
    assembler: Assembler,
    parts: Parts,
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
        parts: readings and their splits.
        history: everybody's past.
        train: origins to learn from.
        valid: origins for early stopping and for the blend.
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
    make = batches(assembler, parts, "train", history, train)
    generator = np.random.default_rng(config.seed)
    look = batches(assembler, parts, "valid", history, valid)
    sample = np.sort(generator.choice(len(train), size=min(len(train), forecast.skip_rows), replace=False))
    learned = [make(part.tolist()) for part in np.array_split(sample, max(1, len(sample) // 4096))]
    _initialise(model, learned, _chunks(look, len(valid)), assembler, forecast)
    average, result = fit(model, (len(train), make), (len(valid), look), config, checkpoints, progress)
    assert isinstance(average, Forecaster)
    _fit_blend(average, _chunks(look, len(valid)))
    return Base(assembler, average), result


def average_bases(
    body: EnsembleConfig,
    members: Sequence[Base],
    forecast: ForecastConfig,
    look: Callable[[list[int]], dict[str, Tensor]],
    count: int,
) -> tuple[Base, TrainResult]:
    """Average trained bases into one, without training.

    Args:
        body: the ensemble.
        members: its trained members, in its order.
        forecast: what they share.
        look: what makes a batch of valid.
        count: examples of valid.

    Returns:
        The base and its loss on valid, taken as the trainer takes a network's: before the blend is fitted.
    """
    first = members[0]
    model = make_forecaster(body, first.forecaster.shape, forecast).eval()
    average(model, [member.forecaster for member in members])
    loss = 0.0
    with torch.no_grad():
        for part in _chunks(look, count):
            loss += float(model(**part)["loss"]) * len(part["x"]) / count
    _fit_blend(model, _chunks(look, count))
    return Base(first.assembler, model), TrainResult(loss, 0, 0, ())


def _chunks(make: Callable[[list[int]], dict[str, Tensor]], count: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, count, 4096):
        yield make(list(range(start, min(start + 4096, count))))


def make_forecaster(body: BodyConfig, shape: Shape, forecast: ForecastConfig) -> Forecaster:
    """Make an untrained forecaster."""
    return Forecaster(
        body.build(shape),
        shape,
        body.lora_targets,
        forecast.history_dropout,
        forecast.adapter_dropout,
        forecast.pinball_weight,
    )


@torch.no_grad()
def _initialise(
    model: Forecaster,
    parts: list[dict[str, Tensor]],
    valid: Iterable[dict[str, Tensor]],
    assembler: Assembler,
    forecast: ForecastConfig,
) -> None:
    """Set scales, trust and the ridge-initialised skip from a sample of training batches; valid chooses penalties."""
    x = torch.cat([part["x"] for part in parts])
    model.x_mean.copy_(x.mean(0))
    model.x_sd.copy_(x.std(0).clamp_min(1e-3))
    model.adapter_columns[-assembler.adapter_size :] = 1.0
    residual = torch.cat([part["target"] - part["anchor"] for part in parts])
    correction = torch.cat([part["correction"] for part in parts])
    there = ~torch.isnan(residual)
    known = torch.where(there, residual, 0.0)
    count = there.sum(0).clamp_min(1)
    model.horizon_scale.copy_(((known**2).sum(0) / count).sqrt().clamp_min(1e-3))
    maturity = torch.cat([part["maturity"] for part in parts])
    model.trust.copy_(_fit_trust(known, correction * there, maturity))
    model.horizon_weight.copy_(_horizon_weight(assembler.grid, forecast))

    def rests(batches: Iterable[dict[str, Tensor]]) -> Iterator[tuple[Any, Any]]:
        for part in batches:
            keep = part["known"]
            for mask in (keep, torch.zeros_like(keep)):  # with and without a history, so the skip serves both
                z = model.standardise(part["x"], mask, mask)
                rest = part["target"] - part["anchor"] - model.trusted(part["correction"], mask, part["maturity"])
                yield z.numpy(), (rest / model.horizon_scale).numpy()
                if forecast.history_dropout == 0:
                    break

    equations = NormalEquations(x.shape[1], residual.shape[1])
    for z, rest in rests(parts):
        equations.add(z, rest)
    weights, intercept = equations.solve_best(forecast.skip_penalties, rests(valid))
    model.skip.weight.copy_(torch.from_numpy(weights.T.copy()))
    model.skip.bias.copy_(torch.from_numpy(intercept))


def _fit_trust(residual: Tensor, correction: Tensor, maturity: Tensor) -> Tensor:
    """Fit how far the online ridge is to be believed, by least squares at every horizon: (2, H).

    A young ridge is worth half of a mature one: one number for both would distrust the mature ones that are served.
    """
    grown = correction * maturity[:, None]
    a, b, c = (correction**2).sum(0) + 1.0, (correction * grown).sum(0), (grown**2).sum(0) + 1.0
    u, v = (residual * correction).sum(0), (residual * grown).sum(0)
    determinant = (a * c - b * b).clamp_min(1e-6)
    found = torch.stack([(c * u - b * v) / determinant, (a * v - b * u) / determinant])
    young = found[0].clamp(0.0, 1.0)
    return torch.stack([young, (found[0] + found[1]).clamp(0.0, 1.0) - young])


@torch.no_grad()
def _fit_blend(model: Forecaster, parts: Iterable[dict[str, Tensor]]) -> None:
    """Fit how far the network and the person's habit are to be believed, by least squares at every horizon on valid.

    What the network learned from its own training people is worth less on others, at long horizons most of all.
    """
    horizons = model.shape.horizons
    a, b, c, u, v = torch.zeros(5, horizons, dtype=torch.float64)
    for part in parts:
        inputs = {name: value for name, value in part.items() if name != "target"}
        linear = model.trusted(part["correction"], part["adapted"], part["maturity"])
        network = (model(**inputs)["mean"] - part["anchor"] - linear) / model.horizon_scale
        usual = (part["habit"] - linear) / model.horizon_scale
        rest = (part["target"] - part["anchor"] - linear) / model.horizon_scale
        there = (~torch.isnan(rest) & (part["known"][:, None] > 0)).double()
        rest = torch.where(there > 0, rest, 0.0).double()
        network, usual = network.double() * there, usual.double() * there
        prior = BLEND_PRIOR * there.sum(0)
        a, b, c = a + (network**2).sum(0) + prior, b + (network * usual).sum(0), c + (usual**2).sum(0) + prior
        u, v = u + (rest * network).sum(0) + prior, v + (rest * usual).sum(0)
    determinant = (a * c - b * b).clamp_min(1e-9)
    found = torch.stack([(c * u - b * v) / determinant, (a * v - b * u) / determinant])
    known = (a > 0).expand(2, -1)  # without a single known valid window the network speaks as it is
    model.blend.copy_(torch.where(known, found.clamp(0.0, 1.0).float(), model.blend))


def _horizon_weight(grid: Grid, forecast: ForecastConfig) -> Tensor:
    short = torch.tensor([m <= forecast.short_minutes for m in grid.horizons_minutes])
    if short.all() or not short.any():
        return torch.ones(len(short))
    share = forecast.short_weight
    weight = torch.where(short, share / short.sum(), (1 - share) / (~short).sum())
    return weight * len(short)


def save_base(base: Base, directory: Path, body: BodyConfig, forecast: ForecastConfig) -> None:
    """Write a base with the configuration that its network is made from."""
    directory.mkdir(parents=True, exist_ok=True)
    assembler = base.assembler
    save_file({"weights": assembler.weights, "intercept": assembler.intercept}, str(directory / "ridge.safetensors"))
    state = {name: tensor.contiguous() for name, tensor in base.forecaster.state_dict().items()}
    save_torch(state, str(directory / "model.safetensors"))
    parts = {"body": body, "forecast": forecast, "shape": base.forecaster.shape}
    parts |= {"grid": assembler.grid, "scale": assembler.scale, "history": assembler.history}
    write_json(directory / "spec.json", dump(parts))


def load_base(directory: Path) -> Base:
    """Load a base written by `save_base`; bytes are verified by whoever owns the manifest.

    Raises:
        BundleError: a file is missing or cannot be read.
    """
    with readable(directory, "run `dvc repro train` again"):
        return _load(directory)


def _load(directory: Path) -> Base:
    spec = build(read_json(directory / "spec.json"))
    arrays = load_file(str(directory / "ridge.safetensors"))
    assembler = Assembler(spec["grid"], spec["scale"], spec["history"], arrays["weights"], arrays["intercept"])
    model = make_forecaster(spec["body"], spec["shape"], spec["forecast"])
    model.load_state_dict(load_torch(str(directory / "model.safetensors")))
    exported = Exported(directory) if (directory / NETWORK).is_file() else None
    return Base(assembler, model.eval(), sha256(directory / "model.safetensors"), exported)


def export_base(base: Base, example: dict[str, Tensor], directory: Path, form: Onnx) -> None:
    """Write the network of a base into its directory in another form; `example` is any batch of more than one row."""
    outputs = ("mean", "quantiles")
    export(_Outputs(base.forecaster), example, dict.fromkeys(example, ("rows",)), outputs, directory, form)


class _Outputs(nn.Module):
    """A forecaster that returns its outputs one after the other, as an exporter wants them."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(
        self,
        x: Tensor,
        recent: Tensor,
        anchor: Tensor,
        correction: Tensor,
        habit: Tensor,
        known: Tensor,
        adapted: Tensor,
        maturity: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `Forecaster.forward`."""
        out = self.forecaster(x, recent, anchor, correction, habit, known, adapted, maturity)
        return out["mean"], out["quantiles"]
