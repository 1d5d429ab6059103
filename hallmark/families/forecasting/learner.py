"""Fit a forecasting task: population ridge, personal context, networks, adapters, conformal intervals."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.arrays import Floats, Integers
from hallmark.build import configuration
from hallmark.contracts import Accepts, Follow, Prepared, Progress, Raw, TrainResult
from hallmark.errors import BundleError, DataError, LeakageError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_fitting import (
    average_bases,
    batches,
    fit_assembler,
    fit_base,
    population_forecast,
)
from hallmark.families.forecasting.base_model import (
    WEIGHTS,
    Base,
    ForecastConfig,
    as_tensors,
    export_base,
    load_base,
    save_base,
)
from hallmark.families.forecasting.ensemble import EnsembleConfig
from hallmark.families.forecasting.forgetting import forget_in_state, forget_subject
from hallmark.families.forecasting.history import History, HistoryConfig, build_history
from hallmark.families.forecasting.intervals import (
    CalibrateConfig,
    Calibration,
    conformal_quantiles,
    conformity_scores,
    daily_offsets,
    load_calibration,
    save_calibration,
)
from hallmark.families.forecasting.linear_bank import FullHistory
from hallmark.families.forecasting.network import BackboneConfig
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, describe
from hallmark.families.forecasting.patchtst import PatchTSTBodyConfig
from hallmark.families.forecasting.personalisation import (
    SHARED,
    load_history,
    load_personalisation,
    refresh_personalisation,
    save_personalisation,
)
from hallmark.families.forecasting.personalise import PersonaliseConfig, personalise
from hallmark.families.forecasting.predictor import ForecastPredictor
from hallmark.families.forecasting.refresh import initial_state, known_until, load_state, save_state, update
from hallmark.families.forecasting.residual_mlp import ResidualMLPConfig
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitPanel
from hallmark.families.forecasting.task import ForecastTask
from hallmark.files import sha256
from hallmark.learn.export import Onnx
from hallmark.learn.parallel import map_parallel
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything

COMPARED = 500  # test windows on which an exported model is compared with the original


@dataclass(frozen=True)
class Examples:
    """Data that all candidates are fitted on.

    Attributes:
        assembler: the preprocessing, with the population ridge.
        split_panel: readings and their splits.
        history: past of all subjects.
        train: origins of the training windows.
        valid: origins of the validation windows, for early stopping and model selection.
    """

    assembler: Assembler
    split_panel: SplitPanel
    history: History
    train: Integers
    valid: Integers


@configuration
class ForecastLearner:
    """Fits forecasters and their adapters.

    Attributes:
        forecast: what all candidate models share.
        history: how a subject's past is summarised.
    """

    accepts = Accepts(
        ForecastTask,
        (ResidualMLPConfig, PatchTSTBodyConfig, EnsembleConfig),
        TrainConfig,
        personalise=PersonaliseConfig,
        calibrate=CalibrateConfig,
    )

    forecast: ForecastConfig
    history: HistoryConfig

    def check(self, task: ForecastTask) -> None:
        """Check that the personal context uses only horizons that the task forecasts; see `ChecksTask`."""
        self.history.ridge.input_horizons(task.grid)

    def examples(self, task: ForecastTask, prepared: Prepared, train: TrainConfig, progress: Progress) -> Examples:
        """Fit the population ridge and summarise the past of all subjects; see `Learner.examples`.

        Raises:
            LeakageError: the personal context of a day depends on later readings.
        """
        quiet()
        seed_everything(train.seed, train.threads)
        split_panel = task.split_panel(prepared)
        origins, valid = self.origins_to_fit(split_panel)
        progress("population ridge", 0, 1, f"{len(origins):,} windows")
        assembler = fit_assembler(split_panel, origins, valid, task.scale, self.history, self.forecast)
        progress("personal context", 0, 1, f"{len(split_panel.panel.subjects)} subjects")
        history = _history(assembler, split_panel.panel)
        _check_past_only(assembler, split_panel.panel, history)
        return Examples(assembler, split_panel, history, origins, valid)

    def describe(self, examples: Examples) -> dict[str, Any]:
        """Describe the readings and count the windows; see `Learner.describe`."""
        return {"data": describe(examples.split_panel.panel), "train_windows": len(examples.train)}

    def origins_to_fit(self, split_panel: SplitPanel) -> tuple[Integers, Integers]:
        """Return the origins for fitting and those for early stopping and selection, of seen subjects only."""
        return split_panel.origins("train", SEEN), split_panel.origins("valid", SEEN)[:: self.forecast.valid_stride]

    def fit_one(
        self, examples: Examples, candidate: BackboneConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[Base, TrainResult]:
        """Fit one network; see `Learner.fit_one`."""
        e = examples
        return fit_base(
            candidate, e.assembler, e.split_panel, e.history, e.train, e.valid, self.forecast, train, scratch, follow
        )

    def combine(
        self, examples: Examples, candidate: EnsembleConfig, members: Sequence[Base]
    ) -> tuple[Base, TrainResult]:
        """Average fitted networks; see `Combining`."""
        e = examples
        on_valid = batches(e.assembler, e.split_panel, "valid", e.history, e.valid)
        return average_bases(candidate, members, self.forecast, on_valid, len(e.valid))

    def save(self, model: Base, candidate: BackboneConfig, directory: Path) -> dict[str, int]:
        """Write a base; see `Learner.save`."""
        save_base(model, directory, candidate, self.forecast)
        return {"parameters": sum(p.numel() for p in model.forecaster.parameters())}

    def personalise(
        self,
        task: ForecastTask,
        prepared: Prepared,
        model: Path,
        config: PersonaliseConfig,
        scratch: Path,
        progress: Progress,
    ) -> dict[str, Any]:
        """Choose an adapter for every subject by its gate; write all of them into `model/subjects`."""
        quiet()
        seed_everything(config.lora.seed, 1)
        split_panel, base = task.split_panel(prepared), load_base(model / "base")
        population = population_forecast(base.assembler, split_panel.panel)
        history, state = initial_state(
            split_panel.panel, base.assembler, sha256(model / "base"), config.default_method, population
        )
        out = model / "subjects"
        table, spec = personalise(
            base,
            split_panel,
            history,
            config,
            out,
            scratch / "adapters",
            lambda done, total: progress("personalise", done, total, ""),
        )
        save_personalisation(out, table, spec, history, state, base.assembler)
        save_state(model / "refresh_state", state, sha256(out / "subjects.json"))
        held = prepared.splits.set_index("subject_id")["group"]
        counts = table["method"].value_counts().to_dict()
        return {"methods": counts, "held_out": int((table["subject_id"].map(held) == HELD_OUT).sum())}

    def refresh(self, task: ForecastTask, raw: Raw, model: Path, state: Path, out: Path) -> Mapping[str, Any]:
        """Update every linear adapter with new readings; see forecasting/refresh.py. LoRA adapters do not change."""
        cleaned = dataclasses.replace(task, limits=dataclasses.replace(task.limits, min_days=0)).clean(raw)
        base = load_base(model / "base")
        assembler = base.assembler
        table = model / "subjects" / "subjects.json"
        earlier = load_state(state, assembler, sha256(model / "base"), sha256(table))
        population = partial(population_forecast, assembler)
        updated = update(earlier, cleaned.rows, task.value, assembler, population, os.cpu_count() or 1)
        if not updated.counts["readings"]:
            known, late, outliers = (updated.counts[name] for name in ("known", "late", "outliers"))
            raise DataError(
                f"no reading is new: {known:,} are in {state} already, {late:,} are older than it reaches back, "
                f"{outliers:,} are too few and too far ahead of the others"
            )
        refresh_personalisation(model / "subjects", updated, assembler)
        save_state(out, updated.state, sha256(table))
        return {**updated.counts, "dropped": cleaned.report["dropped"], "merged": cleaned.report["merged"]}

    def known_until(self, state: Path) -> Mapping[str, datetime]:
        """Return the time of every subject's newest reading, local; see `Refreshing`."""
        return known_until(state)

    def forget(self, model: Path, state: Path | None, subject_id: str) -> bool:
        """Take a subject out of a model; see `Forgetting`."""
        known = forget_subject(model, subject_id)
        if state is not None and state.is_dir():
            known |= forget_in_state(state, subject_id, model / "subjects" / "subjects.json")
        return known

    def calibrate(
        self, task: ForecastTask, prepared: Prepared, model: Path, config: CalibrateConfig, progress: Progress
    ) -> dict[str, Any]:
        """Fit the offsets of the intervals, per subject and day, and write them into `model/calibration`."""
        split_panel, base = task.split_panel(prepared), load_base(model / "base")
        panel = split_panel.panel
        personalisation = load_personalisation(model / "subjects", base)
        history = _history(base.assembler, panel)
        levels = self.forecast.quantile_levels
        origins = panel.thinned(config.stride, panel.origins)

        def scored(code: int) -> tuple[Integers, Floats]:
            """Return the minutes of one subject's windows that no model was fitted on, and their intervals' scores."""
            subject_id = panel.subjects[code]
            selected = origins[panel.subject[origins] == code]
            selected = selected[
                panel.minute[selected] >= _out_of_sample(split_panel, code, personalisation.methods[subject_id])
            ]
            rows = history.rows(panel.subject[selected], panel.day[selected])
            minute = panel.minute[selected].astype(np.int64)
            _, quantiles = personalisation.forecast(subject_id, panel.context(selected), minute, history, rows)
            return minute, conformity_scores(quantiles, panel.target(selected), levels)

        codes = list(range(len(panel.subjects)))
        results = map_parallel(codes, scored, config.n_jobs, lambda done, total: progress("calibrate", done, total, ""))
        kept: list[tuple[str, Any, Any, Any]] = []
        pool = []
        for code, (minute, values) in zip(codes, results, strict=True):
            ready = (minute[:, None] + np.asarray(task.grid.horizons_minutes)) // MINUTES_A_DAY + 1
            valid_end = split_panel.minute_of("valid_end", code)
            if not split_panel.held_out[code]:
                # The population's offsets come from the valid splits of seen subjects, never from a test split.
                pool.append(np.where((ready * MINUTES_A_DAY <= valid_end)[:, None], values, np.float32(np.nan)))
            kept.append((panel.subjects[code], values, ready, valid_end))
        population = conformal_quantiles(np.concatenate(pool), levels)
        first_row, blocks, count = {}, [], 0
        for code, (subject_id, values, ready, valid_end) in enumerate(kept):
            last = int(history.first_day[code] + history.days[code] - 1)
            days = np.arange(valid_end // MINUTES_A_DAY, last + 1)
            blocks.append(daily_offsets(values, ready, days, population, task.grid, config, levels))
            first_row[subject_id] = (count, int(days[0]), len(days))
            count += len(days)
        residuals = _residuals(base.assembler, split_panel, split_panel.origins("valid", SEEN)[:: config.stride])
        baseline = np.nanquantile(residuals, levels, axis=0).T.astype(np.float32)
        calibration = Calibration(population, np.concatenate(blocks), first_row, baseline)
        save_calibration(model / "calibration", calibration)
        return {"subjects": len(first_row), "population_offset_90": float(np.median(population[0]))}

    def open(self, task: ForecastTask, model: Path, version: str, digest: str) -> ForecastPredictor:
        """Open a model directory for serving, with the newest history of all subjects; see `Learner.open`."""
        base = load_base(model / "base")
        personalisation = load_personalisation(model / "subjects", base)
        calibration = load_calibration(model / "calibration")
        histories = load_history(model / "subjects", base.assembler)
        return ForecastPredictor(task, personalisation, histories, calibration, version, digest)

    def spares(self, file: str) -> bool:
        """Tell whether the model answers without a file: see `Degrading`.

        Without the network the population ridge answers for all; without a file of one subject the base answers it.
        """
        shared = {f"subjects/{name}" for name in SHARED}
        return file == f"base/{WEIGHTS}" or (file.startswith("subjects/") and file not in shared)

    def open_damaged(
        self, task: ForecastTask, model: Path, version: str, digest: str, damaged: Sequence[str]
    ) -> ForecastPredictor:
        """Open a model some of whose files are missing or changed; see `Degrading`."""
        if f"base/{WEIGHTS}" not in damaged:
            return self.open(task, model, version, digest)  # a subject's file is checked when it is read
        base = load_base(model / "base", with_network=False)
        personalisation = load_personalisation(model / "subjects", base)
        calibration = load_calibration(model / "calibration")
        histories = load_history(model / "subjects", base.assembler)
        return ForecastPredictor(task, personalisation, histories, calibration, version, digest)

    def open_for_test(self, task: ForecastTask, model: Path, split_panel: SplitPanel) -> ForecastPredictor:
        """Open a model with the whole history of all subjects, so that every test day uses its own midnight."""
        base = load_base(model / "base")
        if base.assembler.grid != task.grid:
            raise BundleError(f"{model} forecasts on another grid than task.grid: it cannot be compared, promote anew")
        codes = {subject_id: code for code, subject_id in enumerate(split_panel.panel.subjects)}
        personalisation = load_personalisation(model / "subjects", base)
        calibration = load_calibration(model / "calibration")
        histories = FullHistory(_history(base.assembler, split_panel.panel), codes)
        return ForecastPredictor(task, personalisation, histories, calibration, "", "")

    def export(self, model: Path, form: Onnx) -> None:
        """Write the base's network; see `Exporting`. Subjects with a LoRA adapter still use the original."""
        base = load_base(model / "base")
        grid, scale = base.assembler.grid, base.assembler.scale
        context, minute = np.full((2, grid.context_length), scale.center, np.float32), np.zeros(2, np.int64)
        export_base(base, as_tensors(base.assembler.batch(context, minute, None, None)), model / "base", form)

    def raw_outputs(self, task: ForecastTask, prepared: Prepared, model: Path) -> Floats:
        """Forecast evenly spaced test windows without personal inputs; see `Exporting`."""
        split_panel, base = task.split_panel(prepared), load_base(model / "base")
        origins = split_panel.origins("test")
        origins = origins[:: max(1, len(origins) // COMPARED)]
        panel = split_panel.panel
        mean, quantiles = base.forecast(panel.context(origins), panel.minute[origins].astype(np.int64), None, None)
        return np.concatenate([mean, quantiles.reshape(len(mean), -1)], axis=1)


def _residuals(assembler: Assembler, split_panel: SplitPanel, origins: Integers) -> Floats:
    """Compute the errors of the population ridge on validation windows, (B, H), NaN where the target is unknown."""
    panel = split_panel.panel
    change = population_forecast(assembler, panel)(origins)
    residuals: Floats = split_panel.target(origins, "valid") - panel.values[origins][:, None] - change
    return residuals


def _history(assembler: Assembler, panel: Panel) -> History:
    """Summarise the past of all subjects with the settings of the base model."""
    return build_history(panel, assembler.history, assembler.scale, population_forecast(assembler, panel))


def _out_of_sample(split_panel: SplitPanel, code: int, method: str) -> int:
    """Return the minute from which no model was fitted on a subject; 0 if it is held out and has no LoRA."""
    if split_panel.held_out[code] and method != "lora":
        return 0
    return split_panel.minute_of("valid_start", code)


def _check_past_only(assembler: Assembler, panel: Panel, history: History) -> None:
    """Reverse the later readings of one subject and check that the earlier rows of its history do not change.

    Raises:
        LeakageError: a row of the personal context depends on later readings.
    """
    code = 0
    points: Integers = np.flatnonzero(panel.subject == code)
    middle = int(history.first_day[code] + history.days[code] // 2)
    later = points[panel.day[points] >= middle]
    values, filled = panel.values.copy(), panel.filled.copy()
    values[later], filled[later] = values[later][::-1], filled[later][::-1]
    stop = int(points[-1]) + 1
    changed = dataclasses.replace(
        panel,
        subjects=panel.subjects[:1],
        values=values[: stop + panel.grid.padding],
        filled=filled[: stop + panel.grid.padding],
        minute=panel.minute[: stop + panel.grid.padding],
        subject=np.where(np.arange(stop + panel.grid.padding) < stop, panel.subject[: stop + panel.grid.padding], -1),
        interval_minutes=panel.interval_minutes[:1],
    )
    recomputed = _history(assembler, changed)
    rows = np.arange(history.first_row[code], history.first_row[code] + middle - history.first_day[code] + 1)
    for name in ("statistics", "profile", "change", "weights", "other_weights", "residual"):
        before, after = getattr(history, name)[rows], getattr(recomputed, name)[: len(rows)]
        if not np.allclose(before, after, atol=1e-4):
            raise LeakageError(f"personal context: {name} of subject {panel.subjects[code]!r} knows the future")
