"""The base model of all subjects: `ForecastConfig`, `Base`, and its files; load, save and export them.

A base is a directory: `ridge.safetensors`, `model.safetensors`, `spec.json`. Loading it gives an
`Assembler` and a `Forecaster`, which is all that training, evaluation and serving need.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from torch import Tensor, nn

from hallmark.arrays import Floats, Integers
from hallmark.build import Count, NotNegative, Positive, Share, Tuple, build, configuration, dump
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.network import BackboneConfig, Forecaster, Shape
from hallmark.files import as_bundle_error, read_json, sha256, write_json
from hallmark.learn.export import NETWORK, Exported, Onnx, export

WEIGHTS = "model.safetensors"


@configuration
class ForecastConfig:
    """What all candidate forecasters share.

    Attributes:
        quantile_levels: ascending, with 0.5.
        ridge_penalties: of the population ridge, ascending; valid chooses one for every horizon.
        skip_penalties: of the ridge that initialises the network's skip, ascending; chosen in the same manner.
        skip_rows: number of windows that this second ridge is fitted on.
        history_dropout: share of training windows that lose all personal inputs.
        adapter_dropout: share that lose the online ridge only.
        pinball_weight: weight of the quantile loss beside the squared error.
        valid_stride: grid points between two valid windows that early stopping evaluates.
        short_minutes: horizons up to here are short.
        short_weight: share of the loss that the short horizons carry.
    """

    quantile_levels: Tuple[float]
    ridge_penalties: Annotated[Tuple[Positive], Field(min_length=1)]
    skip_penalties: Annotated[Tuple[Positive], Field(min_length=1)]
    skip_rows: Count
    history_dropout: Share
    adapter_dropout: Share
    pinball_weight: NotNegative
    valid_stride: Count
    short_minutes: Annotated[int, Field(ge=0)]
    short_weight: Share

    def __post_init__(self) -> None:
        for name in ("ridge_penalties", "skip_penalties"):
            penalties = getattr(self, name)
            if list(penalties) != sorted(penalties):
                raise ValueError(f"{name}={list(penalties)} must ascend")


@dataclass(frozen=True)
class Base:
    """A trained base model, which turns contexts into forecasts.

    Attributes:
        assembler: the preprocessing.
        forecaster: the network.
        exported: the network in another form, if the base was exported; adapters need `forecaster`.
        digest: sha256 of the network's file, which adapters record; empty before the base is saved; of the population
            ridge where the network is not read.
        whole: whether the network has its weights; without them only the population ridge of the assembler answers.
    """

    assembler: Assembler
    forecaster: Forecaster
    digest: str = ""
    exported: Exported | None = None
    whole: bool = True

    @property
    def network(self) -> nn.Module:
        """The network that answers where no adapter is used."""
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
            history: past of the subjects in the batch.
            rows: (B,) row of each window in `history`, -1 for a newcomer.

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
    """Convert the arrays of a batch to tensors."""
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in batch.items()}


def make_forecaster(body: BackboneConfig, shape: Shape, forecast: ForecastConfig) -> Forecaster:
    """Make an untrained forecaster."""
    return Forecaster(
        body.build(shape),
        shape,
        body.lora_targets,
        forecast.history_dropout,
        forecast.adapter_dropout,
        forecast.pinball_weight,
    )


def save_base(base: Base, directory: Path, body: BackboneConfig, forecast: ForecastConfig) -> None:
    """Write a base with the configuration that its network is built from."""
    directory.mkdir(parents=True, exist_ok=True)
    assembler = base.assembler
    save_file({"weights": assembler.weights, "intercept": assembler.intercept}, str(directory / "ridge.safetensors"))
    state = {name: tensor.contiguous() for name, tensor in base.forecaster.state_dict().items()}
    save_torch(state, str(directory / WEIGHTS))
    spec = {"body": body, "forecast": forecast, "shape": base.forecaster.shape}
    spec |= {"grid": assembler.grid, "scale": assembler.scale, "history": assembler.history}
    write_json(directory / "spec.json", dump(spec))


def load_base(directory: Path, with_network: bool = True) -> Base:
    """Load a base written by `save_base`; verifying the files is up to the owner of the manifest.

    Args:
        directory: of the base.
        with_network: whether the network's weights are read.

    Raises:
        BundleError: a file is missing or cannot be read.
    """
    with as_bundle_error(directory, "run `dvc repro train` again"):
        return _load(directory, with_network)


def _load(directory: Path, with_network: bool) -> Base:
    spec = build(read_json(directory / "spec.json"))
    arrays = load_file(str(directory / "ridge.safetensors"))
    assembler = Assembler(spec["grid"], spec["scale"], spec["history"], arrays["weights"], arrays["intercept"])
    model = make_forecaster(spec["body"], spec["shape"], spec["forecast"])
    if not with_network:
        return Base(assembler, model.eval(), assembler.digest, whole=False)
    model.load_state_dict(load_torch(str(directory / WEIGHTS)))
    exported = Exported(directory) if (directory / NETWORK).is_file() else None
    return Base(assembler, model.eval(), sha256(directory / WEIGHTS), exported)


def export_base(base: Base, example: dict[str, Tensor], directory: Path, form: Onnx) -> None:
    """Write the network of a base into its directory in another form; `example` is any batch of more than one row."""
    outputs = ("mean", "quantiles")
    export(_Outputs(base.forecaster), example, dict.fromkeys(example, ("rows",)), outputs, directory, form)


class _Outputs(nn.Module):
    """A forecaster that returns its outputs as a tuple, because exporters need one."""

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
