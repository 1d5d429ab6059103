"""ForecastEvaluation: all models on the same test windows, metrics per subject; tasks may extend it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from hallmark.arrays import Array, Floats, Integers
from hallmark.build import Count, Tuple, configuration
from hallmark.contracts import CHAMPION, OURS, Evaluation, Metric, Prepared, Progress, ReportLayout
from hallmark.families.forecasting.base_model import Base, load_base
from hallmark.families.forecasting.baselines import NAMES, Baselines, fit_baselines
from hallmark.families.forecasting.importance import block_importance
from hallmark.families.forecasting.learner import ForecastLearner
from hallmark.families.forecasting.lightgbm import ForecastTrees
from hallmark.families.forecasting.panel import TimeGrid, ValueScale
from hallmark.families.forecasting.plots import draw_evaluation
from hallmark.families.forecasting.predictor import ForecastPredictor
from hallmark.families.forecasting.scores import Row, forecast_metrics, score_points, score_quantiles
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitPanel
from hallmark.families.forecasting.task import ForecastTask
from hallmark.judge.bootstrap import SCORE_COLUMNS, summarise
from hallmark.judge.pictures import draw_changes
from hallmark.judge.report import training_notes
from hallmark.learn.parallel import map_parallel
from hallmark.learn.trainer import seed_everything

SAMPLED_WINDOWS = 3000  # test windows for the permutation importance
TIMES = ("night", "morning", "afternoon", "evening")


@configuration
class ForecastEvaluation:
    """Settings of the evaluation. A task with metrics of its own extends `further`, `score_further` and `draw_further`.

    Attributes:
        horizons_minutes: single horizons in the tables.
        path_minutes: every step up to here is pooled as the path.
        stride: grid points between two test windows.
        min_examples: a subject's score from fewer test windows is left out of every mean.
        trees: also fit LightGBM (extra `bench`), one model per horizon: on the recent window, and on every input.
        seed: of the bootstrap.
        n_jobs: number of processes that share the subjects, on CPUs; the result is the same, bit by bit.
    """

    evaluates: ClassVar[tuple[type, type]] = (ForecastTask, ForecastLearner)
    groups: ClassVar[tuple[str, ...]] = ()
    """Columns of the subject table that define segments of the scores."""

    horizons_minutes: Annotated[Tuple[Count], Field(min_length=1)]
    path_minutes: Count
    stride: Count
    min_examples: Count
    trees: bool
    seed: int
    n_jobs: Count

    @property
    def main_horizon(self) -> int:
        """Minutes of the horizon that the headline and the plots show: the second one, or the only one."""
        return self.horizons_minutes[:2][-1]

    @property
    def layout(self) -> ReportLayout:
        """Order of the tables: errors on held-out subjects, on seen subjects, coverage and width of intervals."""
        errors = tuple((name, group) for group in (HELD_OUT, SEEN) for name in ("rmse", "mae", "r2", "pinball"))
        intervals = tuple((name, "all") for name in ("coverage_50", "coverage_80", "coverage_90", "width_90"))
        columns, main = tuple(str(m) for m in self.horizons_minutes), str(self.main_horizon)
        others = tuple(("rmse", column, HELD_OUT) for column in columns if column != main)[:3]
        headline = (("rmse", main, HELD_OUT), *others, ("pinball", main, HELD_OUT), ("coverage_90", main, "all"))
        return ReportLayout(columns, "min", headline, (*errors, *intervals, *self.further_tables), "subjects")

    @property
    def further_tables(self) -> tuple[tuple[str, str], ...]:
        """(metric, segment) pairs of `further` that the report shows as tables of their own."""
        return ()

    @property
    def segmentations(self) -> Sequence[str]:
        """Groups of subjects, their sensors' interval, range of the last reading, time of day."""
        return (*self.groups, "sensor", "range", "time")

    def metrics(self, task: ForecastTask, learner: ForecastLearner) -> Mapping[str, Metric]:
        """Return every reported metric by name; raise ValueError for a horizon that the grid does not have."""
        for minutes in self.horizons_minutes:
            task.grid.index_of(minutes)
        return forecast_metrics(task.unit, learner.forecast.quantile_levels) | dict(self.further)

    @property
    def further(self) -> Mapping[str, Metric]:
        """Metrics beyond the shared ones."""
        return {}

    def score_further(
        self, grid: TimeGrid, levels: tuple[float, ...], mean: Floats, quantiles: Floats | None, target: Floats
    ) -> list[Row]:
        """Score `further` on one subject's windows.

        Args:
            grid: of the task.
            levels: (Q,) of the quantiles.
            mean: (B, H) of one model.
            quantiles: (B, H, Q) of the same model, if it has any.
            target: (B, H), NaN where unknown.
        """
        return []

    def summarise_further(self, scores: pd.DataFrame) -> Sequence[pd.DataFrame]:
        """Compute further rows of the summary from the scores of all subjects; see `Evaluation`."""
        return ()

    def collect_further(self, grid: TimeGrid, mean: Floats, target: Floats) -> Array:
        """Compute what `draw_further` needs from one subject's windows, (B, H) each: (N, K)."""
        return np.empty((0, 0))

    def draw_further(self, task: Any, out: Path, kept: Array) -> dict[str, str]:
        """Plot the values of `collect_further`, those of all subjects together; returns file names with captions."""
        return {}

    def evaluate(
        self,
        task: ForecastTask,
        learner: ForecastLearner,
        prepared: Prepared,
        model: Path,
        champion: Path | None,
        out: Path,
        progress: Progress,
    ) -> Evaluation:
        """Score all models on the test split; see `Evaluator.evaluate`."""
        seed_everything(self.seed, 1)
        split_panel = task.split_panel(prepared)
        predictor = learner.open_for_test(task, model, split_panel)
        origins = split_panel.origins("test")[:: self.stride]
        others: dict[str, Base] = {p.name: load_base(p) for p in sorted((model / "candidates").glob("*")) if p.is_dir()}
        released = learner.open_for_test(task, champion, split_panel) if champion is not None else None
        train, valid = learner.origins_to_fit(split_panel)
        baselines = fit_baselines(split_panel, train, valid, task.scale, learner.forecast.ridge_penalties)
        trees = self._trees(learner, split_panel, predictor, progress) if self.trees else {}
        groups = _groups(prepared, split_panel, self.groups)
        rows: list[tuple[Any, ...]] = []
        shown: list[dict[str, Any]] = []
        kept: list[Array] = []
        residuals: list[Array] = []
        codes = [int(code) for code in np.unique(split_panel.panel.subject[origins])]

        def scored(code: int) -> dict[str, Any]:
            origins_of_subject = origins[split_panel.panel.subject[origins] == code]
            subject_id = split_panel.panel.subjects[code]
            return _score_subject(
                self, task, split_panel, predictor, others, released, baselines, trees, subject_id, origins_of_subject
            )

        results = map_parallel(codes, scored, self.n_jobs, lambda done, total: progress("evaluate", done, total, ""))
        for code, result in zip(codes, results, strict=True):
            subject_id = split_panel.panel.subjects[code]
            segments = ["all", HELD_OUT if split_panel.held_out[code] else SEEN, *groups.get(subject_id, [])]
            for name, metric, horizon, value, windows in result["scores"]:
                rows += [(subject_id, name, metric, horizon, segment, value, windows) for segment in segments]
            rows += [(subject_id, OURS, *score[:2], segment, *score[2:]) for segment, score in result["segmented"]]
            if len(shown) < 3 and split_panel.held_out[code]:
                shown.append({**result["fan"], "title": subject_id})
            kept.append(result["kept"])
            residuals.append(result["residuals"])
        progress("evaluate", len(codes), len(codes), "")
        scores, left_out = self._enough(pd.DataFrame(rows, columns=SCORE_COLUMNS))
        summary = pd.concat([summarise(scores, self.seed), *self.summarise_further(scores)], ignore_index=True)
        pictures = draw_evaluation(
            self.horizons_minutes,
            self.main_horizon,
            task,
            predictor.levels,
            out,
            scores,
            summary,
            shown,
            np.concatenate(residuals),
        )
        importance = self._importance(task, predictor, split_panel, origins)
        draw_changes(out / "importance.png", importance, f"rise of RMSE at {self.main_horizon} min, {task.unit}")
        pictures["importance.png"] = (
            "Permutation importance of the blocks of inputs, on a sample of the test windows, without LoRA"
        )
        pictures |= self.draw_further(task, out, np.concatenate(kept))
        notes = {
            **training_notes(model),
            "test": f"{len(origins):,} windows of {len(kept)} subjects",
            "left out": left_out or "none",
            "interpolated share of input readings": f"{split_panel.panel.interpolated_share:.2%}",
            "what every model is given": self.given(split_panel.panel.grid),
        }
        timings = _timings(split_panel, predictor, origins)
        return Evaluation(scores, summary, (*NAMES, *trees), pictures, notes, timings, left_out)

    def _importance(
        self, task: ForecastTask, predictor: ForecastPredictor, split_panel: SplitPanel, origins: Integers
    ) -> dict[str, float]:
        """Shuffle one block of inputs at a time among a sample of the test windows."""
        panel, history = split_panel.panel, predictor.histories.history
        sample = origins[:: max(1, len(origins) // SAMPLED_WINDOWS)]
        rows = history.rows(panel.subject[sample], panel.day[sample])
        minute = panel.minute[sample].astype(np.int64)
        batch = predictor.base.assembler.batch(panel.context(sample), minute, history, rows)
        target, place = split_panel.target(sample, "test"), task.grid.index_of(self.main_horizon)
        return block_importance(predictor.base, batch, target, place, self.seed)

    def given(self, grid: TimeGrid) -> dict[str, str]:
        """Describe the inputs of every model."""
        recent, context = (
            f"the last {length * grid.step_minutes / 60:g} h" for length in (grid.recent_length, grid.context_length)
        )
        return {
            "persistence": "the last reading",
            "damped_linear": f"the last reading and its slope over {3 * grid.step_minutes} minutes",
            "profile": "the subject's own last days, mean by time of day",
            "ridge": recent,
            "no_personal": f"{context} and the clock (this model without personal inputs)",
            "hallmark": f"{context}, the clock, the subject's own past up to the last midnight",
            "lightgbm_12h": recent,
            "lightgbm_all": "every input of hallmark",
            "other candidates": "the same inputs as hallmark, without adapters and calibration",
        }

    def _enough(self, scores: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Keep the scores of enough windows; name the horizons and subjects whose RMSE is left out."""
        few = scores["n_examples"] < self.min_examples
        errors = scores[few & (scores["metric"] == "rmse") & (scores["segment"] == "all") & (scores["model"] == OURS)]
        names = [
            f"@{horizon}: {', '.join(sorted(rows['subject_id']))}"
            for horizon, rows in errors.groupby("horizon_or_split", sort=True)
        ]
        cause = f"fewer than {self.min_examples} test windows (evaluate.evaluator.min_examples) " if names else ""
        return scores[~few], cause + "; ".join(names)

    def _trees(
        self, learner: ForecastLearner, split_panel: SplitPanel, predictor: ForecastPredictor, progress: Progress
    ) -> dict[str, ForecastTrees]:
        """Fit the trees, one model per reported horizon."""
        train, valid = learner.origins_to_fit(split_panel)
        assembler, history = predictor.base.assembler, predictor.histories.history
        models = {}
        for name, every_input in (("lightgbm_12h", False), ("lightgbm_all", True)):

            def report(fitted: int, name: str = name) -> None:
                progress(f"fit {name}", fitted, len(self.horizons_minutes), "")

            trees = ForecastTrees(assembler, self.horizons_minutes, every_input)
            models[name] = trees.fit(split_panel, history, train, valid, report)
            report(len(self.horizons_minutes))
        return models


def _score_subject(
    config: ForecastEvaluation,
    task: ForecastTask,
    split_panel: SplitPanel,
    predictor: ForecastPredictor,
    others: Mapping[str, Base],
    champion: ForecastPredictor | None,
    baselines: Baselines,
    trees: Mapping[str, ForecastTrees],
    subject_id: str,
    origins: Integers,
) -> dict[str, Any]:
    """Score one subject's test windows."""
    panel, grid, levels = split_panel.panel, task.grid, predictor.levels
    context, minute = panel.context(origins), panel.minute[origins].astype(np.int64)
    target = split_panel.target(origins, "test")
    history = predictor.histories.history
    mean, quantiles = predictor.forecast(subject_id, context, minute)
    points: dict[str, Floats] = {OURS: mean}
    spread: dict[str, Floats] = {OURS: quantiles}
    newcomer = -np.ones(len(origins), dtype=np.int64)
    points["no_personal"], spread["no_personal"] = predictor.base.forecast(context, minute, None, newcomer)
    rows = history.rows(panel.subject[origins], panel.day[origins])
    for name, base in others.items():
        # Every base has its own population ridge, but candidates of one run share it, and so the history.
        points[name], spread[name] = base.forecast(context, minute, history, rows)
    if champion is not None:
        points[CHAMPION], spread[CHAMPION] = champion.forecast(subject_id, context, minute)
    points |= baselines.forecast(split_panel, origins, history, task.scale)
    points |= {name: model.forecast(split_panel, origins, history) for name, model in trees.items()}
    scores: list[tuple[str, str, str, float, int]] = []
    for name, forecast in points.items():
        scored: list[Row] = score_points(forecast, target, grid, config.horizons_minutes, config.path_minutes)
        if name in spread:
            scored += score_quantiles(spread[name], target, levels, grid, config.horizons_minutes)
        scored += config.score_further(grid, levels, forecast, spread.get(name), target)
        scores += [(name, *score) for score in scored]
    segmented = []
    for segment, inside in _window_segments(context[:, -1], minute, task.scale).items():
        if inside.sum() >= 30:
            for score in score_points(mean[inside], target[inside], grid, config.horizons_minutes, config.path_minutes):
                segmented.append((segment, score))
    middle = len(origins) // 2
    fan = {
        "past": context[middle, -grid.recent_length :],
        "target": target[middle],
        "mean": mean[middle],
        "quantiles": quantiles[middle],
        "step_minutes": grid.step_minutes,
    }
    main = grid.index_of(config.main_horizon)
    residuals = np.stack([mean[:, main], target[:, main] - mean[:, main]], axis=1)[::8]
    kept = config.collect_further(grid, mean, target)
    return {"scores": scores, "segmented": segmented, "fan": fan, "residuals": residuals, "kept": kept}


def _window_segments(last: Array, minute: Array, scale: ValueScale) -> dict[str, Array]:
    """Select the windows of each segment: range of the last reading, time of day."""
    segments = {
        "range:low": last < scale.low,
        "range:in": (last >= scale.low) & (last <= scale.high),
        "range:high": last > scale.high,
    }
    quarter = (minute % 1440) // 360
    return segments | {f"time:{name}": quarter == i for i, name in enumerate(TIMES)}


def _groups(prepared: Prepared, split_panel: SplitPanel, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return the segments of every subject, from the subject table and the interval of the sensor."""
    panel = split_panel.panel
    segments = {
        subject_id: [f"sensor:{minutes:g} min"]
        for subject_id, minutes in zip(panel.subjects, panel.interval_minutes, strict=True)
    }
    for row in prepared.subjects.to_dict("records"):
        labels = [f"{c}:{row[c]}" for c in columns if c in row and not pd.isna(row[c])]
        segments[str(row["subject_id"])] += labels
    return segments


def _timings(split_panel: SplitPanel, predictor: ForecastPredictor, origins: Integers) -> list[float]:
    """Measure how long forecasts of single windows take, in milliseconds."""
    chosen = origins[:: max(1, len(origins) // 50)][:50]
    times = []
    for origin in chosen:
        window = np.asarray([origin])
        context, minute = split_panel.panel.context(window), split_panel.panel.minute[window].astype(np.int64)
        subject_id = split_panel.panel.subjects[int(split_panel.panel.subject[origin])]
        for _ in range(2):  # the first call may load the subject's adapter
            start = time.perf_counter()
            predictor.forecast(subject_id, context, minute)
            taken = (time.perf_counter() - start) * 1000
        times.append(taken)
    return times
