"""ForecastTask: abstract base class of forecasting tasks, and the records that it exchanges."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field

from hallmark.arrays import Array, Floats
from hallmark.build import Positive, configuration
from hallmark.contracts import Clean, Prepared, Raw
from hallmark.families.forecasting.leakage import check_leakage
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Panel, TimeGrid, ValueScale, build_panel
from hallmark.families.forecasting.splits import SplitConfig, SplitPanel, split
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
    def medians(self, response: Any) -> list[float]:
        """Return the median at every horizon of an answer, empty if it has abstained."""

    def refusal(self, panel: Panel) -> str:
        """Return why there is no forecast from readings that are new and complete; empty if there is one."""
        return ""

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
