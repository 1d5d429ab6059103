"""Learn a forecasting task: population ridge, personal context, networks, adapters, conformal intervals."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hallmark.arrays import Floats, Integers
from hallmark.contracts import Accepts, Follow, Prepared, Progress, Raw, TrainResult
from hallmark.errors import BundleError, DataError, LeakageError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_forecaster import (
    Base,
    ForecastConfig,
    as_tensors,
    average_bases,
    batches,
    export_base,
    fit_assembler,
    fit_base,
    load_base,
    population_forecast,
    save_base,
)
from hallmark.families.forecasting.diary import begin, read_diary, take_up, write_diary
from hallmark.families.forecasting.ensemble import EnsembleConfig
from hallmark.families.forecasting.history import History, HistoryConfig, build_history
from hallmark.families.forecasting.intervals import (
    CalibrateConfig,
    Calibration,
    load_calibration,
    nightly,
    offsets,
    save_calibration,
    scores,
)
from hallmark.families.forecasting.linear_bank import WholePasts
from hallmark.families.forecasting.network import BodyConfig
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, describe
from hallmark.families.forecasting.patchtst import PatchTSTBodyConfig
from hallmark.families.forecasting.people import load_pasts, load_people, refresh_people, save_people
from hallmark.families.forecasting.personal import PersonaliseConfig, personalise
from hallmark.families.forecasting.predictor import ForecastPredictor
from hallmark.families.forecasting.residual_mlp import ResidualMLPConfig
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, Parts
from hallmark.families.forecasting.task import ForecastTask
from hallmark.files import sha256
from hallmark.learn.export import Onnx
from hallmark.learn.side_by_side import shared_out
from hallmark.learn.trainer import TrainConfig, quiet, seed_everything

COMPARED = 500  # windows of test that another form of the model is compared on


@dataclass(frozen=True)
class Examples:
    """What candidates learn from.

    Attributes:
        assembler: the preprocessing, with the population ridge.
        parts: readings and their splits.
        history: everybody's past.
        train: origins to learn from.
        valid: origins that stop training and choose.
    """

    assembler: Assembler
    parts: Parts
    history: History
    train: Integers
    valid: Integers


@dataclass(frozen=True)
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
        """Check that the personal context looks at horizons that the task forecasts; see `Checking`."""
        self.history.ridge.marks(task.grid)

    def examples(self, task: ForecastTask, prepared: Prepared, train: TrainConfig, progress: Progress) -> Examples:
        """Fit the population ridge and summarise everybody's past; see `Learner.examples`.

        Raises:
            LeakageError: the personal context of a day knew what came after it.
        """
        quiet()
        seed_everything(train.seed, train.threads)
        parts = task.parts(prepared)
        origins, valid = self.origins_to_fit(parts)
        progress("population ridge", 0, 1, f"{len(origins):,} windows")
        assembler = fit_assembler(parts, origins, valid, task.scale, self.history, self.forecast)
        progress("personal context", 0, 1, f"{len(parts.panel.subjects)} subjects")
        history = _history(assembler, parts.panel)
        _check_past_only(assembler, parts.panel, history)
        return Examples(assembler, parts, history, origins, valid)

    def describe(self, examples: Examples) -> dict[str, Any]:
        """Describe the readings and count the windows; see `Learner.describe`."""
        return {"data": describe(examples.parts.panel), "train_windows": len(examples.train)}

    def origins_to_fit(self, parts: Parts) -> tuple[Integers, Integers]:
        """Origins that models learn from, and those that choose and stop; nobody held out is among them."""
        return parts.origins("train", SEEN), parts.origins("valid", SEEN)[:: self.forecast.valid_stride]

    def fit_one(
        self, examples: Examples, candidate: BodyConfig, train: TrainConfig, scratch: Path, follow: Follow
    ) -> tuple[Base, TrainResult]:
        """Fit one network; see `Learner.fit_one`."""
        e = examples
        return fit_base(
            candidate, e.assembler, e.parts, e.history, e.train, e.valid, self.forecast, train, scratch, follow
        )

    def combine(
        self, examples: Examples, candidate: EnsembleConfig, members: Sequence[Base]
    ) -> tuple[Base, TrainResult]:
        """Average fitted networks; see `Combining`."""
        e = examples
        on_valid = batches(e.assembler, e.parts, "valid", e.history, e.valid)
        return average_bases(candidate, members, self.forecast, on_valid, len(e.valid))

    def save(self, model: Base, candidate: BodyConfig, directory: Path) -> dict[str, int]:
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
        """Let every subject's gate choose an adapter; write them all into `model/people`."""
        quiet()
        seed_everything(config.lora.seed, 1)
        parts, base = task.parts(prepared), load_base(model / "base")
        population = population_forecast(base.assembler, parts.panel)
        history, diary = begin(parts.panel, base.assembler, sha256(model / "base"), config.default_method, population)
        out = model / "people"
        table, spec = personalise(
            base,
            parts,
            history,
            config,
            out,
            scratch / "adapters",
            lambda done, total: progress("personalise", done, total, ""),
        )
        save_people(out, table, spec, history, parts.panel.subjects)
        write_diary(model / "diary", diary, sha256(out / "people.json"))
        held = prepared.splits.set_index("subject_id")["group"]
        counts = table["method"].value_counts().to_dict()
        return {"methods": counts, "held_out": int((table["subject_id"].map(held) == HELD_OUT).sum())}

    def refresh(self, task: ForecastTask, raw: Raw, model: Path, diary: Path, out: Path) -> Mapping[str, Any]:
        """Update every linear adapter with new readings; see forecasting/diary.py. LoRA stays as it was."""
        cleaned = dataclasses.replace(task, limits=dataclasses.replace(task.limits, minimum_days=0)).clean(raw)
        base = load_base(model / "base")
        assembler = base.assembler
        table = model / "people" / "people.json"
        earlier = read_diary(diary, assembler, sha256(model / "base"), sha256(table))
        taken = take_up(earlier, cleaned.rows, task.value, assembler, partial(population_forecast, assembler))
        if not taken.counts["readings"]:
            known, late, stray = (taken.counts[name] for name in ("known", "late", "stray"))
            raise DataError(
                f"no reading is new: {known:,} are in {diary} already, {late:,} are older than it looks back, "
                f"{stray:,} are too few and too far ahead of the others"
            )
        refresh_people(model / "people", taken.history, taken.diary)
        write_diary(out, taken.diary, sha256(table))
        return {**taken.counts, "dropped": cleaned.report["dropped"], "merged": cleaned.report["merged"]}

    def calibrate(
        self, task: ForecastTask, prepared: Prepared, model: Path, config: CalibrateConfig, progress: Progress
    ) -> dict[str, Any]:
        """Learn offsets of the intervals, per subject and day, into `model/calibration`."""
        parts, base = task.parts(prepared), load_base(model / "base")
        panel = parts.panel
        people = load_people(model / "people", base)
        history = _history(base.assembler, panel)
        levels = self.forecast.quantile_levels
        origins = panel.every(config.stride, panel.origins)

        def scored(code: int) -> tuple[Integers, Floats]:
            """Minutes of one subject's windows that no model learned from, and the scores of their intervals."""
            subject_id = panel.subjects[code]
            mine = origins[panel.subject[origins] == code]
            mine = mine[panel.minute[mine] >= _out_of_sample(parts, code, people.methods[subject_id])]
            rows = history.rows(panel.subject[mine], panel.day[mine])
            minute = panel.minute[mine].astype(np.int64)
            _, quantiles = people.forecast(subject_id, panel.context(mine), minute, history, rows)
            return minute, scores(quantiles, panel.target(mine), levels)

        codes = list(range(len(panel.subjects)))
        found = shared_out(
            codes, scored, config.side_by_side, lambda done, total: progress("calibrate", done, total, "")
        )
        kept: list[tuple[str, Any, Any, Any]] = []
        pool = []
        for code, (minute, values) in zip(codes, found, strict=True):
            ready = (minute[:, None] + np.asarray(task.grid.horizons_minutes)) // MINUTES_A_DAY + 1
            valid_end = parts.minute_of("valid_end", code)
            if not parts.held_out[code]:
                # The population's offsets come from what seen subjects' valid time shows, never from anybody's test.
                pool.append(np.where((ready * MINUTES_A_DAY <= valid_end)[:, None], values, np.float32(np.nan)))
            kept.append((panel.subjects[code], values, ready, valid_end))
        population = offsets(np.concatenate(pool), levels)
        first_row, blocks, count = {}, [], 0
        for code, (subject_id, values, ready, valid_end) in enumerate(kept):
            last = int(history.first_day[code] + history.days[code] - 1)
            days = np.arange(valid_end // MINUTES_A_DAY, last + 1)
            blocks.append(nightly(values, ready, days, population, task.grid, config, levels))
            first_row[subject_id] = (count, int(days[0]), len(days))
            count += len(days)
        calibration = Calibration(population, np.concatenate(blocks), first_row)
        save_calibration(model / "calibration", calibration)
        return {"people": len(first_row), "population_offset_90": float(np.median(population[0]))}

    def open(self, task: ForecastTask, model: Path, version: str, digest: str) -> ForecastPredictor:
        """Open a model directory for serving, with everybody's newest history; see `Learner.open`."""
        base = load_base(model / "base")
        people, calibration = load_people(model / "people", base), load_calibration(model / "calibration")
        pasts = load_pasts(model / "people", base.assembler)
        return ForecastPredictor(task, people, pasts, calibration, version, digest)

    def open_for_test(self, task: ForecastTask, model: Path, parts: Parts) -> ForecastPredictor:
        """Open a model with everybody's whole history, so that every test day uses its own midnight."""
        base = load_base(model / "base")
        if base.assembler.grid != task.grid:
            raise BundleError(f"{model} forecasts on another grid than task.grid: it cannot be compared, promote anew")
        codes = {subject_id: code for code, subject_id in enumerate(parts.panel.subjects)}
        people, calibration = load_people(model / "people", base), load_calibration(model / "calibration")
        pasts = WholePasts(_history(base.assembler, parts.panel), codes)
        return ForecastPredictor(task, people, pasts, calibration, "", "")

    def export(self, model: Path, form: Onnx) -> None:
        """Write the base's network; see `Exporting`. Who has a LoRA adapter goes on being answered by the other."""
        base = load_base(model / "base")
        grid, scale = base.assembler.grid, base.assembler.scale
        context, minute = np.full((2, grid.context_length), scale.center, np.float32), np.zeros(2, np.int64)
        export_base(base, as_tensors(base.assembler.batch(context, minute, None, None)), model / "base", form)

    def compared(self, task: ForecastTask, prepared: Prepared, model: Path) -> Floats:
        """Forecasts of windows of test, evenly taken, without personal inputs; see `Exporting`."""
        parts, base = task.parts(prepared), load_base(model / "base")
        origins = parts.origins("test")
        origins = origins[:: max(1, len(origins) // COMPARED)]
        panel = parts.panel
        mean, quantiles = base.forecast(panel.context(origins), panel.minute[origins].astype(np.int64), None, None)
        return np.concatenate([mean, quantiles.reshape(len(mean), -1)], axis=1)


def _history(assembler: Assembler, panel: Panel) -> History:
    """Everybody's past, summarised as the base was trained to read it."""
    return build_history(panel, assembler.history, assembler.scale, population_forecast(assembler, panel))


def _out_of_sample(parts: Parts, code: int, method: str) -> int:
    """From when on a subject's windows were never learned from: always for held-out subjects without LoRA."""
    if parts.held_out[code] and method != "lora":
        return 0
    return parts.minute_of("valid_start", code)


def _check_past_only(assembler: Assembler, panel: Panel, history: History) -> None:
    """Scramble one subject's future and see that the past's rows stay as they are.

    Raises:
        LeakageError: a row of the personal context knew what came after it.
    """
    code = 0
    mine: Integers = np.flatnonzero(panel.subject == code)
    middle = int(history.first_day[code] + history.days[code] // 2)
    later = mine[panel.day[mine] >= middle]
    values, filled = panel.values.copy(), panel.filled.copy()
    values[later], filled[later] = values[later][::-1], filled[later][::-1]
    stop = int(mine[-1]) + 1
    one = dataclasses.replace(
        panel,
        subjects=panel.subjects[:1],
        values=values[: stop + panel.grid.padding],
        filled=filled[: stop + panel.grid.padding],
        minute=panel.minute[: stop + panel.grid.padding],
        subject=np.where(np.arange(stop + panel.grid.padding) < stop, panel.subject[: stop + panel.grid.padding], -1),
        interval_minutes=panel.interval_minutes[:1],
    )
    other = _history(assembler, one)
    rows = np.arange(history.first_row[code], history.first_row[code] + middle - history.first_day[code] + 1)
    for name in ("statistics", "profile", "change", "weights", "other_weights", "residual"):
        before, after = getattr(history, name)[rows], getattr(other, name)[: len(rows)]
        if not np.allclose(before, after, atol=1e-4):
            raise LeakageError(f"personal context: {name} of subject {panel.subjects[code]!r} knows the future")
