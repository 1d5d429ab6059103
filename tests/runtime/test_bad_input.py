"""Bad input through the real commands: one line that names the thing, the value and the remedy; nothing is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.toys import compose
from tests.workspace import copy_repository, run


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose prepare stage already ran once on good data."""
    where = copy_repository(tmp_path_factory.mktemp("bad") / "repository")
    write(where, good())
    settle(where, table())
    done = run(where, "python", "-m", "pipelines", "prepare")
    assert done.returncode == 0, done.stderr
    return where


def table(**changes: Any) -> dict[str, Any]:
    """Parameters for one's own table."""
    params = compose("data=table", "task.limits.min_days=2")
    params["data"].update(changes)
    return params


def settle(where: Path, params: dict[str, Any]) -> None:
    (where / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def good(people: int = 3, days: int = 4) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=days * 288, freq="5min")
    frames = []
    for person in range(people):
        noise = np.random.default_rng(person).normal(0, 3, len(times))
        values = 130 + 30 * np.sin(np.arange(len(times)) / (15 + person)) + noise
        frames.append(
            pd.DataFrame({"subject_id": f"p{person}", "timestamp": times.astype(str), "glucose": values.round(0)})
        )
    return pd.concat(frames, ignore_index=True)


def write(where: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(where / "data" / "readings.csv", index=False)


def spoil(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    return lambda where: write(where, change(good()))


def put(data: bytes) -> Callable[[Path], None]:
    def damage(where: Path) -> None:
        (where / "data" / "readings.csv").write_bytes(data)

    return damage


def text_in(frame: pd.DataFrame) -> pd.DataFrame:
    glucose = frame["glucose"].astype(object)
    glucose.iloc[: len(glucose) // 2] = "SECRET-9"
    return frame.assign(glucose=glucose)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing column": (spoil(lambda f: f.drop(columns="glucose")), "has no column 'glucose'"),
    "wrong unit": (spoil(lambda f: f.assign(glucose=f["glucose"] / 18)), "set data.unit=mmol/L"),
    "empty file": (put(b""), "is empty"),
    "header only": (spoil(lambda f: f.iloc[:0]), "a header and no rows"),
    "one person only": (spoil(lambda f: f[f["subject_id"] == "p0"]), "needs at least 2"),
    "three readings each": (spoil(lambda f: f.groupby("subject_id").head(3)), "fewer than 2 days"),
    "all constant": (spoil(lambda f: f.assign(glucose=120)), "all readings of the subject are equal"),
    "text in the glucose column": (spoil(text_in), "text in the glucose column"),
    "no file": (lambda where: (where / "data" / "readings.csv").unlink(), "readings.csv is not there"),
    "not a table": (put(b"\x00\x01\xff\xfe"), "readings.csv"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_data_end_in_one_line_and_earlier_results_stay(repository: Path, tmp_path: Path, name: str) -> None:
    damage, expected = BAD[name]
    where = Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))
    before = (where / "data" / "prepared" / "rows.parquet").read_bytes()
    damage(where)
    done = run(where, "python", "-m", "pipelines", "prepare")
    assert done.returncode == 1
    heading, line = [text for text in done.stderr.splitlines() if text.strip()]
    assert heading == "[1/4] prepare"
    assert line.startswith("error: ")
    assert expected in line
    assert "SECRET-9" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert (where / "data" / "prepared" / "rows.parquet").read_bytes() == before


def test_unsorted_and_duplicate_rows_are_repaired_and_counted(repository: Path, tmp_path: Path) -> None:
    where = Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))
    frame = good()
    before = pd.read_parquet(where / "data" / "prepared" / "rows.parquet")
    write(where, pd.concat([frame, frame.iloc[:50]]).sample(frac=1, random_state=0))
    done = run(where, "python", "-m", "pipelines", "prepare")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(
        pd.read_parquet(where / "data" / "prepared" / "rows.parquet").drop(columns="source"),
        before.drop(columns="source"),
    )
    report = (where / "reports" / "validation" / "report.html").read_text()
    assert "exact duplicate" in report
    assert "out of order, sorted" in report


def test_a_misspelt_key_in_a_group_is_refused(repository: Path, tmp_path: Path) -> None:
    where = Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))
    file = where / "conf" / "train" / "standard.yaml"
    file.write_text(file.read_text().replace("learning_rate", "lerning_rate"))
    done = run(where, "python", "-m", "runtime.compose")
    assert done.returncode == 1
    assert "train.lerning_rate is not a setting of TrainConfig: did you mean learning_rate?" in done.stderr


@pytest.mark.parametrize("override", ["trian.seed=1", "data=nope", "train.sed=1"])
def test_an_unknown_override_of_an_experiment_changes_nothing(repository: Path, override: str) -> None:
    before = (repository / "params.yaml").read_bytes()
    done = run(repository, "dvc", "exp", "run", "-S", override)
    assert done.returncode != 0
    assert override.split("=")[0].split(".")[-1] in done.stderr or "nope" in done.stderr
    assert (repository / "params.yaml").read_bytes() == before


def test_a_source_that_was_not_pulled_names_its_command(repository: Path, tmp_path: Path) -> None:
    where = Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))
    settle(where, compose("data=azt1d"))
    done = run(where, "python", "-m", "pipelines", "prepare")
    assert done.returncode == 1
    assert "run `dvc pull data/sources/glucose/AZT1D.zip.dvc`" in done.stderr


def test_a_zip_that_would_leave_its_folder_is_refused(repository: Path, tmp_path: Path) -> None:
    import zipfile

    where = Path(shutil.copytree(repository, tmp_path / "r", symlinks=True))
    (where / "data" / "sources" / "glucose" / "AZT1D.zip.dvc").unlink()  # which would refuse it before
    with zipfile.ZipFile(where / "data" / "sources" / "glucose" / "AZT1D.zip", "w") as file:
        file.writestr("AZT1D-extracted-glucose-files/../../../evil.csv", "timestamp,glucose_value_mg_dl\n")
    settle(where, compose("data=azt1d"))
    done = run(where, "python", "-m", "pipelines", "prepare")
    assert done.returncode == 1
    assert "which leaves its folder: refused" in done.stderr


def test_a_corrupt_bundle_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    with (copy / "subjects" / "subjects.json").open("a") as file:
        file.write(" ")
    done = run(tmp_path, "python", "-m", "hallmark.cli", "verify", str(copy))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "subjects.json has sha256" in done.stderr
    assert len(done.stderr.splitlines()) == 1
