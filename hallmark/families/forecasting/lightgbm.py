"""LightGBM baseline (extra `bench`): one regressor per reported horizon, on recent or all features.

Legend of shapes: B windows, F inputs, H horizons, M horizons with a regressor.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hallmark.arrays import Array, Integers
from hallmark.errors import ConfigError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.inputs import window_columns
from hallmark.families.forecasting.splits import SplitPanel

MOST_ROWS = 150_000
RECENT = ("lags", "quarters", "summaries")  # blocks of `window_inputs` that rest on the recent window alone
TREES: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_child_samples": 100,
    "subsample": 0.7,
    "subsample_freq": 1,
    "colsample_bytree": 0.4,
    "reg_lambda": 5.0,
    "n_estimators": 800,
    "n_jobs": 1,
    "verbose": -1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
}


class ForecastTrees:
    """Gradient-boosted trees, one regressor per horizon.

    Args:
        assembler: makes their inputs.
        horizons_minutes: (M,) to forecast.
        every_input: fit the residual of population and online ridge on all inputs; otherwise the change from the last
            reading on the inputs of the recent window.
    """

    def __init__(self, assembler: Assembler, horizons_minutes: Sequence[int], every_input: bool) -> None:
        self.assembler, self.every_input = assembler, every_input
        self.horizon_indices = [assembler.grid.index_of(m) for m in horizons_minutes]
        self.models: list[Any] = []

    def fit(
        self,
        split_panel: SplitPanel,
        history: History,
        train: Integers,
        valid: Integers,
        progress: Callable[[int], None] = lambda fitted: None,
    ) -> "ForecastTrees":
        """Fit on train origins, stopping early on valid ones; `progress` is called with the number of horizons done.

        Raises:
            ConfigError: LightGBM is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise ConfigError("evaluate.evaluator.trees needs LightGBM: install the extra `bench`") from error
        sample = train[:: max(1, len(train) // MOST_ROWS)]
        x, base = self._inputs(split_panel, history, sample)
        xv, base_v = self._inputs(split_panel, history, valid)
        y = split_panel.target(sample, "train")[:, self.horizon_indices] - base
        yv = split_panel.target(valid, "valid")[:, self.horizon_indices] - base_v
        for i in range(len(self.horizon_indices)):
            keep, keep_v = np.isfinite(y[:, i]), np.isfinite(yv[:, i])
            progress(i)
            model = lightgbm.LGBMRegressor(**TREES)
            model.fit(
                x[keep],
                y[keep, i],
                eval_X=xv[keep_v],
                eval_y=yv[keep_v, i],
                callbacks=[lightgbm.early_stopping(50, verbose=False)],
            )
            self.models.append(model)
        return self

    def forecast(self, split_panel: SplitPanel, origins: Integers, history: History) -> Array:
        """Forecast some origins: (B, H), NaN at horizons without a regressor."""
        x, base = self._inputs(split_panel, history, origins)
        out = np.full((len(origins), len(self.assembler.grid.steps)), np.nan, dtype=np.float32)
        for i, (place, model) in enumerate(zip(self.horizon_indices, self.models, strict=True)):
            out[:, place] = base[:, i] + model.predict(x)
        return out

    def _inputs(self, split_panel: SplitPanel, history: History, origins: Integers) -> tuple[Array, Array]:
        """Compute the inputs (B, F) and the values that the trees' outputs are added to (B, M)."""
        panel, x, base = split_panel.panel, [], []
        for chunk in np.array_split(origins, max(1, len(origins) // 4096)):
            rows = history.rows(panel.subject[chunk], panel.day[chunk])
            batch = self.assembler.batch(panel.context(chunk), panel.minute[chunk].astype(np.int64), history, rows)
            if self.every_input:
                x.append(batch["x"])
                base.append((batch["anchor"] + batch["correction"])[:, self.horizon_indices])
            else:
                columns = window_columns(self.assembler.grid)
                x.append(np.concatenate([batch["x"][:, columns[name]] for name in RECENT], axis=1))
                base.append(np.repeat(panel.values[chunk][:, None], len(self.horizon_indices), axis=1))
        return np.concatenate(x), np.concatenate(base)
