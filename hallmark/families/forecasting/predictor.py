"""ForecastPredictor: requests in, calibrated forecasts or abstentions out; evaluation and serving use the same code."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
from pydantic import BaseModel

from hallmark.arrays import Floats, Integers
from hallmark.evidence import Evidence, Observations
from hallmark.families.forecasting.base_model import Base
from hallmark.families.forecasting.intervals import Calibration, widen
from hallmark.families.forecasting.linear_bank import HistoryLookup, SubjectHistory
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, means_of_runs, nearest_slots, panel_of
from hallmark.families.forecasting.personalisation import Batch, Personalisation
from hallmark.families.forecasting.task import Answer, ForecastTask, Used

BLOCK = 16  # rows of a forward pass whose bits depend on their number
LARGEST = 64  # rows of a forward pass whose bits do not
PROBED = (4, 5, 6, 7, 8, 9, 12, 15, 17, 24, 31, 32, 33, 48, 63, 64)
SMALLEST = 4  # fewer rows take other kernels, whatever is pinned


@dataclass(frozen=True)
class _Draft:
    """A request that may be answered: its inputs, and fields of its answer.

    Attributes:
        subject_id: the subject whose method answers; None for a newcomer.
        day: (1,) of the last reading.
        batch: one row, assembled.
        fallback: why a named subject's past is not used, else empty.
        history_sha256: digest of the past that was read, else empty.
    """

    subject_id: str | None
    day: Integers
    batch: dict[str, Any]
    fallback: str
    history_sha256: str


@dataclass(frozen=True)
class ForecastPredictor:
    """A trained model with its adapters.

    Attributes:
        task: reads requests, refuses and responds.
        personalisation: base and LoRA adapters.
        histories: past of all subjects, including the linear adapters.
        calibration: offsets of the intervals.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    task: ForecastTask
    personalisation: Personalisation
    histories: HistoryLookup
    calibration: Calibration
    version: str
    digest: str

    @property
    def base(self) -> Base:
        """The base model."""
        return self.personalisation.base

    @property
    def networks(self) -> list[Any]:
        """The base's network, and the one that adapters are multiplied with; see `Placeable`."""
        both = [self.base.forecaster, self.base.network]
        return both if self.base.exported is not None else both[:1]

    @property
    def levels(self) -> tuple[float, ...]:
        """Quantile levels."""
        return self.base.forecaster.shape.quantile_levels

    def forecast(self, subject_id: str, context: Floats, minute: Integers) -> tuple[Floats, Floats]:
        """Forecast many of one subject's windows, for evaluation.

        Args:
            subject_id: one that the model does not know is a newcomer.
            context: (B, C) readings, oldest first, in the task's unit.
            minute: (B,) local wall-clock minute of the last reading.

        Returns:
            Mean (B, H) and calibrated quantiles (B, H, Q), in the task's unit and range.

        Raises:
            BundleError: the subject's LoRA adapter is missing or changed.
        """
        day = minute // MINUTES_A_DAY
        with self._past(subject_id, day) as (past, _):
            if past is None:
                mean, quantiles = self.base.forecast(context, minute, None, None)
            else:
                mean, quantiles = self.personalisation.forecast(
                    subject_id, context, minute, past.history, past.rows(day)
                )
        return self._calibrated(mean, quantiles, subject_id if past else None, day)

    def predict(self, requests: Sequence[Any]) -> list[BaseModel]:
        """Answer every request in order; see `predict_with_evidence`."""
        return [answer for answer, _ in self.predict_with_evidence(requests)]

    def predict_with_evidence(self, requests: Sequence[Any]) -> list[tuple[BaseModel, Evidence]]:
        """Answer every request in order, with the digests of what was multiplied for it.

        Requests share forward passes. An answer's bits depend on its own request alone, not on the other requests, nor
        on their number: see `pass_sizes`.
        """
        answers: dict[int, tuple[BaseModel, Evidence]] = {}
        drafts: list[tuple[int, _Draft, Callable[..., BaseModel]]] = []
        for i, request in enumerate(requests):
            read = self._read(request)
            if isinstance(read, tuple):
                drafts.append((i, *read))
            else:
                answers[i] = read, Evidence(self.base.digest)
        if drafts:  # a request that is refused needs no pass, nor the trial of their sizes
            fewest, most = self._sizes()
            for start in range(0, len(drafts), most):
                block = drafts[start : start + most]
                for (i, draft, respond), found in zip(block, self._rows([d for _, d, _ in block], fewest), strict=True):
                    answers[i] = self._finish(*found, draft, respond)
        return [answers[i] for i in range(len(requests))]

    @property
    def influence_unit(self) -> str:
        """What influences are measured in; see `Traceable`."""
        return f"largest change of a median, {self.task.unit}"

    def observations(self, request: Any) -> Observations:
        """Name the readings that an answer rests on, by their times; see `Traceable`."""
        grid, readings = self.base.assembler.grid, self.task.read(request)
        slot = nearest_slots(readings.times, grid.step_minutes)
        # Readings of one second share an id: the family knows no finer time.
        used = tuple(dict.fromkeys(_ids(readings.times[slot > slot[-1] - grid.context_length])))
        day = slot[-1:] * grid.step_minutes // MINUTES_A_DAY
        with self._past(readings.subject_id, day) as (past, _):
            if past is None or readings.subject_id is None:
                return Observations(used)
        days, known = self.histories.readings(readings.subject_id, int(day[0]))
        adapted = self.personalisation.methods.get(readings.subject_id, "none") != "none"
        return Observations(used, tuple(_ids(known)), days if adapted else None)

    def without(self, request: Any, observation: str | None) -> Any:
        """Leave out a reading, or the subject's past; see `Traceable`."""
        if observation is None:
            return request.model_copy(update={"subject_id": None})
        time = datetime.fromisoformat(observation)
        rest = [reading for reading in request.readings if reading.timestamp.replace(microsecond=0) != time]
        return request.model_copy(update={"readings": rest}) if rest else None

    def figures(self, response: Any) -> list[float]:
        """Return the medians of an answer; see `Traceable`."""
        return [step.median for step in self.task.steps(response)]

    def _rows(self, drafts: Sequence[_Draft], fewest: int) -> list[tuple[Batch, int]]:
        """Run a forward pass; if it fails, one for each row, so that only the row that fails has no answer."""
        if not self.base.whole:
            nothing = self._nothing("its weights are missing, or were changed after they were made")
            return [(nothing, 0)] * len(drafts)
        try:
            answered = self._pass(drafts, fewest)
        except RuntimeError as error:  # of torch; its text may quote numbers of a request
            if len(drafts) == 1:
                return [(self._nothing(type(error).__name__), 0)]
            return [found for draft in drafts for found in self._rows([draft], fewest)]
        return [(answered, row) for row in range(len(drafts))]

    def _pass(self, drafts: Sequence[_Draft], fewest: int) -> Batch:
        """Run a forward pass, filled up to a number of rows with copies of the first."""
        filled = [*drafts, *[drafts[0]] * (fewest - len(drafts))]
        batch = {name: np.concatenate([draft.batch[name] for draft in filled]) for name in filled[0].batch}
        return self.personalisation.answer([draft.subject_id for draft in filled], batch)

    def _nothing(self, failure: str) -> Batch:
        unknown = np.full((1, len(self.base.assembler.intercept), len(self.levels)), np.nan, dtype=np.float32)
        return Batch(unknown[..., 0], unknown, [""], [""], failure)

    def _sizes(self) -> tuple[int, int]:
        try:
            return self.pass_sizes if self.base.whole else (1, LARGEST)
        except RuntimeError:  # of torch: tried again with the next request
            return BLOCK, BLOCK

    @cached_property
    def pass_sizes(self) -> tuple[int, int]:
        """Smallest and largest number of rows of a forward pass, tried once on this machine.

        Where the bits of a row are the same in passes of every size from `SMALLEST` on, passes have as many rows as
        there are requests; otherwise all have `BLOCK`.

        Raises:
            RuntimeError: a pass failed.
        """
        drafts = self._probes(LARGEST)
        expected = self._pass(drafts[:BLOCK], BLOCK)
        for rows in PROBED:
            answered = self._pass(drafts[:rows], rows)
            shared = min(rows, BLOCK)
            pairs = ((answered.mean, expected.mean), (answered.quantiles, expected.quantiles))
            if not all(np.array_equal(a[:shared], b[:shared]) for a, b in pairs):
                return BLOCK, BLOCK
        return SMALLEST, LARGEST

    def _probes(self, count: int) -> list[_Draft]:
        """Make contexts that no person has: a random walk each, some with adapters."""
        grid, generator = self.base.assembler.grid, np.random.default_rng(0)
        scale = self.base.assembler.scale
        subjects = sorted(s for s, method in self.personalisation.methods.items() if method == "lora")[:2]
        minute = np.zeros(1, dtype=np.int64)
        drafts = []
        for number in range(count):
            steps = generator.normal(0, 0.05 * scale.spread, (1, grid.context_length))
            context = (scale.center + np.cumsum(steps, axis=1)).astype(np.float32)
            subject = subjects[number % len(subjects)] if subjects and number % 2 else None
            drafts.append(_Draft(subject, minute, self.base.assembler.batch(context, minute, None, None), "", ""))
        return drafts

    def _finish(
        self, answered: Batch, row: int, draft: _Draft, respond: Callable[..., BaseModel]
    ) -> tuple[BaseModel, Evidence]:
        """Make the response and the evidence of one row of a batch."""
        one_row = slice(row, row + 1)
        mean, quantiles = answered.mean[one_row], answered.quantiles[one_row]
        if not (np.isfinite(mean).all() and np.isfinite(quantiles).all()):
            return self._baseline(draft, respond, answered.failure or "its forecast is not finite")
        mean, spread = self._calibrated(mean, quantiles, draft.subject_id, draft.day)
        adapted = self.personalisation.methods.get(draft.subject_id or "", "none") != "none"
        reason = answered.reasons[row]
        response = respond(
            "forecast",
            served_by="adapter" if adapted else "base",
            mean=mean[0],
            quantiles=spread[0],
            fallback=f"the linear adapter answered alone: {reason}" if reason else draft.fallback,
        )
        linear_adapter = draft.history_sha256 if adapted else ""  # a subject's history holds its linear adapter
        adapter = answered.digests[row] or linear_adapter
        return response, Evidence(self.base.digest, adapter, draft.history_sha256)

    def _baseline(self, draft: _Draft, respond: Callable[..., BaseModel], failure: str) -> tuple[BaseModel, Evidence]:
        """Answer by the population ridge, with the intervals of its own errors on validation windows."""
        mean = draft.batch["anchor"]
        quantiles = self._clipped(mean[..., None] + self.calibration.baseline)
        response = respond(
            "forecast",
            served_by="baseline",
            mean=self._clipped(mean)[0],
            quantiles=quantiles[0],
            fallback=f"the network cannot answer: {failure}; the population ridge answers instead",
        )
        return response, Evidence(self.base.assembler.digest)

    @contextmanager
    def _past(self, subject_id: str | None, day: Integers) -> Iterator[tuple[SubjectHistory | None, str]]:
        """Hold the past that may be used on some days; yields None and the reason if there is none."""
        if subject_id is None:
            yield None, ""
            return
        longest = self.task.max_history_age_days
        with self.histories.of(subject_id) as (past, why):
            if past is not None and not past.knows(day, longest):
                why = f"the history on file ends over {longest} days before, or begins after"
                past = None
            yield past, why

    def _calibrated(
        self, mean: Floats, quantiles: Floats, subject_id: str | None, day: Integers
    ) -> tuple[Floats, Floats]:
        quantiles = widen(quantiles, self.calibration.of(subject_id, day), self.levels)
        return self._clipped(mean), self._clipped(quantiles)

    def _clipped(self, values: Floats) -> Floats:
        clipped: Floats = np.clip(values, self.task.lowest, self.task.highest)
        return clipped

    def _read(self, request: Any) -> BaseModel | tuple[_Draft, Callable[..., BaseModel]]:
        """Abstain, or assemble the request and return it with the function that makes its response."""
        grid, readings = self.base.assembler.grid, self.task.read(request)
        age = (readings.asked_at - readings.times[-1].item()).total_seconds() / 60
        slot = nearest_slots(readings.times, grid.step_minutes)
        used = slot > slot[-1] - grid.context_length
        times, values, slot = readings.times[used], readings.values[used], slot[used]
        # As in cleaning: readings of one grid step become their mean, at the time of the first.
        again = np.diff(slot, prepend=slot[0] - 1) == 0
        times, values = times[~again], means_of_runs(values, again)
        slot = slot[~again]
        panel = panel_of(("",), np.zeros(len(slot), dtype=np.int64), slot, values, grid)
        respond = partial(self._respond, age_minutes=age, used=_used(times, values, panel))
        if reason := self._refusal(age, panel):
            return respond("abstained", reason=reason)
        origin = panel.origins[-1:]
        context, minute = panel.context(origin), panel.minute[origin].astype(np.int64)
        day = minute // MINUTES_A_DAY
        with self._past(readings.subject_id, day) as (past, why):
            rows = None if past is None else past.rows(day)
            batch = self.base.assembler.batch(context, minute, None if past is None else past.history, rows)
        digest = "" if past is None else past.sha256
        return _Draft(readings.subject_id if past else None, day, batch, why, digest), respond

    def _refusal(self, age: float, panel: Panel) -> str:
        if age < -1:
            return "the last reading lies after asked_at"
        if age > self.task.max_age_minutes:
            return f"the last reading is {age:.0f} minutes old, at most {self.task.max_age_minutes:g} are accepted"
        points = np.flatnonzero(panel.subject >= 0)
        if not len(panel.origins) or panel.origins[-1] != points[-1]:
            hours = panel.grid.recent_length * panel.grid.step_minutes / 60
            gap = panel.grid.bridged_intervals
            return (
                f"the last {hours:g} hours have a gap of more than {gap} intervals of the sensor "
                f"({panel.interval_minutes[0]:g} minutes each), or are incomplete"
            )
        return self.task.refusal(panel)

    def _respond(
        self,
        status: Any,
        *,
        age_minutes: float,
        used: Used,
        reason: str = "",
        served_by: Any = "none",
        mean: Floats | None = None,
        quantiles: Floats | None = None,
        fallback: str = "",
    ) -> BaseModel:
        nothing = np.empty(0, dtype=np.float32)
        return self.task.respond(
            Answer(
                status=status,
                reason=reason,
                served_by=served_by,
                fallback=fallback,
                minutes=self.base.assembler.grid.horizons_minutes if mean is not None else (),
                mean=nothing if mean is None else mean,
                quantiles=nothing if quantiles is None else quantiles,
                levels=self.levels,
                age_minutes=age_minutes,
                used=used,
                version=self.version,
                digest=self.digest,
            )
        )


def _ids(times: Any) -> list[str]:
    return [str(time) for time in np.datetime_as_string(times, unit="s")]


def _used(times: Any, values: Floats, panel: Panel) -> Used:
    lines = "".join(f"{t},{v!r}\n" for t, v in zip(times.astype(str), values.tolist(), strict=True))
    interpolated = int(np.count_nonzero(~np.isnan(panel.filled)) - np.count_nonzero(~np.isnan(panel.values)))
    return Used(
        rows=len(values),
        interpolated=interpolated,
        interval_minutes=float(panel.interval_minutes[0]),
        first=times[0].item(),
        last=times[-1].item(),
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
    )
