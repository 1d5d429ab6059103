"""From whatever a source yields to the glucose table, with an account of every row.

The table: subject_id (text), timestamp (local wall-clock time, no zone), glucose_mg_dl, source.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hallmark.contracts import Clean, Raw
from hallmark.errors import DataError
from hallmark.files import directory_of
from hallmark.read.panel import means_of_runs, nearest_slots
from hallmark.read.validation import Ledger, ValidationLimits, require_columns

LOWEST, HIGHEST = 10.0, 600.0  # mg/dL; outside it is no reading of any sensor on the market
SUSPECT_MMOL = 30.0  # a person's median below this is not in mg/dL
LONGEST_ID = 180  # bytes, percent-encoded: it must be a file name
ZONE_DROPPED = "time zone dropped, wall-clock time kept"
GROUPS = ("age_band", "sex", "diabetes_type", "device")


def clean(raw: Raw, limits: ValidationLimits, sensor_text: Mapping[str, float], step_minutes: int) -> Clean:
    """Clean rows one rule at a time, counting each.

    Args:
        raw: what the source yielded: subject_id, timestamp, glucose, source.
        limits: when to fail.
        sensor_text: value in mg/dL that stands for a sensor's text, keys in lower case (`low`, `high`).
        step_minutes: readings within one grid step are merged.

    Raises:
        DataError: a column is missing, the unit is wrong, or more is dropped or changed than the limits allow.
    """
    require_columns(raw.rows, ("subject_id", "timestamp", "glucose", "source"), "the source's table")
    ledger = Ledger(len(raw.rows))
    if raw.rows.empty:
        raise DataError("the source has no rows: set data to a source that has some")
    frame = raw.rows[["subject_id", "timestamp", "glucose", "source"]]
    frame = frame.assign(subject_id=frame["subject_id"].astype("string").str.strip().fillna(""))
    frame = ledger.drop(frame, _mask(frame["subject_id"] == ""), "no subject_id")
    for person, why in raw.excluded.items():
        frame = ledger.drop(frame, _mask(frame["subject_id"] == person), why, "excluded")
    if long := [subject for subject in frame["subject_id"].unique() if len(directory_of(subject)) > LONGEST_ID]:
        raise DataError(f"{len(long)} subject_ids take more than {LONGEST_ID} bytes as a file name: shorten them")
    frame = _times(frame, limits, ledger)
    frame = _values(frame, sensor_text, ledger)
    if frame.empty:
        ledger.enforce(limits)
        raise DataError("no row is left: see the limits under task.limits")
    _refuse_other_units(frame)
    frame = ledger.drop(
        frame, _mask(~frame["glucose_mg_dl"].between(LOWEST, HIGHEST)), f"outside {LOWEST:g}–{HIGHEST:g} mg/dL"
    )
    frame = _order(frame, ledger)
    frame = _merge(frame, step_minutes, ledger)
    frame = _straight_lines(frame, step_minutes, ledger)
    frame = _people(frame, limits, step_minutes, ledger)
    ledger.enforce(limits)
    rows = frame.reset_index(drop=True)
    people = rows["subject_id"].unique()
    subjects = raw.subjects.assign(subject_id=raw.subjects["subject_id"].astype(str))
    if (twice := subjects["subject_id"].duplicated()).any():
        raise DataError(
            f"subject {subjects.loc[twice, 'subject_id'].iloc[0]!r} stands twice in the subject table: make ids unique"
        )
    subjects = subjects[subjects["subject_id"].isin(people)].sort_values("subject_id").reset_index(drop=True)
    for column in GROUPS:
        subjects[column] = (subjects[column] if column in subjects else pd.Series(pd.NA, index=subjects.index)).astype(
            "string"
        )
    check_schema(rows, subjects)
    report = ledger.report(len(rows), {"subjects": len(people), "sensor_text": dict(sensor_text)})
    return Clean(rows, subjects[["subject_id", *GROUPS]], report)


def check_schema(rows: pd.DataFrame, subjects: pd.DataFrame) -> None:
    """Check both tables against their pandera schemas: the last word before anything is written.

    Raises:
        DataError: names the column and the check.
    """
    import pandera.pandas as pa

    table = pa.DataFrameSchema(
        {
            "subject_id": pa.Column(str, pa.Check.str_length(min_value=1)),
            "timestamp": pa.Column("datetime64[s]"),
            "glucose_mg_dl": pa.Column("float32", pa.Check.in_range(LOWEST, HIGHEST)),
            "source": pa.Column(str),
        },
        unique=["subject_id", "timestamp"],
        strict=True,
    )
    people = pa.DataFrameSchema({"subject_id": pa.Column(str, unique=True)})
    try:
        table.validate(rows)
        people.validate(subjects)
    except pa.errors.SchemaError as error:
        # The error's own text lists values: people's readings do not belong in messages.
        column = getattr(error.schema, "name", None) or "the table"
        raise DataError(f"the cleaned table breaks its schema: {column!r} fails {error.check}") from None


def _mask(series: "pd.Series[Any]") -> Any:
    return series.fillna(False).to_numpy(dtype=bool)


def _times(frame: pd.DataFrame, limits: ValidationLimits, ledger: Ledger) -> pd.DataFrame:
    raw = frame["timestamp"]
    if not pd.api.types.is_datetime64_any_dtype(raw):
        text = raw.astype("string").str.strip()
        zone = _mask(text.str.contains(r"(?:[zZ]|[+-]\d{2}:?\d{2})$", regex=True) & text.str.contains(":"))
        ledger.count("noted", ZONE_DROPPED, frame.loc[zone, "subject_id"])
        text = text.str.replace(r"\s*(?:[zZ]|(?<=:\d{2})[+-]\d{2}:?\d{2})$", "", regex=True)
        # Only ISO text is read here: whether 11/03 is in March or in November is for data.timestamp_format to say.
        times = pd.to_datetime(text.where(text.str.match(r"\d{4}-\d{2}-\d{2}")), errors="coerce", format="ISO8601")
    else:
        times = raw
        if getattr(raw.dtype, "tz", None) is not None:
            ledger.count("noted", ZONE_DROPPED, frame["subject_id"])
            times = raw.dt.tz_localize(None)
    frame = frame.assign(timestamp=times.astype("datetime64[s]"))
    frame = ledger.drop(
        frame,
        frame["timestamp"].isna().to_numpy(),
        "timestamp missing, or not as data.timestamp_format says (null: YYYY-MM-DD HH:MM)",
    )
    frame = ledger.drop(frame, _mask(frame["timestamp"] < pd.Timestamp(limits.earliest)), f"before {limits.earliest}")
    latest = pd.Timestamp.now() + pd.Timedelta(days=1) if limits.latest == "today" else pd.Timestamp(limits.latest)
    return ledger.drop(frame, _mask(frame["timestamp"] > latest), f"in the future (after {limits.latest})")


def _values(frame: pd.DataFrame, sensor_text: Mapping[str, float], ledger: Ledger) -> pd.DataFrame:
    raw = frame["glucose"]
    numbers = pd.to_numeric(raw, errors="coerce").astype("float64")
    if numbers.isna().any():
        text = raw.astype("string").str.strip().str.lower()
        for word, value in sensor_text.items():
            said = _mask((text == word.lower()) & numbers.isna())
            ledger.count("changed", f"sensor text {word!r} read as {value:g} mg/dL", frame.loc[said, "subject_id"])
            numbers = numbers.mask(said, value)
        empty = _mask(numbers.isna() & (text.isna() | text.isin(["", "nan", "none", "null"])))
        bad = numbers.isna().to_numpy() & ~empty
        frame = frame.assign(glucose_mg_dl=numbers)
        ledger.count("dropped", "no glucose value", frame.loc[empty, "subject_id"])
        ledger.count("dropped", "text in the glucose column", frame.loc[bad, "subject_id"])
        frame = frame.loc[~(empty | bad)]
    else:
        frame = frame.assign(glucose_mg_dl=numbers)
    frame = frame.assign(glucose_mg_dl=frame["glucose_mg_dl"].astype("float32"))
    return frame[["subject_id", "timestamp", "glucose_mg_dl", "source"]]


def _refuse_other_units(frame: pd.DataFrame) -> None:
    median = frame.groupby("subject_id")["glucose_mg_dl"].median()
    odd = median[median < SUSPECT_MMOL]
    if len(odd):
        raise DataError(
            f"column 'glucose' looks like mmol/L for {len(odd)} of {len(median)} subjects "
            f"(median {odd.iloc[0]:.1f} for subject {odd.index[0]!r}): set data.unit=mmol/L"
        )
    high = median[median > HIGHEST]
    if len(high):
        raise DataError(
            f"column 'glucose' is too high for mg/dL (median {high.iloc[0]:.0f} for subject {high.index[0]!r}): "
            "is it in mg/dL while data.unit says mmol/L?"
        )


def _order(frame: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    late = (frame.groupby("subject_id", sort=False)["timestamp"].diff() < pd.Timedelta(0)).to_numpy()
    ledger.count("noted", "out of order, sorted", frame.loc[late, "subject_id"])
    return frame.sort_values(["subject_id", "timestamp"], kind="stable")


def _merge(frame: pd.DataFrame, step_minutes: int, ledger: Ledger) -> pd.DataFrame:
    """Merge readings of one grid step: equal ones to one, different ones to their mean."""
    frame = frame.assign(slot=nearest_slots(frame["timestamp"].to_numpy(), step_minutes))
    again = frame.duplicated(["subject_id", "slot"], keep="first").to_numpy()
    if again.any():
        exact = frame.duplicated(["subject_id", "timestamp", "glucose_mg_dl"], keep="first").to_numpy()
        stamp = frame.duplicated(["subject_id", "timestamp"], keep="first").to_numpy()
        ledger.count("merged", "exact duplicate", frame.loc[again & exact, "subject_id"])
        ledger.count("merged", "same time, another value (mean taken)", frame.loc[again & stamp & ~exact, "subject_id"])
        ledger.count("merged", f"closer than {step_minutes} min (mean taken)", frame.loc[again & ~stamp, "subject_id"])
        unique = ~(again & exact)
        mean = means_of_runs(frame["glucose_mg_dl"].to_numpy()[unique], again[unique])
        frame = frame.loc[~again].assign(glucose_mg_dl=mean)
    return frame.drop(columns="slot")


def _straight_lines(frame: pd.DataFrame, step_minutes: int, ledger: Ledger) -> pd.DataFrame:
    """Drop what a source interpolated: the inside of straight lines, in records that consist mostly of them.

    A sensor's second differences are rarely zero; a person with more than half of them zero was resampled.
    """
    by = frame.groupby("subject_id", sort=False)
    value = frame["glucose_mg_dl"].astype("float64")
    before, after = value - by["glucose_mg_dl"].shift(1), by["glucose_mg_dl"].shift(-1) - value
    even = (by["timestamp"].diff() == pd.Timedelta(minutes=step_minutes)) & (
        by["timestamp"].diff(-1) == pd.Timedelta(minutes=-step_minutes)
    )
    inside = even & ((after - before).abs() < 0.01)
    share = inside.groupby(frame["subject_id"]).mean()
    resampled = frame["subject_id"].map(share > 0.5).to_numpy(dtype=bool)
    return ledger.drop(frame, resampled & inside.to_numpy(), "interpolated by the source (inside of a straight line)")


def _people(frame: pd.DataFrame, limits: ValidationLimits, step_minutes: int, ledger: Ledger) -> pd.DataFrame:
    by = frame.groupby("subject_id", sort=False)
    span = by["timestamp"].agg(lambda t: (t.iloc[-1] - t.iloc[0]) / pd.Timedelta(days=1))
    spread = by["glucose_mg_dl"].std().fillna(0.0)
    gap = by["timestamp"].agg(lambda t: t.diff().dt.total_seconds().median() / 60)
    people = frame["subject_id"]
    flat = people.map(spread == 0).to_numpy(dtype=bool) & people.map(by.size() > 1).to_numpy(dtype=bool)
    frame = ledger.drop(frame, flat, "all readings of the subject are equal")
    people = frame["subject_id"]
    short = people.map(span < limits.minimum_days).to_numpy(dtype=bool)
    frame = ledger.drop(frame, short, f"subject has fewer than {limits.minimum_days:g} days")
    coarse = frame["subject_id"].map(gap > step_minutes * 1.5).to_numpy(dtype=bool)
    ledger.count("noted", f"subject's sensor is slower than {step_minutes} min", frame.loc[coarse, "subject_id"])
    return frame
