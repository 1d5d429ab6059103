"""LightGBM baseline (extra `bench`): one regressor per reported horizon, on recent or all features.

Legend of shapes: B windows, H horizons, M marks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hallmark.arrays import Array, Integers
from hallmark.errors import ConfigError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.inputs import window_columns
from hallmark.families.forecasting.splits import Parts

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


class Trees:
    """Boosted trees at some marks.

    Args:
        assembler: whose inputs they see.
        marks: horizons, minutes.
        every_input: all of our inputs, on the residual of population and online ridge; otherwise the recent window.
    """

    def __init__(self, assembler: Assembler, marks: Sequence[int], every_input: bool) -> None:
        self.assembler, self.every_input = assembler, every_input
        self.places = [assembler.grid.index_of(m) for m in marks]
        self.models: list[Any] = []

    def fit(
        self,
        parts: Parts,
        history: History,
        train: Integers,
        valid: Integers,
        progress: Callable[[int], None] = lambda fitted: None,
    ) -> "Trees":
        """Fit on train origins, stopping early on valid ones; `progress` is called with how many horizons are done.

        Raises:
            ConfigError: LightGBM is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise ConfigError("evaluate.evaluator.trees needs LightGBM: install the extra `bench`") from error
        sample = train[:: max(1, len(train) // MOST_ROWS)]
        x, base = self._inputs(parts, history, sample)
        xv, base_v = self._inputs(parts, history, valid)
        y = parts.target(sample, "train")[:, self.places] - base
        yv = parts.target(valid, "valid")[:, self.places] - base_v
        for i in range(len(self.places)):
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

    def forecast(self, parts: Parts, origins: Integers, history: History) -> Array:
        """Forecast some origins: (B, H), NaN but at the marks."""
        x, base = self._inputs(parts, history, origins)
        out = np.full((len(origins), len(self.assembler.grid.steps)), np.nan, dtype=np.float32)
        for i, (place, model) in enumerate(zip(self.places, self.models, strict=True)):
            out[:, place] = base[:, i] + model.predict(x)
        return out

    def _inputs(self, parts: Parts, history: History, origins: Integers) -> tuple[Array, Array]:
        """Inputs (B, F) and what the trees add to (B, M)."""
        panel, x, base = parts.panel, [], []
        for part in np.array_split(origins, max(1, len(origins) // 4096)):
            rows = history.rows(panel.subject[part], panel.day[part])
            batch = self.assembler.batch(panel.context(part), panel.minute[part].astype(np.int64), history, rows)
            if self.every_input:
                x.append(batch["x"])
                base.append((batch["anchor"] + batch["correction"])[:, self.places])
            else:
                columns = window_columns(self.assembler.grid)
                x.append(np.concatenate([batch["x"][:, columns[name]] for name in RECENT], axis=1))
                base.append(np.repeat(panel.values[part][:, None], len(self.places), axis=1))
        return np.concatenate(x), np.concatenate(base)
