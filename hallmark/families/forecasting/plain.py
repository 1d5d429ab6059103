"""PlainForecastTask: base class with default cleaning and messages; a subclass sets value, unit and range."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hallmark.build import configuration
from hallmark.contracts import Clean, Raw
from hallmark.errors import DataError
from hallmark.families.forecasting.messages import ForecastRequest, ForecastResponse, Interval, Step
from hallmark.families.forecasting.panel import means_of_runs, nearest_slots
from hallmark.families.forecasting.task import Answer, Expected, ForecastTask, Readings, pairs
from hallmark.read.validation import Ledger, ReadingLimits, require_columns


@configuration
class PlainForecastTask(ForecastTask):
    """Cleans a table of subject_id, timestamp and `value`, and answers with the family's own types."""

    disclaimer: ClassVar[str] = "A statistical forecast, produced by a machine."

    def clean(self, raw: Raw) -> Clean:
        """Drop rows without subject, time or number, or out of range; merge readings of one grid step.

        Raises:
            DataError: a column is missing, too many rows were dropped, or none is left.
        """
        require_columns(raw.rows, ("subject_id", "timestamp", self.value), "the source's table")
        frame = raw.rows[["subject_id", "timestamp", self.value]].reset_index(drop=True)
        ledger = Ledger(len(frame))
        frame = frame.assign(subject_id=frame["subject_id"].astype("string").str.strip().fillna(""))
        frame = ledger.drop(frame, (frame["subject_id"] == "").to_numpy(dtype=bool), "no subject_id")
        for subject, why in raw.excluded.items():
            frame = ledger.drop(frame, (frame["subject_id"] == subject).to_numpy(dtype=bool), why, "excluded")
        frame = _readings(frame, self.value, self.limits, ledger)
        outside = ~frame[self.value].between(self.lowest, self.highest).to_numpy(dtype=bool)
        frame = ledger.drop(frame, outside, f"outside {self.lowest:g} to {self.highest:g} {self.unit}")
        frame = _merged(frame, self.value, self.grid.step_minutes, ledger)
        time = frame.groupby("subject_id")["timestamp"]
        days: Any = time.transform("max") - time.transform("min")
        few = (days < pd.Timedelta(days=self.limits.min_days)).to_numpy(dtype=bool)
        frame = ledger.drop(frame, few, f"subject has fewer than {self.limits.min_days:g} days")
        ledger.enforce(self.limits)
        if frame.empty:
            raise DataError("no row is left: see the limits under task.limits")
        rows = frame.astype({"subject_id": str, self.value: "float32"}).reset_index(drop=True)
        subjects = raw.subjects.assign(subject_id=raw.subjects["subject_id"].astype(str))
        subjects = subjects[subjects["subject_id"].isin(rows["subject_id"])].sort_values("subject_id")
        return Clean(rows, subjects.reset_index(drop=True), ledger.report(len(rows), {"subjects": len(subjects)}))

    def request_type(self) -> type[ForecastRequest]:
        """The pydantic type of a request."""
        return ForecastRequest

    def response_type(self) -> type[ForecastResponse]:
        """The pydantic type of an answer."""
        return ForecastResponse

    def read(self, request: ForecastRequest) -> Readings:
        """Return the readings of a request; see `ForecastTask.read`."""
        times = np.array([reading.timestamp for reading in request.readings], dtype="datetime64[s]")
        values = np.array([reading.value for reading in request.readings], dtype=np.float32)
        return Readings(request.subject_id, request.asked_at, times, values)

    def respond(self, answer: Answer) -> ForecastResponse:
        """Convert an answer to its response type; see `ForecastTask.respond`."""
        return ForecastResponse(
            status=answer.status,
            reason=answer.reason,
            served_by=answer.served_by,
            fallback=answer.fallback,
            unit=self.unit,
            forecast=[_step(answer, i) for i in range(len(answer.minutes))],
            data_age_minutes=round(answer.age_minutes, 2),
            last_reading=answer.used.last,
            rows_used=answer.used.rows,
            rows_sha256=answer.used.sha256,
            model_version=answer.version,
            hallmark_sha256=answer.digest,
            disclaimer=self.disclaimer,
        )

    def steps(self, response: ForecastResponse) -> Sequence[Expected]:
        """Return every horizon of an answer; see `ForecastTask.steps`."""
        return [
            Expected(s.minutes, s.mean, s.median, tuple((i.nominal_coverage, i.low, i.high) for i in s.intervals))
            for s in response.forecast
        ]

    def last_reading(self, response: ForecastResponse) -> datetime:
        """Return the time of the last reading; see `ForecastTask.last_reading`."""
        return response.last_reading


def _step(answer: Answer, i: int) -> Step:
    q = [float(f"{value:.6g}") for value in answer.quantiles[i]]
    return Step(
        minutes=answer.minutes[i],
        mean=float(f"{answer.mean[i]:.6g}"),
        median=q[answer.levels.index(0.5)],
        intervals=[
            Interval(nominal_coverage=round(coverage, 4), low=q[low], high=q[high])
            for low, high, coverage in pairs(answer.levels)
        ],
    )


def _readings(frame: pd.DataFrame, value: str, limits: ReadingLimits, ledger: Ledger) -> pd.DataFrame:
    """Keep rows with a time and a number."""
    times: Any = pd.to_datetime(frame["timestamp"], errors="coerce")
    if getattr(times.dtype, "tz", None) is not None:
        raise DataError("column 'timestamp' has a time zone: give local wall-clock times without one")
    numbers = pd.to_numeric(frame[value], errors="coerce").astype("float64")
    frame = frame.assign(timestamp=times.astype("datetime64[s]"), **{value: numbers})
    frame = ledger.drop(frame, frame["timestamp"].isna().to_numpy(), "no timestamp")
    frame = ledger.drop(frame, ~np.isfinite(frame[value]).to_numpy(dtype=bool), f"no number in {value}")
    latest = pd.Timestamp.now() + pd.Timedelta(days=1) if limits.latest == "today" else pd.Timestamp(limits.latest)
    early = (frame["timestamp"] < pd.Timestamp(limits.earliest)).to_numpy(dtype=bool)
    frame = ledger.drop(frame, early, f"before {limits.earliest}")
    late = (frame["timestamp"] > latest).to_numpy(dtype=bool)
    return ledger.drop(frame, late, f"in the future (after {limits.latest})")


def _merged(frame: pd.DataFrame, value: str, step_minutes: int, ledger: Ledger) -> pd.DataFrame:
    """Sort, and merge readings of one grid step to their mean, at the time of the first."""
    frame = frame.sort_values(["subject_id", "timestamp"], kind="stable")
    slots = frame.assign(slot=nearest_slots(frame["timestamp"].to_numpy(), step_minutes))
    again = slots.duplicated(["subject_id", "slot"]).to_numpy()
    if not again.any():
        return frame
    ledger.count("merged", f"closer than {step_minutes} min (mean taken)", frame.loc[again, "subject_id"])
    means = means_of_runs(frame[value].to_numpy(), again)
    return frame.loc[~again].assign(**{value: means})
