"""ForecastEvaluation: all models on the same test windows, metrics per subject; tasks may extend it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hallmark.arrays import Array, Floats, Integers
from hallmark.contracts import Evaluation, Metric, Prepared, Progress, Shown
from hallmark.families.forecasting.base_forecaster import Base, load_base
from hallmark.families.forecasting.baselines import Baselines, fit_baselines
from hallmark.families.forecasting.learner import ForecastLearner
from hallmark.families.forecasting.lightgbm import Trees
from hallmark.families.forecasting.panel import Grid, Scale
from hallmark.families.forecasting.predictor import ForecastPredictor
from hallmark.families.forecasting.scores import Row, forecast_metrics, score_points, score_quantiles
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, Parts
from hallmark.families.forecasting.task import ForecastTask, pairs
from hallmark.judge.bootstrap import summarise
from hallmark.judge.gates import CHAMPION, OURS
from hallmark.judge.pictures import draw_calibration, draw_errors, draw_fans, draw_gains
from hallmark.judge.report import training_notes
from hallmark.learn.side_by_side import shared_out
from hallmark.learn.trainer import seed_everything

TIMES = ("night", "morning", "afternoon", "evening")


@dataclass(frozen=True)
class ForecastEvaluation:
    """What is measured. A task with figures of its own extends `further`, `score_further` and `draw_further`.

    Attributes:
        horizons_minutes: single horizons in the tables.
        path_minutes: every step up to here is pooled as the path.
        stride: grid points between two test windows.
        minimum_examples: a person's figure that rests on fewer test windows is left out of every mean.
        trees: also fit LightGBM (extra `bench`), one model a horizon: on the recent window, and on every input.
        seed: of the bootstrap.
        side_by_side: processes that share the people, on CPUs: the same bytes.
    """

    evaluates: ClassVar[tuple[type, type]] = (ForecastTask, ForecastLearner)
    groups: ClassVar[tuple[str, ...]] = ()
    """Columns of the subject table by which figures are cut."""

    horizons_minutes: tuple[int, ...]
    path_minutes: int
    stride: int
    minimum_examples: int
    trees: bool
    seed: int
    side_by_side: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizons_minutes", tuple(self.horizons_minutes))
        for name in ("minimum_examples", "side_by_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def shown(self) -> Shown:
        """Errors on people never seen first, then on the others, then how the intervals hold."""
        errors = tuple((name, who) for who in (HELD_OUT, SEEN) for name in ("rmse", "mae", "pinball"))
        kinds = ("coverage_50", "coverage_80", "coverage_90", "width_90")
        headline = (("rmse", HELD_OUT), ("pinball", HELD_OUT), ("coverage_90", "all"))
        marks = tuple(str(m) for m in self.horizons_minutes)
        return Shown(marks, "min", headline, (*errors, *((name, "all") for name in kinds)), "people")

    @property
    def segmentations(self) -> Sequence[str]:
        """Groups of people, their sensors' interval, range of the last reading, time of day."""
        return (*self.groups, "sensor", "range", "time")

    def metrics(self, task: ForecastTask, learner: ForecastLearner) -> Mapping[str, Metric]:
        """Every metric that is reported, by name; ValueError for a horizon that the grid does not have."""
        for minutes in self.horizons_minutes:
            task.grid.index_of(minutes)
        return forecast_metrics(task.unit, learner.forecast.quantile_levels) | dict(self.further)

    @property
    def further(self) -> Mapping[str, Metric]:
        """Metrics beyond the shared ones."""
        return {}

    def score_further(
        self, grid: Grid, levels: tuple[float, ...], mean: Floats, quantiles: Floats | None, target: Floats
    ) -> list[Row]:
        """Score `further` on one subject's windows.

        Args:
            grid: of the task.
            levels: (Q,) of the quantiles.
            mean: (B, H) of one model.
            quantiles: (B, H, Q) of it, if it has any.
            target: (B, H), NaN where unknown.
        """
        return []

    def keep_further(self, grid: Grid, mean: Floats, target: Floats) -> Array:
        """Keep of one subject's windows, (B, H) each, what `draw_further` needs: (N, K)."""
        return np.empty((0, 0))

    def draw_further(self, task: Any, out: Path, kept: Array) -> dict[str, str]:
        """Draw pictures of what `keep_further` has kept of all subjects; returns file names with captions."""
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
        """Score everything on test; see `Evaluator.evaluate`."""
        seed_everything(self.seed, 1)
        parts = task.parts(prepared)
        predictor = learner.open_for_test(task, model, parts)
        origins = parts.origins("test")[:: self.stride]
        others: dict[str, Base] = {p.name: load_base(p) for p in sorted((model / "candidates").glob("*")) if p.is_dir()}
        released = learner.open_for_test(task, champion, parts) if champion is not None else None
        train, valid = learner.origins_to_fit(parts)
        baselines = fit_baselines(parts, train, valid, task.scale, learner.forecast.ridge_penalties)
        trees = self._trees(learner, parts, predictor, progress) if self.trees else {}
        groups = _groups(prepared, parts, self.groups)
        rows: list[tuple[Any, ...]] = []
        shown: list[dict[str, Any]] = []
        kept: list[Array] = []
        codes = [int(code) for code in np.unique(parts.panel.subject[origins])]

        def scored(code: int) -> dict[str, Any]:
            mine = origins[parts.panel.subject[origins] == code]
            who = parts.panel.subjects[code]
            return _person(self, task, parts, predictor, others, released, baselines, trees, who, mine)

        people = shared_out(codes, scored, self.side_by_side, lambda done, total: progress("evaluate", done, total, ""))
        for code, found in zip(codes, people, strict=True):
            subject_id = parts.panel.subjects[code]
            segments = ["all", HELD_OUT if parts.held_out[code] else SEEN, *groups.get(subject_id, [])]
            for name, metric, at, value, windows in found["scores"]:
                rows += [(subject_id, name, metric, at, segment, value, windows) for segment in segments]
            rows += [(subject_id, OURS, *score[:2], segment, *score[2:]) for segment, score in found["segmented"]]
            if len(shown) < 3 and parts.held_out[code]:
                shown.append({**found["fan"], "title": subject_id})
            kept.append(found["kept"])
        progress("evaluate", len(codes), len(codes), "")
        scores = pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "n_examples"])
        scores, left_out = self._enough(scores)
        summary = summarise(scores, self.seed)
        pictures = _draw(self, task, predictor.levels, out, scores, summary, shown)
        pictures |= self.draw_further(task, out, np.concatenate(kept))
        notes = {
            **training_notes(model),
            "test": f"{len(origins):,} windows of {len(kept)} people",
            "left out": left_out or "nobody",
            "interpolated share of input readings": f"{parts.panel.interpolated_share:.2%}",
            "what every model is given": self.given(parts.panel.grid),
        }
        timings = _timings(parts, predictor, origins)
        return Evaluation(scores, summary, pictures, notes, timings, left_out)

    def given(self, grid: Grid) -> dict[str, str]:
        """Say what every model is given."""
        recent, context = (
            f"the last {length * grid.step_minutes / 60:g} h" for length in (grid.recent_length, grid.context_length)
        )
        return {
            "persistence": "the last reading",
            "damped_linear": f"the last reading and its slope over {3 * grid.step_minutes} minutes",
            "profile": "the subject's own last days, mean by time of day",
            "ridge": recent,
            "no_personal": f"{context} and the clock (this model, personal inputs silenced)",
            "hallmark": f"{context}, the clock, the subject's own past up to the last midnight",
            "lightgbm_12h": recent,
            "lightgbm_all": "every input of hallmark",
            "other candidates": "the same inputs as hallmark, without adapters and calibration",
        }

    def _enough(self, scores: pd.DataFrame) -> tuple[pd.DataFrame, str]:
        """Keep the figures that rest on enough windows; say whose RMSE is not among them, and where."""
        few = scores["n_examples"] < self.minimum_examples
        errors = scores[few & (scores["metric"] == "rmse") & (scores["segment"] == "all") & (scores["model"] == OURS)]
        who = [f"@{at}: {', '.join(sorted(rows['subject_id']))}" for at, rows in errors.groupby("at", sort=True)]
        said = f"fewer than {self.minimum_examples} test windows (evaluate.evaluator.minimum_examples) " if who else ""
        return scores[~few], said + "; ".join(who)

    def _trees(
        self, learner: ForecastLearner, parts: Parts, predictor: ForecastPredictor, progress: Progress
    ) -> dict[str, Trees]:
        """Fit the trees, one model a horizon that is shown."""
        train, valid = learner.origins_to_fit(parts)
        assembler, history = predictor.base.assembler, predictor.pasts.history
        found = {}
        for name, every_input in (("lightgbm_12h", False), ("lightgbm_all", True)):

            def report(fitted: int, name: str = name) -> None:
                progress(f"fit {name}", fitted, len(self.horizons_minutes), "")

            trees = Trees(assembler, self.horizons_minutes, every_input)
            found[name] = trees.fit(parts, history, train, valid, report)
            report(len(self.horizons_minutes))
        return found


def _person(
    config: ForecastEvaluation,
    task: ForecastTask,
    parts: Parts,
    predictor: ForecastPredictor,
    others: Mapping[str, Base],
    champion: ForecastPredictor | None,
    baselines: Baselines,
    trees: Mapping[str, Trees],
    subject_id: str,
    origins: Integers,
) -> dict[str, Any]:
    """Score one person's test windows."""
    panel, grid, levels = parts.panel, task.grid, predictor.levels
    context, minute = panel.context(origins), panel.minute[origins].astype(np.int64)
    target = parts.target(origins, "test")
    history = predictor.pasts.history
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
    points |= baselines.forecast(parts, origins, history, task.scale)
    points |= {name: model.forecast(parts, origins, history) for name, model in trees.items()}
    found: list[tuple[str, str, str, float, int]] = []
    for name, forecast in points.items():
        scored: list[Row] = score_points(forecast, target, grid, config.horizons_minutes, config.path_minutes)
        if name in spread:
            scored += score_quantiles(spread[name], target, levels, grid, config.horizons_minutes)
        scored += config.score_further(grid, levels, forecast, spread.get(name), target)
        found += [(name, *score) for score in scored]
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
    return {"scores": found, "segmented": segmented, "fan": fan, "kept": config.keep_further(grid, mean, target)}


def _window_segments(last: Array, minute: Array, scale: Scale) -> dict[str, Array]:
    """Cut windows by range of the last reading and by time of day."""
    found = {
        "range:low": last < scale.low,
        "range:in": (last >= scale.low) & (last <= scale.high),
        "range:high": last > scale.high,
    }
    quarter = (minute % 1440) // 360
    return found | {f"time:{name}": quarter == i for i, name in enumerate(TIMES)}


def _groups(prepared: Prepared, parts: Parts, columns: Sequence[str]) -> dict[str, list[str]]:
    """Segments that every person belongs to, from the subject table and the interval of the sensor."""
    panel = parts.panel
    found = {who: [f"sensor:{m:g} min"] for who, m in zip(panel.subjects, panel.interval_minutes, strict=True)}
    for row in prepared.subjects.to_dict("records"):
        labels = [f"{c}:{row[c]}" for c in columns if c in row and not pd.isna(row[c])]
        found[str(row["subject_id"])] += labels
    return found


def _timings(parts: Parts, predictor: ForecastPredictor, origins: Integers) -> list[float]:
    """Time single forecasts, one window at a time, milliseconds."""
    chosen = origins[:: max(1, len(origins) // 50)][:50]
    times = []
    for origin in chosen:
        one = np.asarray([origin])
        context, minute = parts.panel.context(one), parts.panel.minute[one].astype(np.int64)
        subject_id = parts.panel.subjects[int(parts.panel.subject[origin])]
        for _ in range(2):  # the first call may load the person's adapter
            start = time.perf_counter()
            predictor.forecast(subject_id, context, minute)
            taken = (time.perf_counter() - start) * 1000
        times.append(taken)
    return times


def _draw(
    config: ForecastEvaluation,
    task: ForecastTask,
    levels: tuple[float, ...],
    out: Path,
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    fans: list[Any],
) -> dict[str, str]:
    marks = [str(m) for m in config.horizons_minutes]
    found = {}
    if fans:
        draw_fans(out / "fans.png", fans, task.grid.horizons_minutes, levels, task.unit)
        found["fans.png"] = f"Forecasts of held-out people ({len(fans)} of them) with their 50, 80 and 90% intervals"
    draw_errors(out / "errors.png", summary, marks, task.unit)
    found["errors.png"] = "RMSE on held-out people with 95% bootstrap intervals over people"
    ours = summary[(summary["model"] == OURS) & (summary["segment"] == "all")]
    nominal = sorted(n for _, _, n in pairs(levels))
    measured = {}
    for mark in marks:
        here = ours[ours["at"] == mark].set_index("metric")["mean"]
        names = [f"coverage_{n:.0%}".rstrip("%") for n in nominal]
        if all(name in here.index for name in names):
            measured[mark] = [float(here.loc[name]) for name in names]
    draw_calibration(out / "calibration.png", nominal, measured)
    found["calibration.png"] = "Measured against nominal coverage, all people"
    gains = _gains(scores, marks[min(1, len(marks) - 1)])
    draw_gains(out / "gains.png", gains, "change of RMSE by personal inputs, %")
    found["gains.png"] = "What personal inputs change for every person (negative is better)"
    return found


def _gains(scores: pd.DataFrame, at: str) -> "pd.Series[float]":
    """Every person's relative change of RMSE against the same model without personal inputs, percent."""
    mine = scores[(scores["metric"] == "rmse") & (scores["at"] == at) & (scores["segment"] == "all")]
    wide = mine.pivot(index="subject_id", columns="model", values="value")
    return (wide[OURS] / wide["no_personal"] - 1) * 100
