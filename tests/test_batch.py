"""`hallmark predict-batch`: files of any size in constant memory; a bad row is one problem, a bad file one line."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from hallmark import batch
from hallmark.batch import predict_file
from hallmark.errors import HallmarkError, RequestError
from hallmark.model import Model
from hallmark.parts import Parts
from hallmark.tables import read_rows


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


def test_whoever_has_a_stopped_adapter_is_answered_by_the_base_model(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    source, stopped = write(tmp_path / "in.ndjson", rows), {rows[0]["subject_id"]: "worse since May"}
    predict_file(model, source, tmp_path / "out.ndjson", stopped=stopped)
    held_back, *others = answers(tmp_path / "out.ndjson")
    assert (held_back["served_by"], others[0]["served_by"]) == ("base", "adapter")
    assert held_back["fallback"] == "the subject's own model is stopped: worse since May"
    [newcomer] = model.predict([{**rows[0], "subject_id": None}])
    assert held_back["forecast"] == newcomer.model_dump(mode="json")["forecast"]
    assert [row.get("fallback") for row in others if not row["problem"]] == [""] * (len(rows) - 2)


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


def test_an_interrupted_run_goes_on_after_its_last_part_unless_something_has_changed(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PART", 2)
    source, target, score = write(tmp_path / "in.ndjson", rows), tmp_path / "out.csv", batch._score
    done: list[int] = []

    def interrupted(*given: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[2][0])
        return score(*given, **options)

    monkeypatch.setattr(batch, "_score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(model, source, target)
    assert not target.exists()
    again: list[int] = []
    monkeypatch.setattr(batch, "_score", lambda *given, **kw: again.append(given[2][0]) or score(*given, **kw))
    counts = predict_file(model, source, target)
    assert (done, again) == ([0, 2], list(range(4, len(rows), 2)))
    assert counts == {"forecast": len(rows) - 1, "problem": 1}
    whole = target.read_bytes()
    monkeypatch.setattr(batch, "PART", 2_048)
    predict_file(model, source, target)
    assert target.read_bytes() == whole
    assert {path.name for path in tmp_path.iterdir()} == {"in.ndjson", "out.csv"}


def test_parts_of_other_requests_or_another_bundle_are_not_taken(tmp_path: Path) -> None:
    with Parts(tmp_path / "out.ndjson", {"requests": "a"}) as parts:
        parts.keep(0, b"{}\n", {"forecast": 1})
        assert parts.counts(0) == {"forecast": 1}
        with pytest.raises(RequestError, match=r"another process makes .*out\.ndjson: wait for it"):
            Parts(tmp_path / "out.ndjson", {"requests": "a"})
    with Parts(tmp_path / "out.ndjson", {"requests": "a"}) as parts:
        assert parts.counts(0) == {"forecast": 1}
    (tmp_path / ".out.ndjson.parts" / "part-000000.json").unlink()
    with Parts(tmp_path / "out.ndjson", {"requests": "a"}) as parts:
        assert parts.counts(0) is None, "its content alone does not say that it is complete"
    with Parts(tmp_path / "out.ndjson", {"requests": "b"}) as parts:
        assert [path.name for path in parts.directory.iterdir()] == ["made_from.json"]
        parts.keep(0, b"{}\n", {"forecast": 1})
        (parts.directory / "part-000000.ndjson").write_bytes(b"")
        assert parts.counts(0) is None, "a power loss left its counts alone"


def test_what_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    (tmp_path / ".out.csv.parts").symlink_to(tmp_path / "theirs")
    with pytest.raises(RequestError, match="cannot be written"):
        Parts(tmp_path / "out.csv", {"requests": "a"})
    (tmp_path / ".other.csv.parts").mkdir()
    (tmp_path / ".other.csv.parts" / "notes").touch()
    with Parts(tmp_path / "other.csv", {"requests": "a"}) as parts:
        parts.keep(0, b"", {})
        parts.remove()
    assert [path.name for path in (tmp_path / ".other.csv.parts").iterdir()] == ["notes"]
    assert (tmp_path / "theirs" / "file").exists()


def test_a_target_or_a_source_that_is_no_file_is_one_line_before_anything_is_answered(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = write(tmp_path / "in.ndjson", rows[:1])
    (tmp_path / "out.ndjson").mkdir()
    with pytest.raises(RequestError, match="is a directory: name a file"):
        predict_file(model, source, tmp_path / "out.ndjson")
    os.mkfifo(tmp_path / "pipe.ndjson")
    with pytest.raises(RequestError, match="is no regular file"):
        predict_file(model, tmp_path / "pipe.ndjson", tmp_path / "other.ndjson")
    with pytest.raises(RequestError, match=r"name a \.parquet"):
        predict_file(model, tmp_path / "wrong.txt", tmp_path / "other.ndjson")


def test_what_cannot_be_written_keeps_what_was_finished(tmp_path: Path) -> None:
    with Parts(tmp_path / "out.ndjson", {}) as parts:
        parts.keep(0, b"{}\n", {"forecast": 1})
        (parts.directory / "part-000001.ndjson").mkdir()
        with pytest.raises(HallmarkError, match=r"finished parts are kept in .*; make room, and run again") as told:
            parts.keep(1, b"{}\n", {"forecast": 1})
        assert "\n" not in str(told.value)
        assert parts.counts(0) == {"forecast": 1}


def test_a_row_that_makes_the_model_fail_costs_its_own_answer(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, poison = type(model.predictor), rows[0]["subject_id"]
    predict = kind.predict

    def fails(self: Any, requests: Any) -> Any:
        if any(request.subject_id == poison for request in requests):
            raise RuntimeError(f"shapes of {poison} do not match")
        return predict(self, requests)

    monkeypatch.setattr(kind, "predict", fails)
    source = write(tmp_path / "in.ndjson", rows[:3])
    assert predict_file(model, source, tmp_path / "out.ndjson") == {"problem": 1, "forecast": 2}
    first, *others = answers(tmp_path / "out.ndjson")
    assert first == {"row": 0, "problem": "The model failed on this row (RuntimeError)."}
    assert all(not row["problem"] for row in others)
