"""Clean glucose readings: parse times, merge duplicates, drop interpolated rows, refuse wrong units; count all.

The table: subject_id (text), timestamp (local wall-clock time, no zone), glucose_mg_dl, source.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hallmark.contracts import Clean, Raw
from hallmark.errors import DataError
from hallmark.families.forecasting.panel import means_of_runs, nearest_slots
from hallmark.files import directory_of
from hallmark.read.validation import Ledger, ReadingLimits, require_columns
from hallmark.tasks.glucose.messages import HIGHEST_MG_DL, LOWEST_MG_DL, SUSPECT_MMOL

LONGEST_ID = 180  # bytes, percent-encoded: it must be a file name
BLOCK = 24  # consecutive readings whose median identifies their unit
TWO_PEOPLE_MG_DL = 20.0  # median difference of simultaneous readings above which they come from two subjects
FEW_PAIRS = 24  # minimum number of such readings for a decision
OFFSET = "offset_minutes"  # a source's column: minutes by which the wall clock is ahead of UTC
ZONE_DROPPED = "time zone dropped, wall-clock time kept"
HOUR_TWICE = "hour that came twice when clocks went back (the second time)"
DECIMAL_COMMA = "decimal comma read as a point"
GROUPS = ("age_band", "sex", "diabetes_type", "device")


def clean(
    raw: Raw,
    limits: ReadingLimits,
    sensor_text: Mapping[str, float],
    step_minutes: int,
) -> Clean:
    """Clean rows one rule at a time, counting each.

    Args:
        raw: rows of the source: subject_id, timestamp, glucose, source.
        limits: maximum shares of dropped and changed rows, minimum record length, earliest and latest time.
        sensor_text: value in mg/dL that stands for a sensor's text, keys in lower case (`low`, `high`).
        step_minutes: readings within one grid step are merged.

    Raises:
        DataError: a column is missing, the unit is wrong or changes, two subjects share an id, times are UTC, or more
            is dropped or changed than the limits allow.
    """
    require_columns(raw.rows, ("subject_id", "timestamp", "glucose", "source"), "the source's table")
    ledger = Ledger(len(raw.rows))
    if raw.rows.empty:
        raise DataError("the source has no rows: set data to a source that has some")
    frame = raw.rows[["subject_id", "timestamp", "glucose", "source", *([OFFSET] if OFFSET in raw.rows else [])]]
    frame = frame.assign(subject_id=frame["subject_id"].astype("string").str.strip().fillna(""))
    frame = ledger.drop(frame, _mask(frame["subject_id"] == ""), "no subject_id")
    for excluded_id, reason in raw.excluded.items():
        frame = ledger.drop(frame, _mask(frame["subject_id"] == excluded_id), reason, "excluded")
    if too_long := [subject for subject in frame["subject_id"].unique() if len(directory_of(subject)) > LONGEST_ID]:
        raise DataError(f"{len(too_long)} subject_ids take more than {LONGEST_ID} bytes as a file name: shorten them")
    frame = _times(frame, limits, ledger)
    frame = _values(frame, sensor_text, ledger)
    if frame.empty:
        ledger.enforce(limits)
        raise DataError("no row is left: see the limits under task.limits")
    _refuse_other_units(frame)
    frame = ledger.drop(
        frame,
        _mask(~frame["glucose_mg_dl"].between(LOWEST_MG_DL, HIGHEST_MG_DL)),
        f"outside {LOWEST_MG_DL:g}–{HIGHEST_MG_DL:g} mg/dL",
    )
    frame = _order(frame, ledger)
    _refuse_two_people(frame, step_minutes)
    frame = _merge(frame, step_minutes, ledger)
    frame = _straight_lines(frame, step_minutes, ledger)
    frame = _people(frame, limits, step_minutes, ledger)
    ledger.enforce(limits)
    rows = frame.reset_index(drop=True)
    subject_ids = rows["subject_id"].unique()
    subjects = raw.subjects.assign(subject_id=raw.subjects["subject_id"].astype(str))
    if (repeated := subjects["subject_id"].duplicated()).any():
        raise DataError(
            f"subject {subjects.loc[repeated, 'subject_id'].iloc[0]!r} stands twice in the subject table: "
            "make ids unique"
        )
    subjects = subjects[subjects["subject_id"].isin(subject_ids)].sort_values("subject_id").reset_index(drop=True)
    for column in GROUPS:
        subjects[column] = (subjects[column] if column in subjects else pd.Series(pd.NA, index=subjects.index)).astype(
            "string"
        )
    check_schema(rows, subjects)
    report = ledger.report(len(rows), {"subjects": len(subject_ids), "sensor_text": dict(sensor_text)})
    return Clean(rows, subjects[["subject_id", *GROUPS]], report)


def check_schema(rows: pd.DataFrame, subjects: pd.DataFrame) -> None:
    """Check both tables against their pandera schemas, as the last check before anything is written.

    Raises:
        DataError: names the column and the check.
    """
    import pandera.pandas as pa

    rows_schema = pa.DataFrameSchema(
        {
            "subject_id": pa.Column(str, pa.Check.str_length(min_value=1)),
            "timestamp": pa.Column("datetime64[s]"),
            "glucose_mg_dl": pa.Column("float32", pa.Check.in_range(LOWEST_MG_DL, HIGHEST_MG_DL)),
            "source": pa.Column(str),
        },
        unique=["subject_id", "timestamp"],
        strict=True,
    )
    subjects_schema = pa.DataFrameSchema({"subject_id": pa.Column(str, unique=True)})
    try:
        rows_schema.validate(rows)
        subjects_schema.validate(subjects)
    except pa.errors.SchemaError as error:
        # The error's own text lists values: personal readings do not belong in messages.
        column = getattr(error.schema, "name", None) or "the table"
        raise DataError(f"the cleaned table breaks its schema: {column!r} fails {error.check}") from None


def _mask(series: "pd.Series[Any]") -> Any:
    return series.fillna(False).to_numpy(dtype=bool)


def _times(frame: pd.DataFrame, limits: ReadingLimits, ledger: Ledger) -> pd.DataFrame:
    raw = frame["timestamp"]
    if not pd.api.types.is_datetime64_any_dtype(raw):
        text = raw.astype("string").str.strip()
        zone = text.str.extract(r":\d{2}(?:\.\d+)?\s*([zZ]|[+-]\d{2}:?\d{2})$")[0]
        text = text.where(zone.isna(), text.str.replace(r"\s*(?:[zZ]|[+-]\d{2}:?\d{2})$", "", regex=True))
        # Only ISO text is parsed: data.timestamp_format decides whether 11/03 is in March or in November.
        times = pd.to_datetime(text.where(text.str.match(r"\d{4}-\d{2}-\d{2}")), errors="coerce", format="ISO8601")
    else:
        aware = getattr(raw.dtype, "tz", None) is not None
        zone = raw.dt.strftime("%z").astype("string") if aware else pd.Series(pd.NA, index=frame.index, dtype="string")
        times = raw.dt.tz_localize(None) if aware else raw
    has_zone = zone.notna().to_numpy()
    utc = zone.str.fullmatch(r"[zZ]|[+-]00:?00").fillna(False)
    # An offset of zero beside other offsets is a wall clock too, such as London's in winter.
    if (zone.str.lower() == "z").any() or (has_zone.any() and bool(utc[has_zone].all())):
        _refuse_utc(int(utc.sum()))
    ledger.count("noted", ZONE_DROPPED, frame.loc[has_zone, "subject_id"])
    sign = zone.str[0].map({"+": 1.0, "-": -1.0}).astype("float64")
    offset = sign * (zone.str[1:3].astype("float64") * 60 + zone.str[-2:].astype("float64"))
    if OFFSET in frame:
        offset = frame[OFFSET].astype("float64")
    frame = frame.assign(timestamp=times.astype("datetime64[s]"))
    frame = ledger.drop(frame, _second_hour(frame, offset), HOUR_TWICE)
    frame = ledger.drop(
        frame,
        frame["timestamp"].isna().to_numpy(),
        "timestamp missing, or not as data.timestamp_format says (null: YYYY-MM-DD HH:MM)",
    )
    frame = ledger.drop(frame, _mask(frame["timestamp"] < pd.Timestamp(limits.earliest)), f"before {limits.earliest}")
    latest = pd.Timestamp.now() + pd.Timedelta(days=1) if limits.latest == "today" else pd.Timestamp(limits.latest)
    return ledger.drop(frame, _mask(frame["timestamp"] > latest), f"in the future (after {limits.latest})")


def _refuse_utc(rows: int) -> None:
    raise DataError(
        f"{rows:,} timestamps are UTC (…Z or +00:00), but forecasts rest on the wall clock: set data.timezone to where "
        "the people live, such as Europe/London; data.timezone=UTC takes UTC for the wall clock"
    )


def _second_hour(frame: pd.DataFrame, offset: "pd.Series[float]") -> Any:
    """Find the rows of the second pass through the hour that clocks repeat in autumn, (N,).

    In the order of instants, the offset falls there, and the wall clock shows times that it has shown before.
    """
    if offset.nunique() < 2:
        return _mask(pd.Series(False, index=frame.index))
    table = pd.DataFrame({"who": frame["subject_id"].to_numpy(), "wall": frame["timestamp"].to_numpy()})
    table["offset"] = offset.to_numpy()
    table["instant"] = table["wall"] - pd.to_timedelta(table["offset"].fillna(0), unit="min")
    ordered = table.sort_values(["who", "instant"], kind="stable")
    by_subject = ordered.groupby("who", sort=False)
    latest = by_subject["wall"].cummax().groupby(ordered["who"], sort=False).shift()
    fallen = ordered["offset"] < by_subject["offset"].cummax()
    repeated = pd.Series(_mask((ordered["wall"] <= latest) & fallen), index=ordered.index)
    return repeated.sort_index().to_numpy(dtype=bool)


def _values(frame: pd.DataFrame, sensor_text: Mapping[str, float], ledger: Ledger) -> pd.DataFrame:
    raw = frame["glucose"]
    numbers = pd.to_numeric(raw, errors="coerce").astype("float64")
    if numbers.isna().any():
        text = raw.astype("string").str.strip().str.lower()
        comma = _mask(text.str.fullmatch(r"\d+,\d+"))
        ledger.count("noted", DECIMAL_COMMA, frame.loc[comma, "subject_id"])
        numbers = numbers.where(~comma, pd.to_numeric(text.str.replace(",", "."), errors="coerce").astype("float64"))
        for word, value in sensor_text.items():
            is_word = _mask((text == word.lower()) & numbers.isna())
            ledger.count("changed", f"sensor text {word!r} read as {value:g} mg/dL", frame.loc[is_word, "subject_id"])
            numbers = numbers.mask(is_word, value)
        empty = _mask(numbers.isna() & (text.isna() | text.isin(["", "nan", "none", "null"])))
        other_text = numbers.isna().to_numpy() & ~empty
        frame = frame.assign(glucose_mg_dl=numbers)
        ledger.count("dropped", "no glucose value", frame.loc[empty, "subject_id"])
        ledger.count("dropped", "text in the glucose column", frame.loc[other_text, "subject_id"])
        frame = frame.loc[~(empty | other_text)]
    else:
        frame = frame.assign(glucose_mg_dl=numbers)
    frame = frame.assign(glucose_mg_dl=frame["glucose_mg_dl"].astype("float32"))
    return frame[["subject_id", "timestamp", "glucose_mg_dl", "source"]]


def _refuse_other_units(frame: pd.DataFrame) -> None:
    median = frame.groupby("subject_id")["glucose_mg_dl"].median()
    too_low = median[median < SUSPECT_MMOL]
    if len(too_low):
        raise DataError(
            f"column 'glucose' looks like mmol/L for {len(too_low)} of {len(median)} subjects "
            f"(median {too_low.iloc[0]:.1f} for subject {too_low.index[0]!r}): set data.unit=mmol/L "
            "(for `hallmark refresh`: --set unit=mmol/L)"
        )
    too_high = median[median > HIGHEST_MG_DL]
    if len(too_high):
        raise DataError(
            f"column 'glucose' is too high for mg/dL (median {too_high.iloc[0]:.0f} for subject "
            f"{too_high.index[0]!r}): is it in mg/dL while data.unit says mmol/L?"
        )
    ordered = frame.sort_values(["subject_id", "timestamp"], kind="stable")
    block = ordered.groupby("subject_id").cumcount() // BLOCK
    median = ordered.groupby([ordered["subject_id"], block])["glucose_mg_dl"].transform("median")
    for unit, suspect in (("mmol/L", median < SUSPECT_MMOL), ("mg/dL taken for mmol/L", median > HIGHEST_MG_DL)):
        if suspect.any():
            subject_id = ordered.loc[suspect, "subject_id"].iloc[0]
            rows = ordered[suspect & (ordered["subject_id"] == subject_id)]
            first, last = rows["timestamp"].iloc[[0, -1]]
            raise DataError(
                f"subject {subject_id!r} changes its unit in mid-record: {len(rows):,} readings of "
                f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} "
                f"(rows {rows.index.min() + 1:,} to {rows.index.max() + 1:,} of the table) look "
                f"like {unit}, the others do not: bring them to one unit"
            )


def _refuse_two_people(frame: pd.DataFrame, step_minutes: int) -> None:
    """Refuse an id under which two series interleave and disagree: their mean would describe no subject.

    Simultaneous readings of two subjects differ by more than those of two sensors of one subject. Where the series
    alternate instead, neighbouring readings differ by more than readings two places apart.
    """
    table = frame[["subject_id", "timestamp", "glucose_mg_dl"]].reset_index(drop=True)
    slot = pd.Series(nearest_slots(table["timestamp"].to_numpy(), step_minutes))
    by_subject = table.groupby("subject_id")
    table["one"], table["two"] = (by_subject["glucose_mg_dl"].diff(places).abs().astype("float64") for places in (1, 2))
    simultaneous = (slot.groupby(table["subject_id"]).diff() == 0) & (table["one"] > 0)
    close = by_subject["timestamp"].diff(2) <= pd.Timedelta(minutes=4 * step_minutes)
    size = by_subject.size()
    moment = table[simultaneous].groupby("subject_id")["one"].agg(["size", "median"]).reindex(size.index)
    zigzag = table[close].groupby("subject_id").agg({"one": ["size", "median"], "two": "median"}).reindex(size.index)
    lag_1, lag_2 = zigzag["one", "median"], zigzag["two", "median"]
    same_moment = (moment["size"] >= np.maximum(FEW_PAIRS, 0.02 * size)) & (moment["median"] > TWO_PEOPLE_MG_DL)
    alternating = (zigzag["one", "size"] >= FEW_PAIRS) & (lag_1 > TWO_PEOPLE_MG_DL) & (lag_2 < lag_1 / 2)
    for subject_id in size.index[same_moment | alternating]:
        difference = moment["median"][subject_id] if same_moment[subject_id] else lag_1[subject_id]
        raise DataError(
            f"subject {str(subject_id)!r} holds two series that disagree (readings of one moment differ by "
            f"{difference:.0f} mg/dL in the median): two people under one subject_id? give each an id of its own"
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
    """Drop readings that a source interpolated: the inside of straight lines, in records that consist mostly of them.

    A sensor's second differences are rarely zero; a record with more than half of them zero was resampled.
    """
    by_subject = frame.groupby("subject_id", sort=False)
    value = frame["glucose_mg_dl"].astype("float64")
    before, after = value - by_subject["glucose_mg_dl"].shift(1), by_subject["glucose_mg_dl"].shift(-1) - value
    even = (by_subject["timestamp"].diff() == pd.Timedelta(minutes=step_minutes)) & (
        by_subject["timestamp"].diff(-1) == pd.Timedelta(minutes=-step_minutes)
    )
    inside = even & ((after - before).abs() < 0.01)
    share = inside.groupby(frame["subject_id"]).mean()
    resampled = frame["subject_id"].map(share > 0.5).to_numpy(dtype=bool)
    return ledger.drop(frame, resampled & inside.to_numpy(), "interpolated by the source (inside of a straight line)")


def _people(frame: pd.DataFrame, limits: ReadingLimits, step_minutes: int, ledger: Ledger) -> pd.DataFrame:
    by_subject = frame.groupby("subject_id", sort=False)
    span = by_subject["timestamp"].agg(lambda t: (t.iloc[-1] - t.iloc[0]) / pd.Timedelta(days=1))
    spread = by_subject["glucose_mg_dl"].std().fillna(0.0)
    gap = by_subject["timestamp"].agg(lambda t: t.diff().dt.total_seconds().median() / 60)
    ids = frame["subject_id"]
    flat = ids.map(spread == 0).to_numpy(dtype=bool) & ids.map(by_subject.size() > 1).to_numpy(dtype=bool)
    frame = ledger.drop(frame, flat, "all readings of the subject are equal")
    ids = frame["subject_id"]
    short = ids.map(span < limits.min_days).to_numpy(dtype=bool)
    frame = ledger.drop(frame, short, f"subject has fewer than {limits.min_days:g} days")
    coarse = frame["subject_id"].map(gap > step_minutes * 1.5).to_numpy(dtype=bool)
    ledger.count("noted", f"subject's sensor is slower than {step_minutes} min", frame.loc[coarse, "subject_id"])
    return frame
