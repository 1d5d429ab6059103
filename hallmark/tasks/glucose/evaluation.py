"""Evaluate glucose forecasts: the family's metrics, hypo- and hyperglycaemia, clinical error grids."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hallmark.arrays import Array, Floats
from hallmark.build import configuration
from hallmark.contracts import Metric
from hallmark.families.forecasting.evaluation import ForecastEvaluation
from hallmark.families.forecasting.learner import ForecastLearner
from hallmark.families.forecasting.panel import TimeGrid
from hallmark.families.forecasting.scores import Row, score_events
from hallmark.families.forecasting.task import ForecastTask
from hallmark.judge.bootstrap import group_differences
from hallmark.judge.pictures import draw_grid
from hallmark.tasks.glucose.cleaning import GROUPS
from hallmark.tasks.glucose.error_grids import ZONES, clarke_zone, parkes_zone
from hallmark.tasks.glucose.task import GlucoseTask

HYPO_MG_DL, HYPER_MG_DL = 70.0, 180.0
OPPORTUNITY = {event: f"equal_opportunity_{event}" for event in ("hypo", "hyper")}
"""Event → metric: the largest difference of its recall between two groups."""
CLINICAL = (
    *(f"{event}_{kind}" for event in ("hypo", "hyper") for kind in ("recall", "precision")),
    *(f"{grid}_{zones}" for grid in ("clarke", "parkes") for zones in ("a", "ab")),
)


@configuration
class GlucoseEvaluation(ForecastEvaluation):
    """Evaluates with the metrics of the forecasting family and with clinical metrics.

    Attributes:
        event_minutes: horizon of the hypo and hyper metrics and of the error grids, minutes.
    """

    evaluates = (GlucoseTask, ForecastLearner)
    groups = GROUPS

    event_minutes: int

    def metrics(self, task: ForecastTask, learner: ForecastLearner) -> Mapping[str, Metric]:
        """Return every metric, by name; raises ValueError for a horizon that the grid does not have."""
        task.grid.index_of(self.event_minutes)
        return super().metrics(task, learner)

    @property
    def further(self) -> Mapping[str, Metric]:
        """Return recall and precision of events, and shares of the error grids' zones."""
        clinical = {name: Metric(name, "", "higher") for name in CLINICAL}
        return {**clinical, **{name: Metric(name, "", "lower") for name in OPPORTUNITY.values()}}

    @property
    def further_tables(self) -> tuple[tuple[str, str], ...]:
        """Return the tables of equal opportunity, one per column of groups."""
        return tuple((name, group) for name in OPPORTUNITY.values() for group in self.groups)

    def summarise_further(self, scores: pd.DataFrame) -> Sequence[pd.DataFrame]:
        """Compare groups by the recall of hypo- and hyperglycaemia; see `ForecastEvaluation.summarise_further`."""
        differences = (
            group_differences(scores, f"{event}_recall", str(self.event_minutes), self.groups, name, self.seed)
            for event, name in OPPORTUNITY.items()
        )
        return [rows for rows in differences if not rows.empty]

    def score_further(
        self, grid: TimeGrid, levels: tuple[float, ...], mean: Floats, quantiles: Floats | None, target: Floats
    ) -> list[Row]:
        """Score error grids and events at the event horizon; see `ForecastEvaluation.score_further`.

        An event is predicted when the 10% (90%) quantile crosses the bound; without quantiles, when the mean does.
        """
        horizon = self.event_minutes
        i = grid.index_of(horizon)
        known = ~np.isnan(target[:, i])
        if not known.any():
            return []
        reference, predicted = target[known, i].astype(np.float64), np.maximum(mean[known, i], 0).astype(np.float64)
        rows: list[Row] = []
        for name, zones in (("clarke", clarke_zone), ("parkes", parkes_zone)):
            zone = zones(reference, predicted)
            rows.append((f"{name}_a", str(horizon), float((zone == 0).mean()), len(zone)))
            rows.append((f"{name}_ab", str(horizon), float((zone <= 1).mean()), len(zone)))
        low = mean[:, i] if quantiles is None or 0.1 not in levels else quantiles[:, i, levels.index(0.1)]
        high = mean[:, i] if quantiles is None or 0.9 not in levels else quantiles[:, i, levels.index(0.9)]
        predicted_events = {"hypo": low < HYPO_MG_DL, "hyper": high > HYPER_MG_DL}
        observed_events = {"hypo": target[:, i] < HYPO_MG_DL, "hyper": target[:, i] > HYPER_MG_DL}
        return rows + score_events(predicted_events, observed_events, known, str(horizon))

    def collect_further(self, grid: TimeGrid, mean: Floats, target: Floats) -> Array:
        """Keep every fourth pair of reading and forecast at the event horizon, (N, 2)."""
        i = grid.index_of(self.event_minutes)
        known = ~np.isnan(target[:, i])
        return np.stack([target[known, i], mean[known, i]], axis=1)[::4]

    def draw_further(self, task: GlucoseTask, out: Path, kept: Array) -> dict[str, str]:
        """Draw the error grids; see `ForecastEvaluation.draw_further`."""
        reference, predicted = kept[:, 0].astype(float), np.maximum(kept[:, 1], 0).astype(float)
        captions = {}
        for name, zones in (("clarke", clarke_zone), ("parkes", parkes_zone)):
            zone = zones(reference, predicted)
            share = ", ".join(f"{z} {np.mean(zone == j):.1%}" for j, z in enumerate(ZONES))
            title = f"{name.title()} grid @{self.event_minutes} min"
            draw_grid(out / f"{name}.png", reference, predicted, zone, title, task.unit)
            captions[f"{name}.png"] = f"{title}: {share}"
        return captions
