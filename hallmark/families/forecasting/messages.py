"""Default request and response of a forecasting task; values are in the task's unit."""

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, field_validator, model_validator
from pydantic_core import PydanticCustomError

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
MOST_READINGS = 5000
EARLIEST, LATEST = datetime(1970, 1, 1), datetime(2200, 1, 1)  # minutes since 1970 are counted in 32 bits

Local = Annotated[NaiveDatetime, Field(ge=EARLIEST, lt=LATEST, description="local wall-clock time without a zone")]


class Reading(BaseModel):
    """One reading."""

    model_config = STRICT
    timestamp: Local
    value: Annotated[float, Field(strict=True, description="in the task's unit, which every response names")]


class ForecastRequest(BaseModel):
    """Request for a forecast: a subject's readings."""

    model_config = STRICT
    subject_id: Annotated[str | None, Field(max_length=200, description="None for a newcomer")] = None
    asked_at: Local
    readings: Annotated[list[Reading], Field(min_length=1, max_length=MOST_READINGS, description="ascending in time")]

    @field_validator("readings")
    @classmethod
    def _ascending(cls, readings: list[Reading]) -> list[Reading]:
        if any(later.timestamp <= earlier.timestamp for earlier, later in pairwise(readings)):
            raise PydanticCustomError("hallmark_unordered", "readings must ascend in time")
        return readings


class Interval(BaseModel):
    """A central interval at one horizon."""

    model_config = STRICT
    nominal_coverage: float
    low: float
    high: float


class Step(BaseModel):
    """The forecast at one horizon."""

    model_config = STRICT
    minutes: int
    mean: float
    median: float
    intervals: Annotated[list[Interval], Field(min_length=1)]


class ForecastResponse(BaseModel):
    """An answer: a forecast at every horizon, or an abstention with its reason."""

    model_config = STRICT
    status: Literal["forecast", "abstained"]
    reason: Annotated[str, Field(description="why there is no forecast; empty when there is one")]
    served_by: Annotated[Literal["adapter", "base", "baseline", "none"], Field(description="the model that answered")]
    fallback: Annotated[
        str, Field(description="why a named subject's past or adapter is not used; empty if nothing is amiss")
    ]
    unit: str
    forecast: list[Step]
    data_age_minutes: float
    last_reading: datetime
    rows_used: int
    rows_sha256: Annotated[str, Field(description="of the rows used, as `timestamp,value` lines")]
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    disclaimer: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> "ForecastResponse":
        """Check that a forecast has steps, a model and no reason, and an abstention a reason and nothing else."""
        answered = self.status == "forecast"
        if answered != bool(self.forecast) or answered == bool(self.reason) or answered == (self.served_by == "none"):
            raise PydanticCustomError("hallmark_answer", "status, forecast, reason and served_by must agree")
        return self
