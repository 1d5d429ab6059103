"""`hallmark predict-batch`: files of any size in constant memory; a bad row is one problem, a bad file one line."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from hallmark.batch import predict_file, read_rows
from hallmark.errors import RequestError
from hallmark.model import Model


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return Model(bundle)


@pytest.fixture(scope="module")
def rows(requests_by_subject: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests of every person, one of which is none."""
    found = list(requests_by_subject.values())
    return [*found[:3], {**found[0], "readings": []}, *found[3:]]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    return [row for rows in read_rows(path, 100) for row in rows]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson"])
def test_every_format_gives_the_answers_of_the_library(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    counts = predict_file(model, write(tmp_path / f"in{suffix}", rows), tmp_path / f"out{suffix}")
    assert counts == {"forecast": len(rows) - 1, "problem": 1}
    found = answers(tmp_path / f"out{suffix}")
    assert [int(row["row"]) for row in found] == list(range(len(rows)))
    expected = model.predict([row for row in rows if row["readings"]])
    for row, answer in zip([row for row in found if not row.get("problem")], expected, strict=True):
        steps = row["forecast"] if suffix == ".ndjson" else json.loads(row["forecast"])
        assert steps == json.loads(answer.model_dump_json())["forecast"]
    assert found[3]["problem"].startswith("readings ")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("gone.csv", None, "cannot be read"),
        ("table.xlsx", "", "name a .parquet, .csv"),
        ("broken.parquet", "this is no parquet", "cannot be read"),
        ("latin.csv", b"subject_id\n\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_leaves_nothing(
    model: Model, tmp_path: Path, name: str, text: str | bytes | None, told: str
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RequestError, match=told) as refused:
        predict_file(model, tmp_path / name, tmp_path / "out.parquet")
    assert len(str(refused.value).splitlines()) == 1
    assert {p.name for p in tmp_path.iterdir()} <= {name}


def test_a_line_that_is_no_json_is_a_problem_of_that_row(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    lines = [json.dumps(rows[0]), "{broken", "[1, 2]", json.dumps(rows[1])]
    (tmp_path / "in.ndjson").write_text("\n".join(lines))
    counts = predict_file(model, tmp_path / "in.ndjson", tmp_path / "out.ndjson")
    assert counts == {"forecast": 2, "problem": 2}


def test_an_earlier_result_stays_if_the_next_one_fails(model: Model, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(RequestError):
        predict_file(model, tmp_path / "gone.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "earlier"


def test_answers_never_replace_their_requests(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text("{}\n")
    (tmp_path / "link.ndjson").symlink_to(file)
    for target in (file, tmp_path / "link.ndjson"):
        with pytest.raises(RequestError, match="is the file of the requests: name another one"):
            predict_file(model, file, target)
    assert file.read_text() == "{}\n"
