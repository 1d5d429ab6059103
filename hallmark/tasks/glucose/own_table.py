"""Source of a user's own readings: a CSV or Parquet file with subject_id, timestamp and glucose."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pandas as pd

from hallmark.contracts import Progress, Raw, silent
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import rename_columns, require_columns
from hallmark.tasks.glucose.cleaning import OFFSET
from hallmark.tasks.glucose.physiology import MG_DL_PER_MMOL_L

COLUMNS = ("subject_id", "timestamp", "glucose")

UNITS = {"mg/dL": 1.0, "mmol/L": MG_DL_PER_MMOL_L}


@dataclass(frozen=True)
class OwnTable:
    """A table of one's own.

    Attributes:
        path: of a `.csv` or `.parquet` file.
        unit: `mg/dL` or `mmol/L`.
        columns: our names → the file's.
        timestamp_format: of the timestamps in a CSV, as strptime takes it; None reads ISO.
        timezone: name of the zone where the people live, such as `Europe/London`: timestamps in UTC, or with another
            offset, become its wall clock. None takes every timestamp for the wall clock and refuses UTC.
        subjects_path: a second file with subject_id and age_band, sex, diabetes_type, device; it may describe nobody,
            and empty means that there is none.
    """

    path: str
    unit: str
    columns: Mapping[str, str]
    timestamp_format: str | None
    timezone: str | None
    subjects_path: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit={self.unit!r} must be one of {', '.join(UNITS)}")
        if self.timezone is not None and self.timezone not in available_timezones():
            raise ValueError(f"timezone={self.timezone!r} is no zone such as Europe/London or UTC")

    def load(self, progress: Progress = silent) -> Raw:
        """Read the file; values in mmol/L are converted, text is left for cleaning to count."""
        path = Path(self.path)
        frame = read_table(path, COLUMNS, text={self.columns.get("subject_id", "subject_id"): str})
        check_pointer(path)
        frame = rename_columns(frame, self.columns, str(path))
        require_columns(frame, COLUMNS, str(path))
        if frame.empty:
            raise SourceError(f"{path} has a header and no rows: set data.path to a file with readings")
        if self.timestamp_format is not None:
            frame["timestamp"] = pd.to_datetime(frame["timestamp"], format=self.timestamp_format, errors="coerce")
        if self.timezone is not None:
            frame["timestamp"], frame[OFFSET] = _wall_clock(frame["timestamp"], self.timezone)
        glucose: pd.Series[Any] = frame["glucose"]
        if self.unit != "mg/dL":
            text = glucose.astype("string").str.strip()
            point = text.where(~text.str.fullmatch(r"\d+,\d+").fillna(False), text.str.replace(",", "."))
            numbers = pd.to_numeric(point, errors="coerce").astype("float64")
            glucose = glucose.astype(object).where(numbers.isna(), numbers * UNITS[self.unit])
        rows = pd.DataFrame(
            {
                "subject_id": frame["subject_id"],
                "timestamp": frame["timestamp"],
                "glucose": glucose,
                "source": path.name,
                **({OFFSET: frame[OFFSET]} if OFFSET in frame else {}),
            }
        )
        people = rows["subject_id"].dropna().astype(str).str.strip().unique()
        subjects = pd.DataFrame({"subject_id": people})
        facts = {"file": path.name, "unit": self.unit, "sha256": sha256(path)}
        if not self.subjects_path:
            return Raw(rows, subjects, facts)
        other = read_table(Path(self.subjects_path), COLUMNS, "data.subjects_path", {"subject_id": str})
        require_columns(other, ("subject_id",), self.subjects_path)
        other = other.assign(subject_id=other["subject_id"].astype(str).str.strip())
        if len(other) and not other["subject_id"].isin(people).any():
            raise SourceError(f"{self.subjects_path} describes none of the subjects of {path}: do the ids agree?")
        subjects = subjects.merge(other, on="subject_id", how="left")
        return Raw(rows, subjects, {**facts, "subjects_sha256": sha256(Path(self.subjects_path))})


def _wall_clock(times: "pd.Series[Any]", zone: str) -> tuple["pd.Series[Any]", "pd.Series[float]"]:
    """Bring timestamps with an offset to a zone's wall clock; others stay as they are.

    Returns:
        The timestamps without an offset, and minutes of the zone's offset, NaN where none was said.
    """
    text = times.astype("string").str.strip()
    zoned = text.str.contains(r":\d{2}(?:\.\d+)?\s*(?:[zZ]|[+-]\d{2}:?\d{2})$", regex=True).fillna(False)
    local = pd.to_datetime(text.where(zoned), errors="coerce", format="ISO8601", utc=True).dt.tz_convert(zone)
    wall = local.dt.tz_localize(None)
    offset = (wall - local.dt.tz_convert("UTC").dt.tz_localize(None)).dt.total_seconds() / 60
    return text.where(wall.isna(), wall.dt.strftime("%Y-%m-%d %H:%M:%S").astype("string")), offset
