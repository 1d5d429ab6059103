"""A table of one's own: units, column names, and a second table that describes the people."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from hallmark.errors import SourceError
from hallmark.tasks.glucose.own_table import OwnTable
from tests.toys import ROOT

NOBODY = str(ROOT / "conf" / "data" / "no_groups.csv")
COLUMNS = {"subject_id": "id", "timestamp": "time", "glucose": "sgv"}


def source(where: Path, unit: str = "mg/dL", subjects: str = NOBODY) -> OwnTable:
    path = where / "mine.csv"
    pd.DataFrame({"id": ["007", "007", "b"], "time": ["2024-01-01 00:00"] * 3, "sgv": ["5.5", "Low", "6"]}).to_csv(
        path, index=False
    )
    return OwnTable(str(path), unit, COLUMNS, None, None, subjects)


def test_ids_keep_their_zeros_and_text_is_left_for_cleaning(tmp_path: Path) -> None:
    rows = source(tmp_path).load().rows
    assert rows["subject_id"].tolist() == ["007", "007", "b"]
    assert rows["glucose"].tolist() == ["5.5", "Low", "6"]


def test_mmol_is_converted_and_text_stays(tmp_path: Path) -> None:
    values = source(tmp_path, "mmol/L").load().rows["glucose"].tolist()
    assert values[0] == pytest.approx(99.088)
    assert values[1] == "Low"


def test_a_second_table_gives_people_their_groups(tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    pd.DataFrame({"subject_id": ["007"], "sex": ["female"]}).to_csv(people, index=False)
    found = source(tmp_path, subjects=str(people)).load()
    assert found.subjects.set_index("subject_id")["sex"]["007"] == "female"
    assert found.subjects["sex"].isna().tolist() == [False, True]
    assert found.origin["subjects_sha256"] != source(tmp_path).load().origin["subjects_sha256"]


def test_a_second_table_of_other_people_is_refused(tmp_path: Path) -> None:
    people = tmp_path / "people.csv"
    pd.DataFrame({"subject_id": ["zz"], "sex": ["female"]}).to_csv(people, index=False)
    with pytest.raises(SourceError, match="describes none of the subjects"):
        source(tmp_path, subjects=str(people)).load()
    with pytest.raises(SourceError, match=r"set data\.subjects_path"):
        source(tmp_path, subjects=str(tmp_path / "none.csv")).load()


def test_two_columns_that_claim_one_name_are_refused(tmp_path: Path) -> None:
    here = source(tmp_path)
    frame = pd.read_csv(here.path).assign(glucose=1.0)
    frame.to_csv(here.path, index=False)
    with pytest.raises(SourceError, match=r"the columns 'glucose' and 'sgv', data\.columns\.glucose names the second"):
        here.load()


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    here = source(tmp_path, "mmol/L")
    Path(here.path).write_text("id;time;sgv\n007;2024-01-01 00:00;5,5\n007;2024-01-01 00:05;Low\n")
    rows = here.load().rows
    assert rows["glucose"].iloc[0] == pytest.approx(99.088)
    assert rows["glucose"].iloc[1] == "Low"


def test_the_first_values_need_no_decimal_comma(tmp_path: Path) -> None:
    here = source(tmp_path, "mmol/L")
    Path(here.path).write_text("id;time;sgv\n007;2024-01-01 00:00;Low\n007;2024-01-01 00:05;5,5\n")
    rows = here.load().rows
    assert rows["glucose"].iloc[0] == "Low"
    assert rows["glucose"].iloc[1] == pytest.approx(99.088)


def test_timestamps_in_utc_become_the_wall_clock_of_the_zone(tmp_path: Path) -> None:
    here = dataclasses.replace(source(tmp_path), timezone="Europe/London")
    times = ["2024-07-01T12:00:00Z", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z", "2024-12-01 08:00"]
    pd.DataFrame({"id": "a", "time": times, "sgv": 100}).to_csv(here.path, index=False)
    rows = here.load().rows
    hours = pd.to_datetime(rows["timestamp"], format="ISO8601").dt.strftime("%m-%d %H:%M").tolist()
    assert hours == ["07-01 13:00", "10-27 01:30", "10-27 01:30", "12-01 08:00"]
    assert rows["offset_minutes"].iloc[:3].tolist() == [60, 60, 0]


def test_an_unknown_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no zone such as Europe/London"):
        dataclasses.replace(source(tmp_path), timezone="Londonn")


def test_tabs_are_named(tmp_path: Path) -> None:
    here = source(tmp_path)
    pd.read_csv(here.path).to_csv(here.path, index=False, sep="\t")
    with pytest.raises(SourceError, match="separated by tabs"):
        here.load()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"id,time,sgv\n", r"a header and no rows: set data\.path"),
        ("id,time,sgv\n1,2024-01-01 00:00,100\n".encode("utf-16"), "is not UTF-8 text .* save it as UTF-8"),
    ],
)
def test_a_file_that_holds_no_table_is_named_with_the_remedy(tmp_path: Path, content: bytes, told: str) -> None:
    here = source(tmp_path)
    Path(here.path).write_bytes(content)
    with pytest.raises(SourceError, match=told):
        here.load()
