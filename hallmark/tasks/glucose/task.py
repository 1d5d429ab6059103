"""The glucose task: forecasts of a person's sensor glucose, every 5 minutes to 2 h and every 15 minutes to 24 h."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from hallmark.arrays import Floats, Integers
from hallmark.contracts import Clean, Prepared, Progress, Raw
from hallmark.errors import BundleError, ConfigError, DataError, LeakageError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_forecaster import (
    Base,
    ForecastConfig,
    as_tensors,
    average_bases,
    batches,
    export_base,
    fit_assembler,
    fit_networks,
    load_base,
    population_forecast,
    save_base,
)
from hallmark.families.forecasting.diary import begin, read_diary, take_up, write_diary
from hallmark.families.forecasting.ensemble import EnsembleConfig
from hallmark.families.forecasting.history import History, HistoryConfig, build_history
from hallmark.families.forecasting.inputs import Scale
from hallmark.families.forecasting.intervals import CalibrateConfig, Calibration, nightly, offsets, scores
from hallmark.families.forecasting.leakage import check_leakage
from hallmark.families.forecasting.linear_bank import WholePasts
from hallmark.families.forecasting.network import BodyConfig
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Grid, Panel, build_panel, describe
from hallmark.families.forecasting.personal import PersonaliseConfig, personalise
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, Parts, SplitConfig, split
from hallmark.files import sha256
from hallmark.learn.candidates import Follow, distinct, fit_candidates
from hallmark.learn.export import Onnx
from hallmark.learn.side_by_side import shared_out
from hallmark.learn.trainer import TrainConfig, TrainResult, quiet, seed_everything
from hallmark.read.validation import ValidationLimits
from hallmark.tasks.glucose.cleaning import GROUPS, clean
from hallmark.tasks.glucose.messages import DISCLAIMER, GlucoseRequest, GlucoseResponse
from hallmark.tasks.glucose.own_table import OwnTable
from hallmark.tasks.glucose.predictor import (
    GlucosePredictor,
    load_calibration,
    load_people,
    open_predictor,
    refresh_people,
    save_calibration,
    save_people,
)

VALUE = "glucose_mg_dl"
COMPARED = 500  # windows of test that another form of the model is compared on


@dataclass(frozen=True)
class GlucoseTask:
    """Configuration and contract of the task.

    Attributes:
        name: of the ZenML model and the Bento.
        grid: the grid and the horizons.
        scale: units.
        limits: when cleaning fails.
        sensor_text: what a sensor's text stands for, mg/dL.
        split_config: how people and time are split.
        forecast: what all candidate models share.
        history: how a person's past is summarised.
        max_age_minutes: a request whose last reading is older is refused.
        max_history_age_days: a personal history that ended longer before a request is not used.
    """

    name: str
    grid: Grid
    scale: Scale
    limits: ValidationLimits
    sensor_text: Mapping[str, float]
    split_config: SplitConfig
    forecast: ForecastConfig
    history: HistoryConfig
    max_age_minutes: float
    max_history_age_days: int

    def __post_init__(self) -> None:
        self.history.ridge.marks(self.grid)  # all of them must be horizons
        if not (self.max_age_minutes > 0 and self.max_history_age_days >= 0):
            raise ValueError(f"max_age_minutes={self.max_age_minutes} and max_history_age_days must not be negative")

    @property
    def purpose(self) -> str:
        """What it is for."""
        return (
            "Forecasts of sensor glucose from the last 48 hours and the person's own past, with calibrated intervals, "
            "every 5 minutes to 2 hours and every 15 minutes to 24 hours. " + DISCLAIMER
        )

    @property
    def card_limits(self) -> Sequence[str]:
        """What it must not be used for, and where it is weak."""
        return (
            "Not for diagnosis, dosing, alarms or triage.",
            "Trained on the data named above; on simulated data the figures say nothing about people.",
            "Beyond about 4 hours no model beats a person's own time-of-day mean by much: look at the intervals.",
            "Low glucose is rare: its recall is reported at the 10% quantile, with its precision.",
            "Readings of slow sensors (15 min) are interpolated as inputs, never as targets.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean readings; see cleaning.py."""
        return clean(raw, self.limits, self.sensor_text, self.grid.step_minutes)

    def split(self, clean: Clean) -> pd.DataFrame:
        """Split people and time; see hallmark/families/forecasting/splits.py."""
        return split(clean.rows, clean.subjects, self.split_config)

    def parts(self, prepared: Prepared) -> Parts:
        """Put the readings on the grid."""
        return Parts(build_panel(prepared.rows, VALUE, self.grid), prepared.splits)

    def origins_to_fit(self, parts: Parts) -> tuple[Integers, Integers]:
        """Origins that models learn from, and those that choose and stop; nobody held out is among them."""
        return parts.origins("train", SEEN), parts.origins("valid", SEEN)[:: self.forecast.valid_stride]

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check people, times, inputs, targets and twins; see hallmark/families/forecasting/leakage.py."""
        return check_leakage(prepared, self.parts(prepared), VALUE, self.split_config.purge_minutes)

    def fit(
        self,
        prepared: Prepared,
        candidates: Sequence[BodyConfig],
        nodes: Sequence[Mapping[str, Any]],
        train: TrainConfig,
        out: Path,
        scratch: Path,
        progress: Progress,
        look: Callable[[int, float], None] | None = None,
    ) -> dict[str, Any]:
        """Fit every candidate at equal cost; the better on valid becomes `base`, the others `rivals`."""
        quiet()
        seed_everything(train.seed, train.threads)
        distinct(candidates)
        parts = self.parts(prepared)
        origins, valid = self.origins_to_fit(parts)
        progress("population ridge", 0, 1, f"{len(origins):,} windows")
        assembler = fit_assembler(parts, origins, valid, self.scale, self.history, self.forecast)
        progress("personal context", 0, 1, f"{len(parts.panel.subjects)} people")
        history = self._history(assembler, parts.panel)
        self._check_past_only(assembler, parts.panel, history)

        shared = (assembler, parts, history, origins, valid, self.forecast, train)
        trained = fit_networks(candidates, shared, train.side_by_side, scratch, progress, look)
        on_valid = batches(assembler, parts, "valid", history, valid)

        def fit_one(body: BodyConfig, _: Follow) -> tuple[Base, TrainResult]:
            if isinstance(body, EnsembleConfig):
                members = [trained[member][0] for member in body.members]
                return average_bases(body, members, self.forecast, on_valid, len(valid))
            return trained[body]

        def save(base: Base, node: Mapping[str, Any], directory: Path) -> dict[str, Any]:
            save_base(base, directory, {"body": node, "forecast": self.forecast})
            return {"parameters": sum(p.numel() for p in base.forecaster.parameters())}

        facts = {"data": describe(parts.panel), "train_windows": len(origins)}
        return fit_candidates(candidates, nodes, fit_one, save, out, facts, progress)

    def personalise(
        self, prepared: Prepared, model: Path, config: PersonaliseConfig, scratch: Path, progress: Progress
    ) -> dict[str, Any]:
        """Let every person's gate choose an adapter; write them all into `model/people`."""
        quiet()
        seed_everything(config.lora.seed, 1)
        parts, base = self.parts(prepared), load_base(model / "base")
        population = population_forecast(base.assembler, parts.panel)
        history, diary = begin(parts.panel, base.assembler, sha256(model / "base"), config.default_way, population)
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
        counts = table["way"].value_counts().to_dict()
        return {"ways": counts, "held_out": int((table["subject_id"].map(held) == HELD_OUT).sum())}

    def own_rows(self, path: Path, settings: Mapping[str, str]) -> Raw:
        """Read a CSV or Parquet file with subject_id, timestamp and glucose, as `data=table` does."""
        plain = ("unit", "timestamp_format", "timezone")
        known = {key: value for key, value in settings.items() if key in plain}
        columns = {k.removeprefix("columns."): v for k, v in settings.items() if k.startswith("columns.")}
        if odd := sorted(set(settings) - set(known) - {f"columns.{name}" for name in columns}):
            raise ConfigError(f"{odd[0]!r} is no setting of a table: give {', '.join(plain)} or columns.NAME")
        try:
            table = OwnTable(
                path=str(path),
                unit=known.get("unit", "mg/dL"),
                columns=columns,
                timestamp_format=known.get("timestamp_format"),
                timezone=known.get("timezone"),
                subjects_path="",
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return table.load()

    def refresh(self, raw: Raw, model: Path, diary: Path, out: Path) -> Mapping[str, Any]:
        """Let new readings teach everybody's linear adapter; see forecasting/diary.py. LoRA stays as it was."""
        limits = dataclasses.replace(self.limits, minimum_days=0)
        cleaned = clean(raw, limits, self.sensor_text, self.grid.step_minutes, "--set unit")
        base = load_base(model / "base")
        assembler = base.assembler
        table = model / "people" / "people.json"
        earlier = read_diary(diary, assembler, sha256(model / "base"), sha256(table))
        taken = take_up(earlier, cleaned.rows, VALUE, assembler, partial(population_forecast, assembler))
        if not taken.counts["readings"]:
            known, late, stray = (taken.counts[name] for name in ("known", "late", "stray"))
            raise DataError(
                f"no reading is new: {known:,} are in {diary} already, {late:,} are older than it looks back, "
                f"{stray:,} are too few and too far ahead of the others"
            )
        refresh_people(model / "people", taken.history, taken.diary)
        write_diary(out, taken.diary, sha256(table))
        return {**taken.counts, "dropped": cleaned.report["dropped"], "merged": cleaned.report["merged"]}

    def calibrate(self, prepared: Prepared, model: Path, config: CalibrateConfig, progress: Progress) -> dict[str, Any]:
        """Learn offsets of the intervals, per person and night, into `model/calibration`."""
        parts, base = self.parts(prepared), load_base(model / "base")
        panel = parts.panel
        people = load_people(model / "people", base)
        history = self._history(base.assembler, panel)
        levels = self.forecast.quantile_levels
        origins = panel.every(config.stride, panel.origins)

        def scored(code: int) -> tuple[Integers, Floats]:
            """Minutes of one person's windows that no model learned from, and the scores of their intervals."""
            subject_id = panel.subjects[code]
            mine = origins[panel.subject[origins] == code]
            mine = mine[panel.minute[mine] >= self._out_of_sample(parts, code, people.ways[subject_id])]
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
            ready = (minute[:, None] + np.asarray(self.grid.horizons_minutes)) // MINUTES_A_DAY + 1
            valid_end = parts.minute_of("valid_end", code)
            if not parts.held_out[code]:
                # The population's offsets come from what seen people's valid time shows, never from anybody's test.
                pool.append(np.where((ready * MINUTES_A_DAY <= valid_end)[:, None], values, np.float32(np.nan)))
            kept.append((panel.subjects[code], values, ready, valid_end))
        population = offsets(np.concatenate(pool), levels)
        first_row, blocks, count = {}, [], 0
        for code, (subject_id, values, ready, valid_end) in enumerate(kept):
            last = int(history.first_day[code] + history.days[code] - 1)
            days = np.arange(valid_end // MINUTES_A_DAY, last + 1)
            blocks.append(nightly(values, ready, days, population, self.grid, config, levels))
            first_row[subject_id] = (count, int(days[0]), len(days))
            count += len(days)
        calibration = Calibration(population, np.concatenate(blocks), first_row)
        save_calibration(model / "calibration", calibration)
        return {"people": len(first_row), "population_offset_90": float(np.median(population[0]))}

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Readings, clock and groups of train and test."""
        rows = prepared.rows.merge(prepared.splits[["subject_id", "train_end", "test_start"]], on="subject_id")
        rows = rows.merge(prepared.subjects, on="subject_id")
        minute = rows["timestamp"].to_numpy().astype("datetime64[m]").astype(np.int64)
        table = pd.DataFrame({VALUE: rows[VALUE], "hour": (minute % MINUTES_A_DAY) // 60})
        for column in GROUPS:
            table[column] = rows[column].astype("object").where(rows[column].notna(), None)
        return table[minute < rows["train_end"]], table[minute >= rows["test_start"]]

    def open_for_test(self, model: Path, parts: Parts) -> GlucosePredictor:
        """Open a model with everybody's whole history, so that every test day uses its own midnight."""
        base = load_base(model / "base")
        if base.assembler.grid != self.grid:
            raise BundleError(f"{model} forecasts on another grid than task.grid: it cannot be compared, promote anew")
        codes = {subject_id: code for code, subject_id in enumerate(parts.panel.subjects)}
        people, calibration = load_people(model / "people", base), load_calibration(model / "calibration")
        pasts = WholePasts(self._history(base.assembler, parts.panel), codes)
        limits = (self.max_age_minutes, self.max_history_age_days)
        return GlucosePredictor(people, pasts, calibration, *limits, "", "")

    def predictor(self, model: Path, version: str = "", digest: str = "") -> GlucosePredictor:
        """Open a model directory for serving."""
        return open_predictor(model, self.max_age_minutes, self.max_history_age_days, version, digest)

    def export(self, model: Path, form: Onnx) -> None:
        """Write the base's network; see `Exporting`. Who has a LoRA adapter goes on being answered by the other."""
        base = load_base(model / "base")
        context, minute = np.full((2, base.assembler.grid.context_length), 120, np.float32), np.zeros(2, np.int64)
        export_base(base, as_tensors(base.assembler.batch(context, minute, None, None)), model / "base", form)

    def compared(self, prepared: Prepared, model: Path) -> Floats:
        """Forecasts of windows of test, evenly taken, mg/dL, without personal inputs; see `Exporting`."""
        parts, base = self.parts(prepared), load_base(model / "base")
        origins = parts.origins("test")
        origins = origins[:: max(1, len(origins) // COMPARED)]
        panel = parts.panel
        mean, quantiles = base.forecast(panel.context(origins), panel.minute[origins].astype(np.int64), None, None)
        return np.concatenate([mean, quantiles.reshape(len(mean), -1)], axis=1)

    def request_type(self) -> type[BaseModel]:
        """The pydantic type of a request."""
        return GlucoseRequest

    def response_type(self) -> type[BaseModel]:
        """The pydantic type of an answer."""
        return GlucoseResponse

    def _history(self, assembler: Assembler, panel: Panel) -> History:
        """Everybody's past, summarised as the base was trained to read it."""
        return build_history(panel, assembler.history, assembler.scale, population_forecast(assembler, panel))

    def _out_of_sample(self, parts: Parts, code: int, way: str) -> int:
        """From when on a person's windows were never learned from: always for held-out people without LoRA."""
        if parts.held_out[code] and way != "lora":
            return 0
        return parts.minute_of("valid_start", code)

    def _check_past_only(self, assembler: Assembler, panel: Panel, history: History) -> None:
        """Scramble one person's future and see that the past's rows stay as they are.

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
            values=values[: stop + self.grid.padding],
            filled=filled[: stop + self.grid.padding],
            minute=panel.minute[: stop + self.grid.padding],
            subject=np.where(np.arange(stop + self.grid.padding) < stop, panel.subject[: stop + self.grid.padding], -1),
            interval_minutes=panel.interval_minutes[:1],
        )
        other = self._history(assembler, one)
        rows = np.arange(history.first_row[code], history.first_row[code] + middle - history.first_day[code] + 1)
        for name in ("statistics", "profile", "change", "weights", "other_weights", "residual"):
            before, after = getattr(history, name)[rows], getattr(other, name)[: len(rows)]
            if not np.allclose(before, after, atol=1e-4):
                raise LeakageError(f"personal context: {name} of subject {panel.subjects[code]!r} knows the future")
