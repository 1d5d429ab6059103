"""Jobs: files that are answered in the background, seen by their client alone, and going on after a restart."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import sqlalchemy as sa

from bentos.jobs import append, chunks, whole_lines
from hallmark.records import reader
from hallmark.records.tables import predictions
from tests.bentos.server import Server, running
from tests.test_batch import write

TYPES = {".csv": "text/csv", ".parquet": "application/vnd.apache.parquet", ".ndjson": "application/x-ndjson"}


@pytest.fixture(scope="module")
def rows(requests_by_subject: dict[str, Any]) -> list[dict[str, Any]]:
    """A request of every person."""
    return list(requests_by_subject.values())


@pytest.fixture
def server(bundle: Path, rows: list[dict[str, Any]], tmp_path: Path) -> Iterator[Server]:
    people = {"ada": (rows[0]["subject_id"], "person", ()), "rival": ("rival", "service", ())}
    with running(bundle, tmp_path / "home", people) as found:
        yield found


def send(server: Server, file: Path, who: str = "service") -> dict[str, Any]:
    headers = {"content-type": TYPES[file.suffix]}
    response = server.call("POST", "/v1/jobs", who, content=file.read_bytes(), headers=headers)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    return dict(response.json())


def started(server: Server, job: dict[str, Any]) -> None:
    """Wait until a job runs."""
    while server.call("GET", f"/v1/jobs/{job['id']}").json()["status"] == "queued":
        time.sleep(0.01)


def ended(server: Server, job: dict[str, Any], who: str = "service") -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = server.call("GET", f"/v1/jobs/{job['id']}", who).json()
        if found["status"] in ("done", "failed", "cancelled"):
            return dict(found)
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def result(server: Server, job: dict[str, Any], who: str = "service") -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.call("GET", f"/v1/jobs/{job['id']}/result", who).text.splitlines()]


@pytest.mark.parametrize("suffix", list(TYPES))
def test_a_job_gives_the_answers_of_predict(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    bad = {**rows[0], "readings": []}
    job = send(server, write(tmp_path / f"in{suffix}", [*rows, bad]))
    state = ended(server, job)
    assert (state["status"], state["total"], state["done"], state["problems"]) == (
        "done",
        len(rows) + 1,
        len(rows) + 1,
        1,
    )
    found = result(server, job)
    expected = server.predict({"rows": rows}).json()["rows"]
    assert [row["answer"] for row in found[:-1]] == [row["answer"] for row in expected]
    assert found[-1]["problem"]["status"] == 422
    server.flush()
    looked_up = server.call("GET", f"/v1/predictions/{found[0]['prediction_id']}")
    assert looked_up.json()["answer"] == found[0]["answer"]


def test_the_rows_of_a_job_have_the_rights_of_its_client(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows), "ada")
    ended(server, job, "ada")
    assert [row["status"] for row in result(server, job, "ada")] == ["answered"] + ["problem"] * (len(rows) - 1)


@pytest.mark.parametrize("path", ["", "/result", "/events"])
@pytest.mark.parametrize("who", ["rival", "ada"])
def test_a_job_of_somebody_else_is_not_found(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path, path: str, who: str
) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows[:1]))
    assert server.call("GET", f"/v1/jobs/{job['id']}{path}", who).status_code == 404
    assert server.call("DELETE", f"/v1/jobs/{job['id']}", who).status_code == 404
    assert ended(server, job)["status"] == "done"


def test_progress_is_told_until_the_end(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows * 20))
    events = server.call("GET", f"/v1/jobs/{job['id']}/events").text
    states = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
    assert events.count("event: end") == 1
    assert states[-1]["status"] == "done"
    assert [state["done"] for state in states] == sorted(state["done"] for state in states)


def test_a_job_is_cancelled_and_then_deleted(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows * 100))
    assert server.call("DELETE", f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    assert ended(server, job)["done"] < 100 * len(rows)
    time.sleep(1)
    assert server.call("GET", f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"
    assert server.call("DELETE", f"/v1/jobs/{job['id']}").status_code == 200
    assert server.call("GET", f"/v1/jobs/{job['id']}").status_code == 404
    assert not list(server.state.jobs.directory.iterdir())


def test_a_job_goes_on_after_a_restart_and_no_row_is_recorded_twice(
    bundle: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    keys: dict[str, str] = {}
    with running(bundle, tmp_path / "home", {}, keys=keys) as server:
        job = send(server, write(tmp_path / "in.ndjson", rows * 40))
        while server.state.jobs.load(job["id"]).done < 64:
            time.sleep(0.02)
    stopped = json.loads((tmp_path / "home" / "jobs" / job["id"] / "job.json").read_text())
    assert stopped["status"] == "running"
    path = tmp_path / "home" / "jobs" / job["id"] / "result.ndjson"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]) + lines[-3][:50])  # as a kill in the middle of a write leaves it
    with running(bundle, tmp_path / "home", {}, keys=keys) as server:
        assert ended(server, job)["done"] == 40 * len(rows)
        found = result(server, job)
        ids = [row["prediction_id"] for row in found]
        assert len(set(ids)) == len(ids) == 40 * len(rows)
        server.flush()
        with server.state.records.database.reading(reader.EVERYTHING) as connection:
            recorded = list(connection.execute(sa.select(predictions.c.id)).scalars())
        assert sorted(recorded) == sorted(ids)


@pytest.mark.parametrize(
    ("kind", "content", "status", "detail"),
    [
        ("multipart/form-data", b"x", 415, "as it is"),
        ("application/json", b"{}", 415, "as it is"),
        ("text/csv", b"x" * 3_000_000, 413, "over 2000000 bytes"),
    ],
)
def test_a_file_of_another_kind_or_size_is_refused(
    bundle: Path, tmp_path: Path, kind: str, content: bytes, status: int, detail: str
) -> None:
    with running(bundle, tmp_path / "home", {}, jobs={"max_bytes": 2_000_000}) as server:
        response = server.call("POST", "/v1/jobs", content=content, headers={"content-type": kind})
        assert (response.status_code, detail in response.json()["detail"]) == (status, True)
        assert not list((tmp_path / "home").glob("jobs/*"))


def test_a_file_that_cannot_be_read_fails_its_job_and_harms_no_other(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "in.parquet").write_bytes(b"this is no parquet")
    broken = send(server, tmp_path / "in.parquet")
    fine = send(server, write(tmp_path / "in.ndjson", rows[:1]))
    state = ended(server, broken)
    assert state["status"] == "failed"
    assert state["detail"].startswith("cannot be read")
    assert str(tmp_path) not in state["detail"]
    assert ended(server, fine)["status"] == "done"


def test_no_file_stops_the_jobs_of_others(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "deep.ndjson").write_text("[" * 100_000)
    parquet.write_table(pa.table({"asked_at": pa.array([10**15], pa.timestamp("s"))}), tmp_path / "over.parquet")
    (tmp_path / "empty.csv").write_text("")
    sent = [send(server, tmp_path / name) for name in ("deep.ndjson", "over.parquet", "empty.csv")]
    fine = send(server, write(tmp_path / "in.ndjson", rows[:1]))
    states = [ended(server, job) for job in sent]
    assert [(state["status"], state["done"], state["problems"]) for state in states] == [
        ("done", 1, 1),
        ("failed", 0, 0),
        ("done", 0, 0),
    ]
    assert ended(server, fine)["status"] == "done"


def test_two_services_that_share_a_directory_run_a_job_once(
    bundle: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    keys: dict[str, str] = {}
    shared = {"directory": tmp_path / "jobs"}
    with (
        running(bundle, tmp_path / "first", {}, keys=keys, jobs=shared) as first,
        running(bundle, tmp_path / "second", {}, keys=keys, jobs=shared) as second,
    ):
        job = send(first, write(tmp_path / "in.ndjson", rows * 60))
        other = send(second, write(tmp_path / "other.ndjson", rows[:1]))
        assert ended(first, job)["done"] == 60 * len(rows)
        assert len(result(first, job)) == 60 * len(rows)
        assert ended(second, other)["status"] == "done"


def test_a_running_job_that_is_deleted_stays_deleted(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows * 100))
    started(server, job)
    for _ in range(2):
        server.call("DELETE", f"/v1/jobs/{job['id']}")
    time.sleep(2)
    assert not list(server.state.jobs.directory.iterdir())
    assert ended(server, send(server, write(tmp_path / "in.ndjson", rows[:1])))["status"] == "done"


def test_the_input_of_a_job_is_kept_no_longer_than_it_is_needed(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows[:1]))
    ended(server, job)
    directory = server.state.jobs.directory
    assert {path.name for path in (directory / job["id"]).iterdir()} == {"job.json", "result.ndjson", "lock"}
    server.state.jobs.remove_before(datetime.now(UTC) + timedelta(minutes=1))
    assert not list(directory.iterdir())


def test_a_question_in_between_does_not_wait_for_the_job(
    server: Server, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    job = send(server, write(tmp_path / "in.ndjson", rows * 100))
    started(server, job)
    assert server.predict(rows[0]).status_code == 200
    assert server.call("GET", f"/v1/jobs/{job['id']}").json()["status"] == "running"
    server.call("DELETE", f"/v1/jobs/{job['id']}")


def test_rows_that_are_done_are_skipped_wherever_the_run_stopped(tmp_path: Path) -> None:
    source = tmp_path / "in.ndjson"
    source.write_text("".join(json.dumps({"n": i}) + "\n" for i in range(150)))
    for done in (0, 1, 63, 64, 65, 149, 150):
        found = [(first, row["n"]) for first, rows in chunks(source, done) for row in rows]
        assert [n for _, n in found] == list(range(done, 150))
        assert all(first <= n for first, n in found)
    append(tmp_path / "result", ["a", "b"])
    with (tmp_path / "result").open("a") as file:
        file.write("cut")
    assert whole_lines(tmp_path / "result") == 2
    assert (tmp_path / "result").read_text() == "a\nb\n"


def test_a_line_that_is_no_request_is_told_as_such(server: Server, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "in.ndjson"
    file.write_text(json.dumps(rows[0]) + "\n{torn\n\n[1]\n")
    job = ended(server, send(server, file))
    assert (job["done"], job["problems"]) == (3, 2), "blank lines are no rows"
    lines = server.call("GET", f"/v1/jobs/{job['id']}/result").text.splitlines()
    told = [json.loads(line)["problem"]["detail"] for line in lines[1:]]
    assert told == ["The line is not JSON.", "The line is JSON, but no object of fields."]


def test_a_job_without_an_answer_says_that_it_has_ended(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    file.write_bytes(b"PAR1 but no Parquet")
    job = ended(server, send(server, file))
    response = server.call("GET", f"/v1/jobs/{job['id']}/result")
    assert (response.status_code, job["status"]) == (404, "failed")
    assert response.json()["detail"].startswith("This job has ended (failed) without an answer.")
