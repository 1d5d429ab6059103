"""Requests of glucose forecasts, made from windows of a panel."""

import datetime
from typing import Any

import numpy as np

from hallmark.tasks.glucose.messages import GlucoseRequest


def request_of(panel: Any, origin: int, **changes: Any) -> GlucoseRequest:
    """A request whose last reading is at `origin`, of the first person unless `changes` name another."""
    back = np.arange(origin - panel.grid.context_length + 1, origin + 1)
    back = back[~np.isnan(panel.values[back])]
    epoch = datetime.datetime(1970, 1, 1)
    times = [epoch + datetime.timedelta(minutes=int(panel.minute[i])) for i in back]
    values: dict[str, Any] = {
        "subject_id": panel.subjects[0],
        "asked_at": times[-1] + datetime.timedelta(minutes=4),
        "readings": [
            {"timestamp": t, "glucose_mg_dl": float(panel.values[i])} for t, i in zip(times, back, strict=True)
        ],
    }
    return GlucoseRequest(**{**values, **changes})
