"""Permutation importance of the blocks of a forecaster's inputs.

Legend of shapes: B windows, F inputs, P window inputs, H horizons.
Source: Breiman 2001, "Random Forests".
"""

import numpy as np
import torch

from hallmark.arrays import Array, Floats
from hallmark.families.forecasting.base_model import Base, as_tensors
from hallmark.families.forecasting.inputs import window_columns


def block_importance(base: Base, batch: dict[str, Array], target: Floats, horizon: int, seed: int) -> dict[str, float]:
    """Measure by how much the RMSE at one horizon rises when a block of inputs is shuffled among the windows.

    A block of the window is shuffled for the population ridge and for the network, `own past` and `online ridge` for
    the network and for the correction that is added to its forecast.

    Args:
        base: the model, without LoRA adapters.
        batch: some test windows, as `Assembler.batch` returns them.
        target: (B, H) in the value's unit, NaN where unknown.
        horizon: position among the horizons.
        seed: of the permutation, the same for every block.

    Returns:
        Block → rise of the RMSE in the value's unit, the largest first.
    """
    assembler, order = base.assembler, np.random.default_rng(seed).permutation(len(target))
    known = ~np.isnan(target[:, horizon])

    @torch.no_grad()
    def rmse(changed: dict[str, Array]) -> float:
        mean = base.network(**as_tensors(changed))["mean"].numpy()
        error = mean[known, horizon].astype(np.float64) - target[known, horizon]
        return float(np.sqrt(np.mean(error**2)))

    width, personal, adapter = len(assembler.weights), assembler.personal_size, assembler.adapter_size
    x = batch["x"]
    size = x.shape[1]
    whole, rises = rmse(batch), {}
    ridge, hints = assembler.population(x[:, :width]), slice(width, size - personal)
    places = assembler.history.ridge.input_horizons(assembler.grid)

    def with_shuffled(columns: slice) -> Array:
        shuffled = x.copy()
        shuffled[:, columns] = x[order, columns]
        return shuffled

    for name, columns in window_columns(assembler.grid).items():
        shuffled = with_shuffled(columns)
        change = assembler.population(shuffled[:, :width]) - ridge
        shuffled[:, hints] = x[:, hints] + change[:, places] / assembler.scale.spread
        moved = {"x": shuffled, "anchor": batch["anchor"] + change, "habit": batch["habit"] - change}
        rises[name] = rmse({**batch, **moved}) - whole
    for name, columns, also in (
        ("own past", slice(size - personal, size - adapter), "habit"),
        ("online ridge", slice(size - adapter, size), "correction"),
    ):
        rises[name] = rmse({**batch, "x": with_shuffled(columns), also: batch[also][order]}) - whole
    return dict(sorted(rises.items(), key=lambda rise: -rise[1]))
