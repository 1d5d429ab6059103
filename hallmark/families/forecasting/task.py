"""ForecastTask: abstract base class of forecasting tasks, and the records that it exchanges."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from hallmark.arrays import Array, Floats
from hallmark.build import Positive, configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.families.forecasting.insight import Insight, insights
from hallmark.families.forecasting.leakage import check_leakage
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, TimeGrid, ValueScale, build_panel, nearest_slots
from hallmark.families.forecasting.splits import SplitConfig, SplitPanel, split
from hallmark.outcomes import Answered, Outcome, OutcomeError
from hallmark.read.validation import ReadingLimits


@dataclass(frozen=True)
class Readings:
    """Contents of a request.

    Attributes:
        subject_id: the subject of the readings; None for a newcomer.
        asked_at: when the forecast is asked for, local wall-clock time.
        times: (N,) of the readings, ascending, `datetime64[s]`.
        values: (N,) in the task's unit.
    """

    subject_id: str | None
    asked_at: datetime
    times: Array
    values: Floats


@dataclass(frozen=True)
class Used:
    """Readings that an answer is based on.

    Attributes:
        rows: readings used.
        interpolated: grid points between them that were interpolated.
        interval_minutes: usual time between two readings, estimated from them.
        first: time of the first one.
        last: time of the last one.
        sha256: of the readings used, as `timestamp,value` lines.
    """

    rows: int
    interpolated: int
    interval_minutes: float
    first: datetime
    last: datetime
    sha256: str


@dataclass(frozen=True)
class Answer:
    """A forecast or an abstention, before the task converts it to its response type.

    Attributes:
        status: whether there is a forecast.
        reason: why there is none; empty otherwise.
        served_by: the model that answered.
        fallback: why a named subject's past or adapter is not used; empty if nothing is amiss.
        minutes: (H,) from the last reading.
        mean: (H,) in the task's unit.
        quantiles: (H, Q) in the task's unit, calibrated.
        levels: (Q,) of the quantiles.
        age_minutes: of the last reading.
        used: the readings that it is based on.
        version: of the model.
        digest: sha256 of the hallmark.
    """

    status: Literal["forecast", "abstained"]
    reason: str
    served_by: Literal["adapter", "base", "baseline", "none"]
    fallback: str
    minutes: tuple[int, ...]
    mean: Floats
    quantiles: Floats
    levels: tuple[float, ...]
    age_minutes: float
    used: Used
    version: str
    digest: str


@dataclass(frozen=True)
class Expected:
    """What an answer says of one horizon, in the task's unit.

    Attributes:
        minutes: from the last reading.
        mean: of the forecast.
        median: of the forecast.
        intervals: central intervals, (nominal coverage, low, high) each.
    """

    minutes: int
    mean: float
    median: float
    intervals: tuple[tuple[float, float, float], ...]


@cache
def pairs(levels: tuple[float, ...]) -> list[tuple[int, int, float]]:
    """Pair the quantiles symmetric about the median: (low index, high index, nominal coverage), widest first."""
    paired = []
    for low, level in enumerate(levels):
        for high in range(len(levels) - 1, low, -1):
            if abs(levels[high] + level - 1) < 1e-9:
                paired.append((low, high, levels[high] - level))
    return paired


@configuration
class ForecastTask(ABC):
    """Methods that all forecasting tasks share; a task adds its cleaning, its messages and its own refusals.

    Attributes:
        name: of the ZenML model and the Bento.
        grid: the grid and the horizons.
        scale: units.
        limits: when cleaning fails.
        split_config: how subjects and time are split.
        max_age_minutes: a request whose last reading is older is refused.
        max_history_age_days: a personal history that ended longer before a request is not used.
    """

    value: ClassVar[str]
    """Column of the readings; its name ends in the unit."""
    unit: ClassVar[str]
    """Unit of the readings, for tables and reports."""
    lowest: ClassVar[float]
    """No reading and no forecast lies below."""
    highest: ClassVar[float]
    """No reading and no forecast lies above."""
    groups: ClassVar[tuple[str, ...]] = ()
    """Columns of the subject table that define segments of the report."""

    name: str
    grid: TimeGrid
    scale: ValueScale
    limits: ReadingLimits
    split_config: SplitConfig
    max_age_minutes: Positive
    max_history_age_days: Annotated[int, Field(ge=0)]

    @abstractmethod
    def clean(self, raw: Raw) -> Clean:
        """Check and clean; the table has the columns subject_id, timestamp and `value`."""

    @abstractmethod
    def request_type(self) -> type[BaseModel]:
        """The pydantic type of a request."""

    @abstractmethod
    def response_type(self) -> type[BaseModel]:
        """The pydantic type of an answer."""

    @abstractmethod
    def read(self, request: Any) -> Readings:
        """Return the contents of a request."""

    @abstractmethod
    def respond(self, answer: Answer) -> BaseModel:
        """Convert an answer to the task's response type."""

    @abstractmethod
    def steps(self, response: Any) -> Sequence[Expected]:
        """Return every horizon of an answer, none if it has abstained."""

    @abstractmethod
    def last_reading(self, response: Any) -> datetime:
        """Return the time of the last reading that an answer is based on, local wall-clock time."""

    def refusal(self, panel: Panel) -> str:
        """Return why there is no forecast from readings that are new and complete; empty if there is one."""
        return ""

    def unlikely(self, value: float) -> str:
        """Return why a value cannot be a reading in the task's unit; empty if it can."""
        if self.lowest <= value <= self.highest:
            return ""
        return f"must lie within {self.lowest:g} and {self.highest:g} {self.unit}"

    def check_outcome(self, response: Any, outcome: Outcome, asked_at: datetime) -> None:
        """Check horizon, number, unit and time of a reading; see `HasOutcomes`."""
        steps = {str(step.minutes): step for step in self.steps(response)}
        if not steps:
            raise OutcomeError("prediction_id", "this answer is no forecast: it has no outcome")
        if (step := steps.get(outcome.horizon)) is None:
            raise OutcomeError("horizon", f"must be a horizon of the forecast, in minutes: {_listed(list(steps))}")
        if isinstance(outcome.value, str):
            raise OutcomeError("value", f"must be a number, in {self.unit}")
        if problem := self.unlikely(outcome.value):
            raise OutcomeError("value", problem)
        expected = self.last_reading(response) + timedelta(minutes=step.minutes)
        if abs(outcome.observed_at.replace(tzinfo=None) - expected) > 2 * timedelta(minutes=self.grid.step_minutes):
            raise OutcomeError(
                "observed_at",
                f"must be the time of the last reading plus the horizon, within {2 * self.grid.step_minutes} minutes, "
                "in the subject's local time with its offset",
            )

    def errors(self, response: Any, horizon: str, value: float | str) -> Mapping[str, float]:
        """Compare a forecast with the reading of its time; see `HasOutcomes`."""
        actual = float(value)
        step = next((step for step in self.steps(response) if str(step.minutes) == horizon), None)
        if step is None:  # an abstention
            return {}
        covered = {f"covered_{100 * c:.0f}": float(low <= actual <= high) for c, low, high in step.intervals}
        return {"absolute_error": abs(actual - step.median), "squared_error": (actual - step.mean) ** 2, **covered}

    def expected(self, response: Any, horizon: str) -> Mapping[str, float]:
        """Estimate the absolute error at a horizon from the intervals; see `Estimating`.

        It is the mean distance from the median of the quantile function, which is taken to be straight between the
        quantiles that the intervals give, and flat beyond the outermost.
        """
        step = next((step for step in self.steps(response) if str(step.minutes) == horizon), None)
        if step is None:
            return {}
        points = [(0.5, step.median)]
        for coverage, low, high in step.intervals:
            points += [((1 - coverage) / 2, low), ((1 + coverage) / 2, high)]
        levels, values = np.asarray(sorted(points)).T
        distance = np.abs(values - step.median)
        inside = float(np.trapezoid(distance, levels))
        return {"absolute_error": inside + float(levels[0] * distance[0] + (1 - levels[-1]) * distance[-1])}

    def insights(self, rows: pd.DataFrame) -> list[Insight]:
        """Return what one subject's readings show; see hallmark/families/forecasting/insight.py.

        Args:
            rows: as `observed` returns them, of one subject.
        """
        column = next(name for name in rows.columns if name not in ("subject_id", "timestamp", "known_at"))
        return insights(rows["timestamp"].to_numpy(), rows[column].to_numpy(), self.unit)

    def observed(self, answers: Sequence[Answered]) -> pd.DataFrame:
        """Return the readings of requests, and between them those that became known as outcomes; see `Observing`.

        Columns subject_id, timestamp (local), `value` and known_at.
        """
        read, told = list[pd.DataFrame](), list[tuple[str, datetime, float, datetime]]()
        for answer in answers:
            readings = self.read(answer.request)
            age = np.datetime64(readings.asked_at, "s") - readings.times
            known_at = np.datetime64(answer.asked_at.astimezone(UTC).replace(tzinfo=None), "s") - age
            columns = {"timestamp": readings.times, self.value: readings.values, "known_at": known_at}
            read.append(pd.DataFrame(columns).assign(subject_id=answer.subject_id))
            last = self.last_reading(answer.response)
            for o in answer.outcomes:
                expected = last + timedelta(minutes=int(o.horizon))
                told.append((answer.subject_id, expected, float(o.value), o.observed_at.astimezone(UTC)))
        outcomes = pd.DataFrame(told, columns=["subject_id", "timestamp", self.value, "known_at"])
        outcomes["known_at"] = pd.to_datetime(outcomes["known_at"], utc=True).dt.tz_localize(None)
        rows = pd.concat([*read, outcomes.astype({"timestamp": "datetime64[s]", "known_at": "datetime64[s]"})])
        slot = nearest_slots(rows["timestamp"].to_numpy(), self.grid.step_minutes)
        once = ~pd.DataFrame({"who": rows["subject_id"].to_numpy(), "slot": slot}).duplicated()  # readings come first
        kept = rows[once.to_numpy()].sort_values(["subject_id", "timestamp"])
        return kept[["subject_id", "timestamp", self.value, "known_at"]].reset_index(drop=True)

    def split(self, clean: Clean) -> pd.DataFrame:
        """Split subjects and time; see hallmark/families/forecasting/splits.py."""
        return split(clean.rows, clean.subjects, self.split_config)

    def split_panel(self, prepared: Prepared) -> SplitPanel:
        """Put the readings on the grid."""
        return SplitPanel(build_panel(prepared.rows, self.value, self.grid), prepared.splits)

    def check_leakage(self, prepared: Prepared) -> dict[str, int]:
        """Check subjects, times, inputs, targets and twins; see hallmark/families/forecasting/leakage.py."""
        return check_leakage(prepared, self.split_panel(prepared), self.value, self.split_config.purge_minutes)

    def data_for_report(self, prepared: Prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the readings, hours and groups of the train split and of the test split."""
        rows = prepared.rows.merge(prepared.splits[["subject_id", "train_end", "test_start"]], on="subject_id")
        rows = rows.merge(prepared.subjects, on="subject_id")
        minute = rows["timestamp"].to_numpy().astype("datetime64[m]").astype(np.int64)
        table = pd.DataFrame({self.value: rows[self.value], "hour": (minute % MINUTES_A_DAY) // 60})
        for column in self.groups:
            table[column] = rows[column].astype("object").where(rows[column].notna(), None)
        return table[minute < rows["train_end"]], table[minute >= rows["test_start"]]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:6])} … {', '.join(names[-3:])}"
