"""Load zips in the Glucose-ML layout: one metadata table and one CSV per subject."""

import csv
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

import pandas as pd
from pydantic import Field

from hallmark.build import Tuple, configuration
from hallmark.contracts import Progress, Raw, no_progress
from hallmark.errors import SourceError
from hallmark.files import sha256
from hallmark.read.pointers import check_pointer

MAX_BYTES = 2 * 1024**3  # unpacked; the largest public set has 40 MB

FILES = "-extracted-glucose-files/"


@configuration
class GlucoseML:
    """Selected zips in the Glucose-ML layout, read together.

    Attributes:
        directory: directory of the zips (`dvc pull` puts them there).
        sets: names of the zips without `.zip`.
        exclude: subject_id → reason for its exclusion.
    """

    directory: str
    sets: Annotated[Tuple[str], Field(min_length=1)]
    exclude: Mapping[str, str]

    def load(self, progress: Progress = no_progress) -> Raw:
        """Read every subject of every set; values stay as they are in the files."""
        rows, subjects, origin = [], [], {}
        for i, name in enumerate(self.sets):
            path = Path(self.directory) / f"{name}.zip"
            if not path.is_file():
                raise SourceError(f"{path} is not there: run `dvc pull {self.directory}/{name}.zip.dvc`")
            check_pointer(path)
            progress("read", i, len(self.sets), name)
            set_rows, set_subjects = read_archive(path, name)
            rows.append(set_rows)
            subjects.append(set_subjects)
            origin[name] = {"file": path.name, "sha256": sha256(path)}
        progress("read", len(self.sets), len(self.sets), "done")
        excluded = {
            subject_id: reason for subject_id, reason in self.exclude.items() if subject_id.split("/")[0] in self.sets
        }
        return Raw(
            pd.concat(rows, ignore_index=True), pd.concat(subjects, ignore_index=True), {"sets": origin}, excluded
        )


def read_archive(path: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read one zip.

    Returns:
        Rows (subject_id, timestamp, glucose as text, source) and subjects.

    Raises:
        SourceError: no zip, a member that would leave its directory, no readings, or an implausible size.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(
            f"{path} is no readable zip ({error}): fetch it again with `dvc pull --force {path}.dvc`"
        ) from error
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir()]
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in member.filename:
                raise SourceError(f"{path} holds a member named {member.filename!r}, which leaves its folder: refused")
        if (size := sum(m.file_size for m in members)) > MAX_BYTES:
            raise SourceError(f"{path} unpacks to {size:,} bytes, more than {MAX_BYTES:,}: refused")
        wanted = [
            m for m in members if "__MACOSX" not in m.filename and not PurePosixPath(m.filename).name.startswith(".")
        ]
        subject_files = sorted(
            (m for m in wanted if FILES in m.filename and m.filename.endswith(".csv")), key=lambda m: m.filename
        )
        if not subject_files:
            raise SourceError(f"{path} has no '*{FILES}*.csv': it is not in the Glucose-ML layout")
        metadata_files = [m for m in wanted if m.filename.endswith("-metadata.csv")]
        metadata = _metadata(_bytes(archive, metadata_files[0], path), name) if metadata_files else {}
        frames, subjects = [], []
        for member in subject_files:
            subject = PurePosixPath(member.filename).stem
            frames.append(
                _person(_bytes(archive, member, path), f"{name}/{subject}", name, f"{path}:{member.filename}")
            )
            subjects.append({"subject_id": f"{name}/{subject}", **_known(metadata, subject)})
    return pd.concat(frames, ignore_index=True), pd.DataFrame(subjects)


def _bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
        raise SourceError(f"{path}:{member.filename} is damaged ({error}): fetch the archive again") from error


def _person(data: bytes, subject_id: str, name: str, where: str) -> pd.DataFrame:
    if not data.strip():
        raise SourceError(f"{where} is empty: fetch the archive again")
    frame = pd.read_csv(io.BytesIO(data), dtype=str, encoding="utf-8-sig", keep_default_na=False)
    frame.columns = [c.strip().lower() for c in frame.columns]
    for column in ("timestamp", "glucose_value_mg_dl"):
        if column not in frame.columns:
            raise SourceError(f"{where} has no column {column!r} (found: {', '.join(frame.columns)})")
    timestamps = frame["timestamp"].str.strip()
    if len(timestamps) and bool((~timestamps.str.contains(r"[-/]", regex=True)).all()):
        timestamps = _unwrap_clock(timestamps, where)
    return pd.DataFrame(
        {
            "subject_id": subject_id,
            "timestamp": timestamps,
            "glucose": frame["glucose_value_mg_dl"].str.strip(),
            "source": name,
        }
    )


def _unwrap_clock(stamps: "pd.Series[str]", where: str) -> "pd.Series[str]":
    """Add dates to clock times (HH:MM:SS): a new day begins wherever the clock runs backwards in row order."""
    clock = pd.to_timedelta(stamps.where(stamps.str.count(":") == 2, stamps + ":00"), errors="coerce")
    if clock.isna().any():
        raise SourceError(
            f"{where} has timestamps that are neither dates nor clock times, such as {stamps[clock.isna()].iloc[0]!r}"
        )
    day = (clock.diff() < pd.Timedelta(0)).cumsum()
    return (pd.Timestamp("2000-01-01") + pd.to_timedelta(day, unit="D") + clock).astype(str)


def _metadata(data: bytes, name: str) -> dict[str, Mapping[str, str]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace")))
    return {
        row.get("person_id", "").strip(): {k.strip().lower(): (v or "").strip() for k, v in row.items() if k}
        for row in reader
    }


def _known(metadata: Mapping[str, Mapping[str, str]], subject: str) -> dict[str, str | None]:
    """Map one subject's metadata to the subject table; absent values stay missing."""
    row = metadata.get(subject) or metadata.get(subject.removeprefix("Subject ").strip()) or {}

    def first(*names: str) -> str:
        return next((row[n] for n in names if row.get(n)), "")

    return {
        "age_band": age_band(first("age")),
        "sex": sex(first("gender", "sex")),
        "diabetes_type": diabetes_type(first("diabetes_type")),
        "device": first("cgm_type", "device") or None,
    }


def age_band(text: str) -> str | None:
    """Coarsen an age (or a range) to a band of about twenty years."""
    digits = "".join(c if c.isdigit() or c == "." else " " for c in text).split()
    if not digits:
        return None
    age = sum(map(float, digits[:2])) / len(digits[:2])
    for limit, band in ((18, "under 18"), (40, "18-39"), (60, "40-59")):
        if age < limit:
            return band
    return "60 and over"


def sex(text: str) -> str | None:
    """Normalise spellings of sex."""
    return {"m": "male", "f": "female"}.get(text[:1].lower()) if text else None


def diabetes_type(text: str) -> str | None:
    """Normalise spellings of the diabetes type."""
    plain = text.lower().replace(" ", "").replace("-", "").replace("_", "")
    names = {"t1d": "T1D", "type1": "T1D", "1": "T1D", "t2d": "T2D", "type2": "T2D", "2": "T2D"}
    for key in ("t1d", "type1", "t2d", "type2"):
        if key in plain:
            return names[key]
    if "pre" in plain or "risk" in plain:
        return "prediabetes"
    if plain in ("no", "none", "nd", "healthy", "nondiabetic", "nodiabetes", "normal"):
        return "none"
    return names.get(plain, text or None)
