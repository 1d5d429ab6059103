"""GlucoseTask: units, cleaning, messages and model card of glucose forecasting; refuses implausible readings."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import BaseModel

from hallmark.arrays import Floats
from hallmark.build import configuration
from hallmark.contracts import Clean, JsonObject, Raw
from hallmark.families.forecasting.panel import Panel
from hallmark.families.forecasting.task import Answer, Expected, ForecastTask, Readings, pairs
from hallmark.outcomes import Answered
from hallmark.tasks.glucose.cleaning import GROUPS, clean
from hallmark.tasks.glucose.messages import (
    DISCLAIMER,
    HIGHEST_MG_DL,
    LOWEST_MG_DL,
    SUSPECT_MMOL,
    GlucoseRequest,
    GlucoseResponse,
)

JUMPS_MG_DL = 40.0  # a larger median change from one reading to the next is implausible


@configuration
class GlucoseTask(ForecastTask):
    """Configuration and contract of the task.

    Attributes:
        sensor_text: text of a sensor → the value that it stands for, mg/dL.
    """

    value, unit = "glucose_mg_dl", "mg/dL"
    lowest, highest = LOWEST_MG_DL, HIGHEST_MG_DL
    groups = GROUPS
    own_source: ClassVar[Mapping[str, object]] = {
        "_target_": "hallmark.tasks.glucose.own_table.OwnTable",
        "unit": "mg/dL",
        "columns": {},
        "timestamp_format": None,
        "timezone": None,
        "subjects_path": "",
    }

    sensor_text: Mapping[str, float]

    @property
    def purpose(self) -> str:
        """Return the intended use, for the model card."""
        return (
            "Forecasts of sensor glucose from the last 48 hours and the person's own past, with calibrated intervals, "
            "every 5 minutes to 2 hours and every 15 minutes to 24 hours. " + DISCLAIMER
        )

    @property
    def card_limits(self) -> Sequence[str]:
        """Return excluded uses and known weaknesses, for the model card."""
        return (
            "Not for diagnosis, dosing, alarms or triage.",
            "Trained on the data named above; on simulated data the figures say nothing about people.",
            "Beyond about 4 hours no model beats a person's own time-of-day mean by much: check the intervals.",
            "Low glucose is rare: its recall is reported at the 10% quantile, with its precision.",
            "Readings of slow sensors (15 min) are interpolated as inputs, never as targets.",
        )

    def clean(self, raw: Raw) -> Clean:
        """Check and clean readings; see cleaning.py."""
        return clean(raw, self.limits, self.sensor_text, self.grid.step_minutes)

    def observed(self, answers: Sequence[Answered]) -> pd.DataFrame:
        """Return the readings of recorded answers, in the columns of `OwnTable`; see `ForecastTask.observed`."""
        return super().observed(answers).rename(columns={self.value: "glucose"})

    def request_type(self) -> type[BaseModel]:
        """Return the pydantic type of a request."""
        return GlucoseRequest

    def response_type(self) -> type[BaseModel]:
        """Return the pydantic type of a response."""
        return GlucoseResponse

    def read(self, request: GlucoseRequest) -> Readings:
        """Convert a request to readings; see `ForecastTask.read`."""
        times = np.array([r.timestamp for r in request.readings], dtype="datetime64[s]")
        values: Floats = np.array([r.glucose_mg_dl for r in request.readings], dtype=np.float32)
        return Readings(request.subject_id, request.asked_at, times, values)

    def refusal(self, panel: Panel) -> str:
        """Return why readings are implausible, or an empty text; see `ForecastTask.refusal`."""
        recent = panel.values[np.flatnonzero(panel.subject >= 0)][-panel.grid.recent_length :]
        changes = np.abs(np.diff(recent[~np.isnan(recent)]))
        if not changes.any():
            return "all readings of the last hours are equal: no sensor reads like this"
        if (usual := float(np.median(changes))) > JUMPS_MG_DL:
            return f"readings change by {usual:.0f} mg/dL from one to the next: no sensor reads like this"
        return ""

    def respond(self, answer: Answer) -> GlucoseResponse:
        """Convert an answer to the response type, which requires the disclaimer; see `ForecastTask.respond`."""
        used = answer.used
        fields = {  # validated as a whole: the objects inside one by one would take twenty times as long
            "status": answer.status,
            "reason": answer.reason,
            "served_by": answer.served_by,
            "fallback": answer.fallback,
            "forecast": _steps(answer),
            "data_age_minutes": round(answer.age_minutes, 2),
            "provenance": {
                "rows_used": used.rows,
                "rows_interpolated": used.interpolated,
                "sensor_minutes": used.interval_minutes,
                "first": used.first,
                "last": used.last,
                "sha256": used.sha256,
            },
            "model_version": answer.version,
            "hallmark_sha256": answer.digest,
            "disclaimer": DISCLAIMER,
            "assisted_by": "AIAST",
        }
        return GlucoseResponse.model_validate(fields)

    def steps(self, response: GlucoseResponse) -> Sequence[Expected]:
        """Return every horizon of an answer; see `ForecastTask.steps`."""
        return [
            Expected(
                step.minutes,
                step.mean_mg_dl,
                step.median_mg_dl,
                tuple((i.nominal_coverage, i.low_mg_dl, i.high_mg_dl) for i in step.intervals),
            )
            for step in response.forecast
        ]

    def last_reading(self, response: GlucoseResponse) -> datetime:
        """Return the time of the last reading; see `ForecastTask.last_reading`."""
        return response.provenance.last

    def unlikely(self, value: float) -> str:
        """Return why a value is no reading in mg/dL; see `ForecastTask.unlikely`."""
        if 0 < value < SUSPECT_MMOL:
            return f"a reading below {SUSPECT_MMOL:g} looks like mmol/L: send mg/dL (× 18.016)"
        return super().unlikely(value)


def _steps(answer: Answer) -> list[JsonObject]:
    """Return the forecast at every horizon, rounded to a tenth of a mg/dL."""
    median = answer.levels.index(0.5) if answer.minutes else 0
    coverages = [(low, high, round(coverage, 4)) for low, high, coverage in pairs(answer.levels)]
    means = np.round(answer.mean.astype(np.float64), 1).tolist()
    quantiles = np.round(answer.quantiles.astype(np.float64), 1).tolist()
    return [
        {
            "minutes": minutes,
            "mean_mg_dl": mean,
            "median_mg_dl": q[median],
            "intervals": [
                {"nominal_coverage": coverage, "low_mg_dl": q[low], "high_mg_dl": q[high]}
                for low, high, coverage in coverages
            ],
        }
        for minutes, mean, q in zip(answer.minutes, means, quantiles, strict=True)
    ]
