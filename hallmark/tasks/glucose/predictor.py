"""One call for evaluation and serving: windows in, calibrated forecasts out, each its person's own way."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from hallmark.adapters.bank import AdapterSpec
from hallmark.arrays import Floats, Integers
from hallmark.errors import BundleError
from hallmark.families.forecasting.assemble import Assembler
from hallmark.families.forecasting.base_forecaster import Base, load_base
from hallmark.families.forecasting.diary import Diary
from hallmark.families.forecasting.history import History, row_sizes
from hallmark.families.forecasting.intervals import Calibration, pairs, widen
from hallmark.families.forecasting.linear_bank import HistoryFiles, LinearBank, Past, Pasts, ResidentPasts
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, build_panel, means_of_runs, nearest_slots
from hallmark.families.forecasting.personal import SEATS, WAYS, People
from hallmark.files import directory_of, read_json, readable, write_json
from hallmark.tasks.glucose.messages import (
    DISCLAIMER,
    HIGHEST_MG_DL,
    LOWEST_MG_DL,
    Forecast,
    GlucoseRequest,
    GlucoseResponse,
    Interval,
    Provenance,
)

BLOCK = 16  # rows of every forward pass that answers requests
JUMPS_MG_DL = 40.0  # median change from one reading to the next that no sensor shows


@dataclass(frozen=True)
class _Draft:
    """A request that may be answered: its inputs, and what its answer carries.

    Attributes:
        subject_id: whose way answers; None for a newcomer.
        day: (1,) of the last reading.
        batch: one row, assembled.
        fallback: why a named subject's past is not used, else empty.
    """

    subject_id: str | None
    day: Integers
    batch: dict[str, Any]
    fallback: str


@dataclass(frozen=True)
class GlucosePredictor:
    """A trained model with its people.

    Attributes:
        people: base and LoRA adapters.
        pasts: everybody's past, the linear adapters among it.
        calibration: offsets of the intervals.
        max_age_minutes: older data are refused.
        max_history_age_days: a history that ended longer before a request is not used: the base model answers.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    people: People
    pasts: Pasts
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

    def forecast(self, subject_id: str, context: Floats, minute: Integers) -> tuple[Floats, Floats]:
        """Forecast many of one person's windows, for evaluation.

        Args:
            subject_id: one that the model does not know is a newcomer.
            context: (B, C) readings, oldest first, mg/dL.
            minute: (B,) local wall-clock minute of the last reading.

        Returns:
            Mean (B, H) and calibrated quantiles (B, H, Q), mg/dL, within the range of sensors.

        Raises:
            BundleError: the person's LoRA adapter is missing or changed.
        """
        day = minute // MINUTES_A_DAY
        with self._past(subject_id, day) as (past, _):
            if past is None:
                mean, quantiles = self.base.forecast(context, minute, None, None)
            else:
                mean, quantiles = self.people.forecast(subject_id, context, minute, past.history, past.rows(day))
        return self._calibrated(mean, quantiles, subject_id if past else None, day)

    def predict(self, requests: Sequence[GlucoseRequest]) -> list[GlucoseResponse]:
        """Answer every request in order.

        Requests share forward passes of `BLOCK` rows, filled up, so that an answer's bits depend on its own request
        alone: not on how many came with it, nor on whose they are.
        """
        found: list[GlucoseResponse | None] = [None] * len(requests)
        drafts: list[tuple[int, _Draft, Callable[..., GlucoseResponse]]] = []
        for i, request in enumerate(requests):
            read = self._read(request)
            if isinstance(read, GlucoseResponse):
                found[i] = read
            else:
                drafts.append((i, *read))
        for start in range(0, len(drafts), BLOCK):
            part = drafts[start : start + BLOCK]
            filled = [draft for _, draft, _ in part] + [part[0][1]] * (BLOCK - len(part))
            batch = {name: np.concatenate([draft.batch[name] for draft in filled]) for name in filled[0].batch}
            means, quantiles, silent = self.people.answer([draft.subject_id for draft in filled], batch)
            for row, (i, draft, respond) in enumerate(part):
                here = slice(row, row + 1)
                mean, spread = self._calibrated(means[here], quantiles[here], draft.subject_id, draft.day)
                steps = _steps(mean[0], spread[0], self.base.assembler.grid.horizons_minutes, self.levels)
                spoke = "adapter" if self.people.ways.get(draft.subject_id or "", "none") != "none" else "base"
                why = f"the linear adapter spoke alone: {silent[row]}" if silent[row] else draft.fallback
                found[i] = respond("forecast", spoke=spoke, steps=steps, fallback=why)
        return [answer for answer in found if answer is not None]

    @contextmanager
    def _past(self, subject_id: str | None, day: Integers) -> Iterator[tuple[Past | None, str]]:
        """Hold the past that may speak on some days, or say why there is none."""
        if subject_id is None:
            yield None, ""
            return
        with self.pasts.of(subject_id) as (past, why):
            if past is not None and not past.knows(day, self.max_history_age_days):
                why = f"the history on file ends over {self.max_history_age_days} days before, or begins after"
                past = None
            yield past, why

    def _calibrated(
        self, mean: Floats, quantiles: Floats, subject_id: str | None, day: Integers
    ) -> tuple[Floats, Floats]:
        quantiles = widen(quantiles, self.calibration.of(subject_id, day), self.levels)
        return np.clip(mean, LOWEST_MG_DL, HIGHEST_MG_DL), np.clip(quantiles, LOWEST_MG_DL, HIGHEST_MG_DL)

    def _read(self, request: GlucoseRequest) -> GlucoseResponse | tuple[_Draft, Callable[..., GlucoseResponse]]:
        """Abstain, or assemble the request and return what makes its response."""
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
        respond = partial(self._response, age=age, provenance=_provenance(times, values, panel))
        if reason := self._refusal(age, panel):
            return respond("abstained", reason=reason)
        origin = panel.origins[-1:]
        context, minute = panel.context(origin), panel.minute[origin].astype(np.int64)
        day = minute // MINUTES_A_DAY
        with self._past(request.subject_id, day) as (past, why):
            rows = None if past is None else past.rows(day)
            batch = self.base.assembler.batch(context, minute, None if past is None else past.history, rows)
        return _Draft(request.subject_id if past else None, day, batch, why), respond

    def _refusal(self, age: float, panel: Panel) -> str:
        if age < -1:
            return "the last reading lies after asked_at"
        if age > self.max_age_minutes:
            return f"the last reading is {age:.0f} minutes old, at most {self.max_age_minutes:g} are accepted"
        there = np.flatnonzero(panel.subject >= 0)
        if not len(panel.origins) or panel.origins[-1] != there[-1]:
            hours = panel.grid.recent_length * panel.grid.step_minutes / 60
            gap = panel.grid.bridged_intervals
            return (
                f"the last {hours:g} hours have a gap of more than {gap} intervals of the sensor "
                f"({panel.interval_minutes[0]:g} minutes each), or are not all there"
            )
        recent = panel.values[there][-panel.grid.recent_length :]
        changes = np.abs(np.diff(recent[~np.isnan(recent)]))
        if not changes.any():
            return "all readings of the last hours are equal: no sensor reads like this"
        if (usual := float(np.median(changes))) > JUMPS_MG_DL:
            return f"readings change by {usual:.0f} mg/dL from one to the next: no sensor reads like this"
        return ""

    def _response(
        self,
        status: Any,
        *,
        age: float,
        provenance: Provenance,
        reason: str = "",
        spoke: Any = "nobody",
        steps: Sequence[Forecast] = (),
        fallback: str = "",
    ) -> GlucoseResponse:
        return GlucoseResponse(
            status=status,
            reason=reason,
            spoke=spoke,
            fallback=fallback,
            forecast=list(steps),
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
        sensor_minutes=float(panel.interval_minutes[0]),
        first=times[0].item(),
        last=times[-1].item(),
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
    )


def save_people(out: Path, table: pd.DataFrame, spec: AdapterSpec, history: History, subjects: Sequence[str]) -> None:
    """Write everybody's newest midnights and the table of choices; the LoRA directories already lie there."""
    files = HistoryFiles({subject_id: _history_file(out, subject_id) for subject_id in subjects}, {}, {})
    rows = table.set_index("subject_id", drop=False)
    entries = []
    for code, subject_id in enumerate(subjects):
        digest = files.write(subject_id, history.newest(code))
        row = rows.loc[subject_id].to_dict()
        entry = {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()}
        entries.append({**entry, "history_sha256": digest})
    write_json(out / "people.json", entries)
    write_json(out / "adapters.json", spec.plain())


def refresh_people(people: Path, history: History, diary: Diary) -> None:
    """Write everybody's newest midnights again; who has joined since training gets the default way, without a gate."""
    files = HistoryFiles({subject_id: _history_file(people, subject_id) for subject_id in diary.subjects}, {}, {})
    rows = {row["subject_id"]: row for row in read_json(people / "people.json")}
    for code, subject_id in enumerate(diary.subjects):
        joined = {"subject_id": subject_id, "way": diary.joining, "sha256": "", "reason": "joined after training"}
        row = rows.setdefault(subject_id, joined)
        row["history_sha256"] = files.write(subject_id, history.newest(code))
    write_json(people / "people.json", [rows[subject_id] for subject_id in sorted(rows)])


def _history_file(people: Path, subject_id: str) -> Path:
    return people / directory_of(subject_id) / "history.safetensors"


def load_people(directory: Path, base: Base) -> People:
    """Read the table of choices.

    Raises:
        BundleError: the adapters were made for another base.
    """
    with readable(directory, "run `dvc repro train`"):
        spec = AdapterSpec.of(read_json(directory / "adapters.json"))
        table = read_json(directory / "people.json")
        ways = {row["subject_id"]: row["way"] for row in table}
        digests = {row["subject_id"]: row["sha256"] for row in table}
        if unknown := sorted(set(ways.values()) - set(WAYS)):
            raise ValueError(f"people.json has a way {unknown[0]!r}")
        if unmarked := [subject for subject, way in ways.items() if way == "lora" and not digests[subject]]:
            raise ValueError(f"people.json has no sha256 of the adapter of {unmarked[0]!r}")
    if spec.base != base.digest:
        raise BundleError(
            f"{directory} holds adapters of base {spec.base[:12]}, this is {base.digest[:12]}: run `dvc repro train`"
        )
    return People(base, ways, directory, digests, spec)


def load_pasts(directory: Path, assembler: Assembler) -> ResidentPasts:
    """Open everybody's newest midnights: a file is read, and its sha256 checked, when its subject first asks."""
    sizes = row_sizes(assembler.grid, assembler.history, assembler.scale)
    with readable(directory, "run `dvc repro train`"):
        table = read_json(directory / "people.json")
        files = {row["subject_id"]: _history_file(directory, row["subject_id"]) for row in table}
        store = HistoryFiles(files, {row["subject_id"]: row["history_sha256"] for row in table}, sizes)
    return ResidentPasts(LinearBank(sizes, max(1, min(SEATS, len(files)))), store)


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
    with readable(directory, "run `dvc repro train`"):
        arrays = load_file(str(directory / "offsets.safetensors"))
        index = {k: (v[0], v[1], v[2]) for k, v in read_json(directory / "index.json").items()}
        return Calibration(arrays["population"], arrays["personal"], index)


def open_predictor(
    model: Path, max_age_minutes: float, max_history_age_days: int, version: str, digest: str
) -> GlucosePredictor:
    """Open a model directory for serving: everybody's newest history."""
    base = load_base(model / "base")
    people, calibration = load_people(model / "people", base), load_calibration(model / "calibration")
    limits = (max_age_minutes, max_history_age_days)
    return GlucosePredictor(people, load_pasts(model / "people", base.assembler), calibration, *limits, version, digest)
