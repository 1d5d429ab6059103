"""Cleaning: every row that is dropped, merged or changed is counted by reason and subject."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hallmark.contracts import Raw
from hallmark.errors import DataError
from hallmark.read.validation import ReadingLimits
from hallmark.tasks.glucose.cleaning import clean

LIMITS = ReadingLimits(0.5, 0.5, min_days=1, earliest="2000-01-01", latest="2030-01-01")
TEXT = {"low": 40.0, "high": 400.0}


def readings(subject: str = "a", days: float = 2, start: str = "2024-01-01") -> pd.DataFrame:
    """Readings as they stand in a file: text."""
    count = int(days * 288)
    times = pd.date_range(start, periods=count, freq="5min")
    values = 120 + 30 * np.sin(np.arange(count) / 20) + np.random.default_rng(0).normal(0, 3, count)
    return pd.DataFrame(
        {"subject_id": subject, "timestamp": times.astype(str), "glucose": values.round(1).astype(str), "source": "t"}
    )


def cleaned(rows: pd.DataFrame, limits: ReadingLimits = LIMITS, **raw: Any) -> Any:
    people = rows["subject_id"].dropna().astype(str).unique() if "subject_id" in rows else []
    return clean(Raw(rows, pd.DataFrame({"subject_id": people}), {}, **raw), limits, TEXT, 5)


def counts(report: Any) -> dict[tuple[str, str], int]:
    return {(r["action"], r["reason"]): r["rows"] for r in report["reasons"]}


def test_clean_rows_pass_untouched() -> None:
    found = cleaned(readings())
    assert found.report["rows_read"] == found.report["rows_kept"] == 576
    assert found.report["reasons"] == []


def test_every_row_is_accounted_for() -> None:
    rows = readings()
    rows.loc[3, "glucose"] = "Low"
    rows.loc[4, "glucose"] = "HIGH"
    rows.loc[5, "glucose"] = "banana"
    rows.loc[6, "glucose"] = ""
    rows.loc[7, "glucose"] = "1500"
    rows.loc[8, "timestamp"] = "yesterday"
    rows.loc[9, "timestamp"] = "2077-01-01 00:00:00"
    rows = pd.concat([rows, rows.iloc[[20, 20]], rows.iloc[[30]].assign(glucose="77")])
    found = cleaned(rows)
    assert counts(found.report) == {
        ("changed", "sensor text 'low' read as 40 mg/dL"): 1,
        ("changed", "sensor text 'high' read as 400 mg/dL"): 1,
        ("dropped", "text in the glucose column"): 1,
        ("dropped", "no glucose value"): 1,
        ("dropped", "outside 10–600 mg/dL"): 1,
        ("dropped", "timestamp missing, or not as data.timestamp_format says (null: YYYY-MM-DD HH:MM)"): 1,
        ("dropped", "in the future (after 2030-01-01)"): 1,
        ("merged", "exact duplicate"): 2,
        ("merged", "same time, another value (mean taken)"): 1,
        ("noted", "out of order, sorted"): 1,
    }
    report = found.report
    assert report["rows_read"] == report["rows_kept"] + report["dropped"] + report["merged"]


def test_values_of_one_time_become_their_mean() -> None:
    rows = readings()
    rows.loc[30, "glucose"] = "100"
    found = cleaned(pd.concat([rows, rows.iloc[[30]].assign(glucose="110")]))
    time = pd.Timestamp(rows.loc[30, "timestamp"])
    assert found.rows.loc[found.rows["timestamp"] == time, "glucose_mg_dl"].item() == 105


def test_too_much_dropped_fails_with_the_counts() -> None:
    rows = readings()
    rows.loc[:400, "glucose"] = "n/a?"
    with pytest.raises(
        DataError, match=r"576 of 576 rows dropped .*max_dropped_share allows 50%.*text in the glucose column 401"
    ):
        cleaned(rows)


def test_mmol_in_a_mg_column_is_refused() -> None:
    rows = readings()
    rows["glucose"] = (rows["glucose"].astype(float) / 18).round(1).astype(str)
    with pytest.raises(DataError, match=r"looks like mmol/L .* set data\.unit=mmol/L"):
        cleaned(rows)


@pytest.mark.parametrize("factor", [1 / 18, 18])
def test_a_unit_that_changes_in_mid_record_is_refused_with_the_rows(factor: float) -> None:
    rows = readings()
    values = rows["glucose"].astype(float)
    rows["glucose"] = values.where(rows.index < 400, values * factor).round(1).astype(str)
    with pytest.raises(DataError, match=r"subject 'a' changes its unit in mid-record: .*\(rows .* to 576 of the table"):
        cleaned(rows)


def other_person(rows: pd.DataFrame) -> pd.DataFrame:
    values = 220 + 60 * np.sin(np.arange(len(rows)) / 37 + 2)
    return rows.assign(glucose=values.round(1).astype(str))


@pytest.mark.parametrize("apart", ["0s", "90s"])
def test_two_people_under_one_id_are_refused(apart: str) -> None:
    rows = readings()
    other = other_person(rows)
    other["timestamp"] = (pd.to_datetime(other["timestamp"]) + pd.Timedelta(apart)).astype(str)
    with pytest.raises(DataError, match=r"subject 'a' holds two series that disagree .*an id of its own"):
        cleaned(pd.concat([rows, other.iloc[:200]]))


def test_two_people_who_take_turns_are_refused() -> None:
    rows = readings(days=4)
    other = other_person(rows)
    with pytest.raises(DataError, match="holds two series that disagree"):
        cleaned(pd.concat([rows.iloc[::3], other.iloc[1::3]]))


def test_two_sensors_of_one_person_are_merged() -> None:
    rows = readings()
    noise = np.random.default_rng(1).normal(0, 12, len(rows))
    second = rows.assign(glucose=(rows["glucose"].astype(float) + noise).round(1).astype(str))
    assert len(cleaned(pd.concat([rows, second])).rows) == len(rows)


def test_a_sensor_that_jumps_about_is_one_person() -> None:
    rows = readings()
    noise = np.random.default_rng(2).normal(0, 40, len(rows))
    assert len(cleaned(rows.assign(glucose=(200 + noise).round(1).astype(str))).rows) == len(rows)


def test_times_in_utc_are_refused_by_name() -> None:
    rows = readings()
    for stamps in (rows["timestamp"] + "Z", rows["timestamp"] + "+00:00", pd.to_datetime(rows["timestamp"], utc=True)):
        with pytest.raises(DataError, match=r"576 timestamps are UTC .* set data\.timezone"):
            cleaned(rows.assign(timestamp=stamps))


def test_the_hour_that_comes_twice_is_kept_once() -> None:
    times = pd.date_range("2024-10-26", "2024-10-29", freq="5min", tz="Europe/Berlin")
    rows = pd.concat([readings(days=4)] * 1).iloc[: len(times)].assign(timestamp=times.map(lambda t: t.isoformat()))
    found = cleaned(rows)
    assert counts(found.report)[("dropped", "hour that came twice when clocks went back (the second time)")] == 12
    night = found.rows[found.rows["timestamp"].between("2024-10-27 02:00", "2024-10-27 02:59")]
    first = rows[rows["timestamp"].str.startswith("2024-10-27T02") & rows["timestamp"].str.endswith("+02:00")]
    np.testing.assert_allclose(night["glucose_mg_dl"], first["glucose"].astype(float), rtol=1e-6)


@pytest.mark.parametrize(("word", "value"), [("LO", 40), ("Niedrig", 40), ("HI", 400), ("Hoch", 400)])
def test_words_of_sensors_are_read(word: str, value: float, task: Any) -> None:
    rows = readings()
    rows.loc[5, "glucose"] = word
    found = clean(Raw(rows, pd.DataFrame({"subject_id": ["a"]}), {}), LIMITS, task.sensor_text, 5)
    assert found.rows["glucose_mg_dl"].iloc[5] == value


def test_decimal_commas_are_read_and_counted() -> None:
    rows = readings()
    rows["glucose"] = rows["glucose"].str.replace(".", ",")
    found = cleaned(rows)
    assert counts(found.report) == {("noted", "decimal comma read as a point"): 576}
    np.testing.assert_allclose(found.rows["glucose_mg_dl"], readings()["glucose"].astype(float), rtol=1e-6)


def test_constant_readings_are_dropped_and_named() -> None:
    with pytest.raises(DataError, match="all readings of the subject are equal"):
        cleaned(readings().assign(glucose="120"))


def test_a_person_with_three_readings_is_dropped_and_counted() -> None:
    found = cleaned(pd.concat([readings("a"), readings("b").iloc[:3]]))
    assert counts(found.report) == {("dropped", "subject has fewer than 1 days"): 3}
    assert found.subjects["subject_id"].tolist() == ["a"]


def test_a_slow_sensor_is_noted_not_repaired() -> None:
    rows = pd.concat([readings("a"), readings("b").iloc[::3]])
    found = cleaned(rows)
    assert counts(found.report) == {("noted", "subject's sensor is slower than 5 min"): 192}
    assert len(found.rows) == len(rows)


def test_lines_that_a_source_drew_are_dropped() -> None:
    rows = readings()
    knots = np.arange(0, 576, 3)
    drawn = np.interp(np.arange(576), knots, rows["glucose"].astype(float).to_numpy()[knots])
    found = cleaned(rows.assign(glucose=drawn), ReadingLimits(0.9, 0.5, 1, "2000-01-01", "2030-01-01"))
    kept = len(found.rows)
    assert 190 <= kept <= 200
    assert counts(found.report)[("dropped", "interpolated by the source (inside of a straight line)")] == 576 - kept


def test_a_time_zone_is_dropped_and_counted() -> None:
    rows = readings()
    rows["timestamp"] = rows["timestamp"] + "+02:00"
    found = cleaned(rows)
    assert counts(found.report) == {("noted", "time zone dropped, wall-clock time kept"): 576}
    assert found.rows["timestamp"].iloc[0] == pd.Timestamp("2024-01-01")


def test_an_excluded_subject_is_counted_with_its_reason() -> None:
    rows = pd.concat([readings("a"), readings("b")])
    found = cleaned(rows, excluded={"b": "a twin"})
    assert counts(found.report) == {("excluded", "a twin"): 576}


def test_two_subjects_of_one_id_are_refused() -> None:
    rows = readings()
    raw = Raw(rows, pd.DataFrame({"subject_id": ["a", "a"]}), {})
    with pytest.raises(DataError, match="stands twice"):
        clean(raw, LIMITS, TEXT, 5)


def test_an_error_never_shows_a_value() -> None:
    rows = readings()
    rows.loc[:400, "glucose"] = "CANARY-7131"
    with pytest.raises(DataError) as caught:
        cleaned(rows)
    assert "7131" not in str(caught.value)


def test_dates_that_are_not_iso_are_never_guessed() -> None:
    rows = readings()
    rows["timestamp"] = pd.to_datetime(rows["timestamp"]).dt.strftime("%d/%m/%Y %H:%M")
    with pytest.raises(DataError, match=r"timestamp_format"):
        cleaned(rows)


def test_readings_of_a_wrong_century_are_dropped() -> None:
    rows = readings()
    rows.loc[0, "timestamp"] = "1970-01-01 00:00:00"
    rows.loc[575, "timestamp"] = "2099-01-01 00:00:00"
    found = cleaned(rows)
    assert counts(found.report) == {
        ("dropped", "before 2000-01-01"): 1,
        ("dropped", "in the future (after 2030-01-01)"): 1,
    }


def test_nothing_but_text_is_a_data_error() -> None:
    with pytest.raises(DataError, match="text in the glucose column"):
        cleaned(readings().assign(glucose="?!"))


def test_an_id_that_cannot_be_a_file_name_is_refused() -> None:
    with pytest.raises(DataError, match="take more than 180 bytes as a file name"):
        cleaned(readings("\u6f22" * 90))
    with pytest.raises(DataError, match="take more than 180 bytes as a file name"):
        cleaned(readings("a." * 60))  # a dot takes three bytes: no directory may begin with one
