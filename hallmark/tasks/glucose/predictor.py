"""One call for evaluation and serving: windows in, calibrated forecasts out, each its person's own way."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hallmark.errors import BundleError
from hallmark.files import read_json, sha256, write_json
from hallmark.learn.base_forecaster import Base, load_base
from hallmark.learn.history import History, stack
from hallmark.learn.intervals import Calibration, pairs, widen
from hallmark.learn.personal import People, directory_of
from hallmark.read.panel import MINUTES_A_DAY, Floats, Integers, Panel, build_panel, means_of_runs, nearest_slots
from hallmark.tasks.glucose.messages import (
    DISCLAIMER,
    Forecast,
    GlucoseRequest,
    GlucoseResponse,
    Interval,
    Provenance,
)

LOWEST_MG_DL, HIGHEST_MG_DL = 10.0, 600.0


@dataclass(frozen=True)
class GlucosePredictor:
    """A trained model with its people.

    Attributes:
        people: base and adapters.
        history: everybody's past; its subjects are numbered by `codes`.
        codes: subject_id → number in `history`.
        calibration: offsets of the intervals.
        max_age_minutes: older data are refused.
        max_history_age_days: a history that ended longer before a request is not used: the base model answers.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    people: People
    history: History | None
    codes: dict[str, int]
    calibration: Calibration
    max_age_minutes: float
    max_history_age_days: int
    version: str
    digest: str

    @property
    def base(self) -> Base:
        """The base model."""
        return self.people.base

    @property
    def levels(self) -> tuple[float, ...]:
        """Quantile levels."""
        return self.base.forecaster.shape.quantile_levels

    def forecast(self, subject_id: str | None, context: Floats, minute: Integers) -> tuple[Floats, Floats]:
        """Forecast one person's windows.

        Args:
            subject_id: None, or one that the model does not know, for a newcomer.
            context: (B, C) readings, oldest first, mg/dL.
            minute: (B,) local wall-clock minute of the last reading.

        Returns:
            Mean (B, H) and calibrated quantiles (B, H, Q), mg/dL, within the range of sensors.
        """
        day = minute // MINUTES_A_DAY
        known = subject_id if self.knows(subject_id, day) else None
        if known is None:
            mean, quantiles = self.base.forecast(context, minute, None, None)
        else:
            assert self.history is not None
            rows = self.history.rows(np.full(len(day), self.codes[known]), day)
            mean, quantiles = self.people.forecast(known, context, minute, self.history, rows)
        quantiles = widen(quantiles, self.calibration.of(known, day), self.levels)
        return np.clip(mean, LOWEST_MG_DL, HIGHEST_MG_DL), np.clip(quantiles, LOWEST_MG_DL, HIGHEST_MG_DL)

    def knows(self, subject_id: str | None, day: Integers) -> bool:
        """Tell whether the person's history may speak on all of some days."""
        if subject_id is None or self.history is None or subject_id not in self.codes:
            return False
        return bool(self.history.knows(self.codes[subject_id], day, self.max_history_age_days).all())

    def predict(self, requests: Sequence[GlucoseRequest]) -> list[GlucoseResponse]:
        """Answer every request in order, each alone: nobody's rows meet another's."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: GlucoseRequest) -> GlucoseResponse:
        grid = self.base.assembler.grid
        times = np.array([r.timestamp for r in request.readings], dtype="datetime64[s]")
        values = np.array([r.glucose_mg_dl for r in request.readings], dtype=np.float32)
        age = (request.asked_at - request.readings[-1].timestamp).total_seconds() / 60
        slot = nearest_slots(times, grid.step_minutes)
        used = slot > slot[-1] - grid.context_length
        times, values, slot = times[used], values[used], slot[used]
        # As in cleaning: readings of one grid step become their mean, at the time of the first.
        again = np.diff(slot, prepend=slot[0] - 1) == 0
        times, values = times[~again], means_of_runs(values, again)
        panel = build_panel(pd.DataFrame({"subject_id": "", "timestamp": times, "glucose": values}), "glucose", grid)
        reason = self._refusal(age, panel)
        provenance = _provenance(times, values, panel)
        if reason:
            return self._response("abstained", reason, "nobody", [], age, provenance)
        origin = panel.origins[-1:]
        context, minute = panel.context(origin), panel.minute[origin].astype(np.int64)
        mean, quantiles = self.forecast(request.subject_id, context, minute)
        known = self.knows(request.subject_id, minute // MINUTES_A_DAY)
        way = self.people.ways.get(request.subject_id or "", "none") if known else "none"
        steps = _steps(mean[0], quantiles[0], grid.horizons_minutes, self.levels)
        return self._response("forecast", "", "base" if way == "none" else "adapter", steps, age, provenance)

    def _refusal(self, age: float, panel: Panel) -> str:
        if age < -1:
            return "the last reading lies after asked_at"
        if age > self.max_age_minutes:
            return f"the last reading is {age:.0f} minutes old, at most {self.max_age_minutes:g} are accepted"
        there = np.flatnonzero(panel.subject >= 0)
        if not len(panel.origins) or panel.origins[-1] != there[-1]:
            hours = panel.grid.recent_length * panel.grid.step_minutes / 60
            gap = panel.grid.interpolate_minutes
            return f"the last {hours:g} hours have a gap of more than {gap} minutes, or are not all there"
        return ""

    def _response(
        self, status: Any, reason: str, spoke: Any, steps: list[Forecast], age: float, provenance: Provenance
    ) -> GlucoseResponse:
        return GlucoseResponse(
            status=status,
            reason=reason,
            spoke=spoke,
            forecast=steps,
            data_age_minutes=round(age, 2),
            provenance=provenance,
            model_version=self.version,
            hallmark_sha256=self.digest,
            disclaimer=DISCLAIMER,
            assisted_by="AIAST",
        )


def _steps(mean: Floats, quantiles: Floats, minutes: Sequence[int], levels: tuple[float, ...]) -> list[Forecast]:
    middle = levels.index(0.5)
    found = []
    for i, minute in enumerate(minutes):
        q = [round(float(v), 1) for v in quantiles[i]]
        intervals = [
            Interval(nominal_coverage=round(nominal, 4), low_mg_dl=q[low], high_mg_dl=q[high])
            for low, high, nominal in pairs(levels)
        ]
        found.append(
            Forecast(minutes=minute, mean_mg_dl=round(float(mean[i]), 1), median_mg_dl=q[middle], intervals=intervals)
        )
    return found


def _provenance(times: Any, values: Floats, panel: Panel) -> Provenance:
    lines = "".join(f"{t},{v!r}\n" for t, v in zip(times.astype(str), values.tolist(), strict=True))
    interpolated = int(np.count_nonzero(~np.isnan(panel.filled)) - np.count_nonzero(~np.isnan(panel.values)))
    return Provenance(
        rows_used=len(values),
        rows_interpolated=interpolated,
        first=times[0].item(),
        last=times[-1].item(),
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
    )


def save_people(out: Path, table: pd.DataFrame, history: History, subjects: Sequence[str]) -> None:
    """Write everybody's newest rows and the table of choices; the LoRA directories already lie there."""
    entries = []
    for code, subject_id in enumerate(subjects):
        row = table[table["subject_id"] == subject_id].iloc[0]
        file = out / directory_of(subject_id) / "history.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = history.newest(code).tensors()
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(file))
        entry = {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.to_dict().items()}
        entries.append({**entry, "history_sha256": sha256(file)})
    write_json(out / "people.json", entries)


def load_people(directory: Path, base: Base) -> People:
    """Read the table of choices."""
    table = read_json(directory / "people.json")
    ways = {row["subject_id"]: row["way"] for row in table}
    return People(base, ways, directory, {row["subject_id"]: row["sha256"] for row in table})


def load_newest(directory: Path) -> tuple[History | None, dict[str, int]]:
    """Read everybody's newest rows, checking every file's sha256."""
    histories: list[History] = []
    codes: dict[str, int] = {}
    for row in read_json(directory / "people.json"):
        file = directory / directory_of(row["subject_id"]) / "history.safetensors"
        if not file.is_file() or sha256(file) != row["history_sha256"]:
            raise BundleError(f"history of subject {row['subject_id']!r} is missing or changed: make the bundle again")
        codes[row["subject_id"]] = len(histories)
        arrays = load_file(str(file))
        histories.append(History(**{f.name: arrays[f.name] for f in fields(History)}))
    return (stack(histories) if histories else None), codes


def save_calibration(out: Path, calibration: Calibration) -> None:
    """Write the offsets."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {"population": np.ascontiguousarray(calibration.population), "personal": calibration.personal},
        str(out / "offsets.safetensors"),
    )
    write_json(out / "index.json", {k: list(v) for k, v in calibration.first_row.items()})


def load_calibration(directory: Path) -> Calibration:
    """Read the offsets."""
    arrays = load_file(str(directory / "offsets.safetensors"))
    index = {k: (v[0], v[1], v[2]) for k, v in read_json(directory / "index.json").items()}
    return Calibration(arrays["population"], arrays["personal"], index)


def open_predictor(
    model: Path, max_age_minutes: float, max_history_age_days: int, version: str, digest: str
) -> GlucosePredictor:
    """Open a model directory for serving: everybody's newest history."""
    base = load_base(model / "base")
    history, codes = load_newest(model / "people")
    people, calibration = load_people(model / "people", base), load_calibration(model / "calibration")
    limits = (max_age_minutes, max_history_age_days)
    return GlucosePredictor(people, history, codes, calibration, *limits, version, digest)
