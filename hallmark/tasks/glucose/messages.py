"""Request and response of glucose forecasting; a response without its safety fields cannot be built."""

from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hallmark.wording import clinical_statements

Disclaimer = Literal[
    "Research software, not for clinical use. A statistical forecast of sensor glucose, produced by a machine; "
    "not a diagnosis, not an alarm and no advice on dosing or treatment."
]
DISCLAIMER: Disclaimer = get_args(Disclaimer)[0]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
MOST_READINGS = 1200  # over four days at 5 minutes

LOWEST_MG_DL, HIGHEST_MG_DL = 10.0, 600.0  # no sensor on the market reads values outside
SUSPECT_MMOL = 30.0  # mg/dL; a lower median is taken for mmol/L

EARLIEST, LATEST = datetime(1970, 1, 1), datetime(2200, 1, 1)  # minutes since 1970 are counted in 32 bits

Local = Annotated[NaiveDatetime, Field(ge=EARLIEST, lt=LATEST, description="local wall-clock time without a zone")]


class Reading(BaseModel):
    """One sensor reading."""

    model_config = STRICT
    timestamp: Local
    glucose_mg_dl: Annotated[
        float, Field(le=HIGHEST_MG_DL, strict=True, description="mg/dL", json_schema_extra={"minimum": LOWEST_MG_DL})
    ]

    @field_validator("glucose_mg_dl")
    @classmethod
    def _in_mg_dl(cls, value: float) -> float:
        if value <= 0:
            raise PydanticCustomError("hallmark_unit", "a reading must be above 0")
        if value < LOWEST_MG_DL:
            raise PydanticCustomError("hallmark_unit", "a reading below 10 looks like mmol/L: send mg/dL (× 18.016)")
        return value


class GlucoseRequest(BaseModel):
    """The readings that a forecast is computed from."""

    model_config = STRICT
    subject_id: Annotated[str | None, Field(max_length=200, description="None for a newcomer")] = None
    asked_at: Local
    readings: Annotated[list[Reading], Field(min_length=1, max_length=MOST_READINGS, description="ascending in time")]

    @field_validator("readings")
    @classmethod
    def _ascending(cls, readings: list[Reading]) -> list[Reading]:
        if any(later.timestamp <= earlier.timestamp for earlier, later in pairwise(readings)):
            raise PydanticCustomError("hallmark_unordered", "readings must ascend in time")
        if median(reading.glucose_mg_dl for reading in readings) < SUSPECT_MMOL:
            raise PydanticCustomError("hallmark_unit", "readings look like mmol/L: send mg/dL (× 18.016)")
        return readings


class Provenance(BaseModel):
    """The input rows that a response is computed from."""

    model_config = STRICT
    rows_used: int
    rows_interpolated: int
    sensor_minutes: Annotated[float, Field(description="usual time between two readings, estimated from them")]
    first: datetime
    last: datetime
    sha256: Annotated[str, Field(description="of the rows used, as `timestamp,mg/dL` lines")]


class Interval(BaseModel):
    """A central interval at one horizon, mg/dL."""

    model_config = STRICT
    nominal_coverage: float
    low_mg_dl: float
    high_mg_dl: float


class Forecast(BaseModel):
    """The forecast at one horizon."""

    model_config = STRICT
    minutes: int
    mean_mg_dl: float
    median_mg_dl: float
    intervals: Annotated[list[Interval], Field(min_length=1)]


class GlucoseResponse(BaseModel):
    """A forecast at every horizon, or an abstention with its reason."""

    model_config = STRICT
    status: Literal["forecast", "abstained"]
    reason: Annotated[str, Field(description="why there is no forecast; empty when there is one")]
    served_by: Annotated[Literal["adapter", "base", "baseline", "none"], Field(description="the model that answered")]
    fallback: Annotated[
        str, Field(description="why a named person's past or adapter is not used; empty if nothing is amiss")
    ]
    forecast: list[Forecast]
    data_age_minutes: float
    provenance: Provenance
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    hallmark_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    disclaimer: Disclaimer
    assisted_by: Annotated[Literal["AIAST"], Field(description="HL7 code: AI-assisted")]

    @model_validator(mode="after")
    def _whole(self) -> "GlucoseResponse":
        """Check that a forecast has steps and a model but no reason, and that an abstention has only a reason."""
        answered = self.status == "forecast"
        if answered != bool(self.forecast) or answered == bool(self.reason) or answered == (self.served_by == "none"):
            raise PydanticCustomError("hallmark_answer", "status, forecast, reason and served_by must agree")
        return self

    @field_validator("reason", "fallback")
    @classmethod
    def _no_advice(cls, text: str) -> str:
        if found := clinical_statements(text):
            raise PydanticCustomError("hallmark_wording", "the text would give {kinds}", {"kinds": ", ".join(found)})
        return text

    @field_validator("forecast")
    @classmethod
    def _intervals(cls, forecast: list[Forecast]) -> list[Forecast]:
        for step in forecast:
            for interval in step.intervals:
                if not interval.low_mg_dl <= step.median_mg_dl <= interval.high_mg_dl:
                    raise PydanticCustomError("hallmark_interval", "an interval must hold its median")
        return forecast
