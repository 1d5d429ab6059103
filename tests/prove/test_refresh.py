"""`hallmark refresh`: a day of readings makes a new bundle, nothing is trained."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hallmark.errors import BundleError, ConfigError, DataError
from hallmark.files import read_json
from hallmark.prove.bundle import open_bundle
from hallmark.stages.refresh import refresh
from tests.toys import another_version
from tests.workspace import run


def write(rows: pd.DataFrame, file: Path) -> Path:
    rows.rename(columns={"glucose_mg_dl": "glucose"}).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def tomorrow(prepared: Any) -> pd.DataFrame:
    """Everybody's last day again, a day later, and a stranger's."""
    rows = prepared.rows[["subject_id", "timestamp", "glucose_mg_dl"]]
    last = rows[rows["timestamp"] > rows["timestamp"].max() - pd.Timedelta(days=1)]
    next_day = last.assign(timestamp=last["timestamp"] + pd.Timedelta(days=1))
    stranger = next_day[next_day["subject_id"] == next_day["subject_id"].iloc[0]].assign(subject_id="new/comer")
    return pd.concat([next_day, stranger])


def test_a_day_of_readings_becomes_a_bundle_that_answers(
    task: Any, learner: Any, trained: Path, bundle: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    rows = write(tomorrow, tmp_path / "day.csv")
    was, digest = open_bundle(bundle)
    made, counts = refresh(rows, bundle, trained / "refresh_state", tmp_path / "refreshed")
    assert counts["joined"] == 1
    assert counts["readings"] == len(tomorrow)
    found, _ = open_bundle(tmp_path / "refreshed" / "bundle")
    assert found.provenance["refreshed"]["from"] == digest
    assert found.provenance["refreshed"]["rows"] == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert (was.version, made.version) == ("1.0.0", "1.0.1")
    kept = [name for name in was.files if name.startswith(("base/", "calibration/")) or "/lora/" in name]
    assert all(found.files[name] == was.files[name] for name in kept)
    changed = [name for name in was.files if found.files[name] != was.files[name]]
    assert sum(name.endswith("history.safetensors") for name in changed) == tomorrow["subject_id"].nunique() - 1
    methods = {
        row["subject_id"]: row["method"] for row in read_json(tmp_path / "refreshed/bundle/subjects/subjects.json")
    }
    assert methods["new/comer"] == "online_ridge"
    assert not [name for name in found.files if "refresh_state" in name or name.endswith(".parquet")]
    # A request of tomorrow's evening is answered from the refreshed history, for the newcomer too.
    predictor = learner.open(task, tmp_path / "refreshed" / "bundle", made.version, "d" * 64)
    mine = tomorrow[tomorrow["subject_id"] == "new/comer"]
    request = task.request_type().model_validate(
        {
            "subject_id": "new/comer",
            "asked_at": str(mine["timestamp"].iloc[-1]),
            "readings": [
                {"timestamp": str(t), "glucose_mg_dl": float(v)}
                for t, v in zip(mine["timestamp"], mine["glucose_mg_dl"], strict=True)
            ],
        }
    )
    [answer] = predictor.predict([request])
    assert (answer.status, answer.fallback) == ("forecast", "")
    assert answer.served_by == "adapter"


def test_the_next_refresh_starts_where_the_last_ended(
    bundle: Path, trained: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    write(tomorrow, tmp_path / "one.csv")
    later = tomorrow.assign(timestamp=tomorrow["timestamp"] + pd.Timedelta(days=1))
    write(later, tmp_path / "two.csv")
    start = ("--bundle", str(bundle), "--state", str(trained / "refresh_state"))
    command = ("python", "-m", "hallmark.cli", "refresh")
    first = run(tmp_path, *command, "one.csv", *start)
    assert first.returncode == 0, first.stderr
    second = run(tmp_path, *command, "two.csv")
    assert second.returncode == 0, second.stderr
    assert "glucose 1.0.2" in second.stdout
    assert "joined 0" in second.stdout
    pd.concat([tomorrow, later]).pipe(write, tmp_path / "both.csv")
    both = run(tmp_path, *command, "both.csv", *start, "--out", "once")
    assert both.returncode == 0, both.stderr
    for name in ("ridge.safetensors", "readings.parquet"):
        assert (tmp_path / "refreshed/refresh_state" / name).stat().st_size == (
            tmp_path / "once/refresh_state" / name
        ).stat().st_size


def test_bad_rows_leave_everything_as_it_was(
    bundle: Path, trained: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    rows = write(tomorrow, tmp_path / "day.csv")
    refresh(rows, bundle, trained / "refresh_state", tmp_path / "refreshed")
    before = open_bundle(tmp_path / "refreshed" / "bundle")
    bad = tomorrow.assign(glucose_mg_dl=tomorrow["glucose_mg_dl"] / 18)
    write(bad, tmp_path / "bad.csv")
    with pytest.raises(DataError, match=r"looks like mmol/L .* --set unit=mmol/L\)"):
        refresh(
            tmp_path / "bad.csv",
            tmp_path / "refreshed/bundle",
            tmp_path / "refreshed/refresh_state",
            tmp_path / "refreshed",
        )
    assert open_bundle(tmp_path / "refreshed" / "bundle") == before
    assert sorted(p.name for p in (tmp_path / "refreshed").iterdir()) == ["bundle", "refresh_state"]
    with pytest.raises(DataError, match=r"no reading is new: [\d,]+ are in .*/refresh_state already, 0 are older than"):
        refresh(
            rows,
            tmp_path / "refreshed/bundle",
            tmp_path / "refreshed/refresh_state",
            tmp_path / "refreshed",
        )
    assert open_bundle(tmp_path / "refreshed" / "bundle") == before
    with pytest.raises(BundleError, match=r"nowhere cannot be loaded"):
        refresh(rows, bundle, tmp_path / "nowhere", tmp_path / "refreshed")


def test_nothing_but_an_earlier_refresh_is_replaced(
    bundle: Path, trained: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    rows = write(tomorrow, tmp_path / "day.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(BundleError, match="mine is no earlier refresh: give --out a directory of its own"):
        refresh(rows, bundle, trained / "refresh_state", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    with pytest.raises(BundleError, match="is no earlier refresh"):
        refresh(rows, bundle, trained / "refresh_state", bundle)
    open_bundle(bundle)


def test_a_refresh_that_was_killed_between_two_names_goes_on(
    bundle: Path, trained: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    write(tomorrow, tmp_path / "one.csv")
    write(tomorrow.assign(timestamp=tomorrow["timestamp"] + pd.Timedelta(days=1)), tmp_path / "two.csv")
    command = ("python", "-m", "hallmark.cli", "refresh")
    start = ("--bundle", str(bundle), "--state", str(trained / "refresh_state"))
    assert run(tmp_path, *command, "one.csv", *start).returncode == 0
    (tmp_path / "refreshed").rename(tmp_path / ".refreshed.abc.old")  # as a kill leaves it
    done = run(tmp_path, *command, "two.csv")
    assert done.returncode == 0, done.stderr
    assert "glucose 1.0.2" in done.stdout
    assert not list(tmp_path.glob(".refreshed*"))


@pytest.fixture
def other_training(bundle: Path, trained: Path, tmp_path: Path) -> Path:
    """A bundle of the same model as if it had been trained from other data."""
    return another_version(bundle, tmp_path / "trained", "other", trained)


def test_a_state_of_another_refresh_and_a_refresh_of_another_training_are_refused(
    bundle: Path, trained: Path, other_training: Path, tomorrow: pd.DataFrame, tmp_path: Path
) -> None:
    rows = write(tomorrow, tmp_path / "one.csv")
    write(tomorrow.assign(timestamp=tomorrow["timestamp"] + pd.Timedelta(days=1)), tmp_path / "two.csv")
    refresh(rows, bundle, trained / "refresh_state", tmp_path / "refreshed")
    with pytest.raises(BundleError, match="is of another refresh than the adapters in the bundle"):
        refresh(tmp_path / "two.csv", tmp_path / "refreshed" / "bundle", trained / "refresh_state", tmp_path / "other")
    shutil.copytree(other_training, tmp_path / "bundle")
    done = run(tmp_path, "python", "-m", "hallmark.cli", "refresh", "two.csv")
    assert done.returncode == 1
    assert "goes back to another trained bundle than bundle: remove refreshed, or name both" in done.stderr


def test_a_bundle_can_be_read_by_a_service_of_another_user(bundle: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in bundle.rglob("*") if file.is_file()} == {0o644}


def test_a_table_is_read_as_it_is_said(bundle: Path, trained: Path, tomorrow: pd.DataFrame, tmp_path: Path) -> None:
    mmol = tomorrow.assign(glucose_mg_dl=tomorrow["glucose_mg_dl"] / 18.016)
    rows = write(mmol.rename(columns={"glucose_mg_dl": "sgv"}), tmp_path / "day.csv")
    settings = {"unit": "mmol/L", "columns.glucose": "sgv"}
    _, counts = refresh(rows, bundle, trained / "refresh_state", tmp_path / "refreshed", settings)
    assert counts["readings"] == len(tomorrow)
    with pytest.raises(ConfigError, match=r"units is not a setting of OwnTable: did you mean unit"):
        refresh(rows, bundle, trained / "refresh_state", tmp_path / "other", {"units": "mmol/L"})
    with pytest.raises(ConfigError, match="unit='mol': must be 'mg/dL' or 'mmol/L'"):
        refresh(rows, bundle, trained / "refresh_state", tmp_path / "other", {"unit": "mol"})
