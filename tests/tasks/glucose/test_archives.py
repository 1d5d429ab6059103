"""Public archives: read as they stand, refused when they would leave their folder."""

import zipfile
from pathlib import Path

import pytest

from hallmark.errors import SourceError
from hallmark.tasks.glucose.archives import GlucoseML, age_band, diabetes_type, read_archive
from tests.toys import SHARED, compose

HEADER = "timestamp,glucose_value_mg_dl\n"
ROWS = HEADER + "2024-01-01 00:00:00,100\n2024-01-01 00:05:00,Low\n"


def archive(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return path


def test_litter_is_skipped_and_ids_keep_their_spaces(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "X.zip",
        {
            "X-metadata.csv": "\ufeffperson_id,diabetes_type,age,gender\ncase  1,Type 1,34,female\n",
            "X-extracted-glucose-files/case  1.csv": ROWS,
            "__MACOSX/X-extracted-glucose-files/._case  1.csv": "litter",
            "X-extracted-glucose-files/.DS_Store": "litter",
        },
    )
    rows, subjects = read_archive(path, "X")
    assert rows["subject_id"].unique().tolist() == ["X/case  1"]
    assert rows["glucose"].tolist() == ["100", "Low"]
    assert subjects.iloc[0].to_dict() == {
        "subject_id": "X/case  1",
        "age_band": "18-39",
        "sex": "female",
        "diabetes_type": "T1D",
        "device": None,
    }


@pytest.mark.parametrize("name", ["../evil.csv", "/etc/evil.csv", "a/../../evil.csv", "..\\evil.csv", "C:evil.csv"])
def test_a_member_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "X.zip", {"X-extracted-glucose-files/a.csv": ROWS, name: ROWS})
    with pytest.raises(SourceError, match="leaves its folder"):
        read_archive(path, "X")


def test_clock_times_are_unwrapped_at_midnight(tmp_path: Path) -> None:
    text = HEADER + "23:50:00,100\n23:55:00,101\n00:00:00,102\n"
    rows, _ = read_archive(archive(tmp_path / "X.zip", {"X-extracted-glucose-files/a.csv": text}), "X")
    assert rows["timestamp"].tolist() == ["2000-01-01 23:50:00", "2000-01-01 23:55:00", "2000-01-02 00:00:00"]


def test_what_is_no_zip_or_has_no_readings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    with pytest.raises(SourceError, match="no readable zip"):
        read_archive(tmp_path / "bad.zip", "bad")
    with pytest.raises(SourceError, match="not in the Glucose-ML layout"):
        read_archive(archive(tmp_path / "e.zip", {"readme.txt": ""}), "e")
    with pytest.raises(SourceError, match="has no column 'glucose_value_mg_dl'"):
        read_archive(archive(tmp_path / "c.zip", {"c-extracted-glucose-files/a.csv": "timestamp,sgv\n1,2\n"}), "c")


def test_a_set_that_was_not_pulled_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"run `dvc pull .*AZT1D\.zip\.dvc`"):
        GlucoseML(str(tmp_path), ("AZT1D",), {}).load()


def test_spellings_are_normalised() -> None:
    assert [diabetes_type(t) for t in ("Type 1", "T2D", "No diabetes", "Prediabetes", "")] == [
        "T1D",
        "T2D",
        "none",
        "prediabetes",
        None,
    ]
    assert [age_band(t) for t in ("17", "18.0", "45", "61.8", "")] == [
        "under 18",
        "18-39",
        "40-59",
        "60 and over",
        None,
    ]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "subjects", "rows"),
    [
        ("AZT1D", 25, 295_567),
        ("HUPA-UCM", 25, 309_392),
        ("T1D-UOM", 17, 356_146),
        ("PhysioCGM", 9, 201_586),
        ("Hall_2018", 57, 105_426),
        ("Colas_2019", 208, 114_253),
    ],
)
def test_every_public_set_is_read_whole(name: str, subjects: int, rows: int) -> None:
    raw = GlucoseML(str(SHARED / "glucose"), (name,), {}).load()
    assert (len(raw.subjects), len(raw.rows)) == (subjects, rows)
    assert raw.subjects["diabetes_type"].notna().all()


@pytest.mark.real
def test_the_twins_of_the_public_sets_are_excluded() -> None:
    exclude = compose("data=glucose_ml")["data"]["exclude"]
    assert {"T1D-UOM/UoMGlucose2304", "Colas_2019/case  18"} <= set(exclude)
    raw = GlucoseML(str(SHARED / "glucose"), ("T1D-UOM", "Colas_2019"), exclude).load()
    assert set(raw.excluded) <= set(raw.subjects["subject_id"])


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "X.zip", {"X-extracted-glucose-files/a.csv": ROWS * 50})
    data = bytearray(path.read_bytes())
    data[len("X-extracted-glucose-files/a.csv") + 60] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match=r"a\.csv is damaged"):
        read_archive(path, "X")
