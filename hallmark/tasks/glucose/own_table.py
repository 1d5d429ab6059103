"""Load a user's own readings from a CSV or Parquet file with subject_id, timestamp and glucose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

import pandas as pd

from hallmark.build import configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer
from hallmark.read.tables import read_table
from hallmark.read.validation import rename_columns, require_columns
from hallmark.tasks.glucose.cleaning import OFFSET
from hallmark.tasks.glucose.physiology import MG_DL_PER_MMOL_L

COLUMNS = ("subject_id", "timestamp", "glucose")

UNITS = {"mg/dL": 1.0, "mmol/L": MG_DL_PER_MMOL_L}


@configuration
class OwnTable:
    """A user's own table of readings.

    Attributes:
        path: path of a `.csv` or `.parquet` file.
        unit: `mg/dL` or `mmol/L`.
        columns: column names of this task → names in the file.
        timestamp_format: strptime format of the timestamps in a CSV; None reads ISO.
        timezone: name of the zone where the subjects live, such as `Europe/London`: timestamps in UTC, or with another
            offset, are converted to its wall clock. None takes every timestamp for the wall clock and refuses UTC.
        subjects_path: path of a second file with subject_id and age_band, sex, diabetes_type, device; the file may
            have no rows, and an empty path means that there is no such file.
    """

    path: str
    unit: Literal["mg/dL", "mmol/L"]
    columns: Mapping[str, str]
    timestamp_format: str | None
    timezone: str | None
    subjects_path: str

    def __post_init__(self) -> None:
        if self.timezone is not None and self.timezone not in available_timezones():
            raise ValueError(f"timezone={self.timezone!r} is no zone such as Europe/London or UTC")

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read the file; values in mmol/L are converted, text is left as it is, and cleaning counts it."""
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
        subject_ids = rows["subject_id"].dropna().astype(str).str.strip().unique()
        subjects = pd.DataFrame({"subject_id": subject_ids})
        origin = {"file": path.name, "unit": self.unit, "sha256": sha256(path)}
        if not self.subjects_path:
            return Raw(rows, subjects, origin)
        groups = read_table(Path(self.subjects_path), COLUMNS, "data.subjects_path", {"subject_id": str})
        require_columns(groups, ("subject_id",), self.subjects_path)
        groups = groups.assign(subject_id=groups["subject_id"].astype(str).str.strip())
        if len(groups) and not groups["subject_id"].isin(subject_ids).any():
            raise SourceError(f"{self.subjects_path} describes none of the subjects of {path}: do the ids agree?")
        subjects = subjects.merge(groups, on="subject_id", how="left")
        return Raw(rows, subjects, {**origin, "subjects_sha256": sha256(Path(self.subjects_path))})


def _wall_clock(times: "pd.Series[Any]", zone: str) -> tuple["pd.Series[Any]", "pd.Series[float]"]:
    """Convert timestamps with an offset to a zone's wall clock; others stay as they are.

    Returns:
        The timestamps without an offset, and minutes of the zone's offset, NaN for timestamps that had no offset.
    """
    text = times.astype("string").str.strip()
    zoned = text.str.contains(r":\d{2}(?:\.\d+)?\s*(?:[zZ]|[+-]\d{2}:?\d{2})$", regex=True).fillna(False)
    local = pd.to_datetime(text.where(zoned), errors="coerce", format="ISO8601", utc=True).dt.tz_convert(zone)
    wall = local.dt.tz_localize(None)
    offset = (wall - local.dt.tz_convert("UTC").dt.tz_localize(None)).dt.total_seconds() / 60
    return text.where(wall.isna(), wall.dt.strftime("%Y-%m-%d %H:%M:%S").astype("string")), offset
