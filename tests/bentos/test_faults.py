"""Faults of a real service: killed, stopped, its database gone, its bundle replaced. Nothing is lost or doubled."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa

from bentos.engine import Engine
from hallmark.prove.bundle import open_bundle
from hallmark.records import reader
from hallmark.records.database import Database
from hallmark.records.tables import predictions
from tests.bentos.server import Service, running
from tests.toys import another_version

CANARY = "CANARY-90417"


@pytest.fixture(scope="module")
def questions(requests_by_subject: dict[str, Any]) -> list[dict[str, Any]]:
    """A request of every person."""
    return list(requests_by_subject.values())


class Process(Service):
    """A service, what it has recorded, and its process."""

    def __init__(self, bundle: Path, home: Path, **environment: str) -> None:
        super().__init__(bundle, home / "log", "admin", **environment)
        self.home = home

    def worker(self) -> int:
        """The process that answers."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child.pid for child in children if "worker" in " ".join(child.cmdline()))

    def ask(self, body: Any, **headers: str) -> httpx.Response:
        """Ask."""
        headers = {"authorization": f"Bearer {self.key}", **headers}
        return httpx.post(f"http://127.0.0.1:{self.port}/v1/predict", json=body, headers=headers, timeout=60)

    def recorded(self) -> list[str]:
        """Ids in the database."""
        database = Database(f"sqlite:///{self.home}/records.sqlite")
        with database.reading(reader.EVERYTHING) as connection:
            found = list(connection.execute(sa.select(predictions.c.id)).scalars())
        database.close()
        return found

    def spooled(self) -> list[str]:
        """Ids that only the spool has."""
        found = []
        for segment in (self.home / "spool").rglob("*.jsonl"):
            found += [json.loads(line)[1].get("id", "") for line in segment.read_bytes().splitlines(keepends=True)]
        return found


@contextmanager
def serving(bundle: Path, home: Path, **environment: str) -> Iterator[Process]:
    service = Process(bundle, home, **environment)
    try:
        yield service
    finally:
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(60)


def load(service: Process, questions: list[dict[str, Any]], seconds: float) -> tuple[list[str], list[int]]:
    """Ask from four threads; returns the ids of the answers that arrived, and the statuses of the others."""
    told: list[str] = []
    failed: list[int] = []
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        place = number
        while time.monotonic() < until:
            place += 1
            try:
                response = service.ask({"rows": [questions[place % len(questions)]] * 2})
            except httpx.HTTPError:
                failed.append(0)
                time.sleep(0.05)
                continue
            if response.status_code == 200:
                told.extend(row["prediction_id"] for row in response.json()["rows"])
            else:
                failed.append(response.status_code)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told, failed


def report(fault: str, told: list[str], failed: list[int], known: list[str]) -> None:
    """Print what happened, for docs/reliability.md (`pytest -s`)."""
    lost, doubled = len(set(told) - set(known)), len(known) - len(set(known))
    print(f"\n{fault}: {len(told) + 2 * len(failed)} rows sent, {len(told)} answered, {lost} lost, {doubled} doubled")


def test_a_worker_that_is_killed_under_load_loses_and_doubles_no_answer(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    with serving(bundle, tmp_path / "home") as service:
        worker = service.worker()
        killer = threading.Timer(3.0, lambda: os.kill(worker, signal.SIGKILL))
        killer.start()
        told, failed = load(service, questions, 8.0)
        assert told
        service.wait()
        assert service.worker() != worker, "BentoML has started another; callers may have waited in the socket's queue"
        assert service.ask(questions[0]).status_code == 200
    known = service.spooled() + service.recorded()  # a row goes from the one to the other
    report("worker killed", told, failed, known)
    assert set(told) <= set(known)
    assert len(service.recorded()) == len(set(service.recorded()))


def test_a_service_that_is_stopped_during_batches_answers_what_it_has_taken(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    service = Process(bundle, tmp_path / "home")
    stopper = threading.Timer(1.5, lambda: service.process.send_signal(signal.SIGTERM))
    stopper.start()
    told, failed = load(service, questions, 4.0)
    service.process.wait(60)
    report("service stopped", told, failed, service.recorded())
    assert told
    assert set(failed) <= {0}, "whoever was let in was answered; the others found nobody there"
    assert not service.spooled(), "what was answered is in the database before the service ends"
    assert set(told) <= set(service.recorded())


def test_a_database_that_is_away_holds_up_no_answer_and_gets_them_all(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    away = tmp_path / "away"
    with running(bundle, tmp_path / "home", {}, records={"url": f"sqlite:///{away}/records.sqlite"}) as server:
        told = []
        for question in questions * 3:
            response = server.predict(question)
            assert response.status_code == 200
            told.append(response.json()["rows"][0]["prediction_id"])
        assert server.call("GET", f"/v1/predictions/{told[0]}", "admin").status_code == 503
        assert "records database" in " ".join(server.call("GET", "/readyz", None).json()["warnings"])
        away.mkdir()
        assert server.state.records.flush(60)
        assert server.call("GET", f"/v1/predictions/{told[0]}", "admin").status_code == 200
        with server.state.records.database.reading(reader.EVERYTHING) as connection:
            found = list(connection.execute(sa.select(predictions.c.id)).scalars())
        report("database away", told, [], found)
        assert sorted(found) == sorted(told)


def test_an_answer_that_cannot_be_recorded_is_not_given(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hallmark.records import spool

    with running(bundle, tmp_path / "home", {}) as server:
        monkeypatch.setattr(spool, "IN_MEMORY", 0)
        monkeypatch.setattr(spool.Spool, "_write", _full)
        response = server.predict(questions[0])
        assert (response.status_code, response.json()["type"]) == (503, "urn:hallmark:records_full")
        assert response.headers["retry-after"] == "30"
        monkeypatch.undo()
        assert server.predict(questions[0]).status_code == 200


def _full(self: Any, lines: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_new_bundle_is_taken_under_load_without_a_dropped_request(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    from hallmark.files import replacing

    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    another_version(bundle, tmp_path / "next", "another")
    _, first = open_bundle(bundle)
    _, second = open_bundle(tmp_path / "next")
    with running(served, tmp_path / "home", {}, reload_s=0.1) as server:
        seen: list[str] = []
        stop = threading.Event()

        def client() -> None:
            while not stop.is_set():
                response = server.predict(questions[0])
                assert response.status_code == 200, response.text
                seen.append(response.json()["rows"][0]["evidence"]["hallmark_sha256"])

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        with replacing(served) as fresh:
            shutil.copytree(tmp_path / "next", fresh, dirs_exist_ok=True)
        deadline = time.monotonic() + 120
        while second not in seen and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {first, second}
        assert seen == sorted(seen, key=[first, second].index) or seen.count(second) > 1


def test_a_corrupt_bundle_in_its_place_is_not_taken_and_the_old_one_answers(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with running(served, tmp_path / "home", {}, reload_s=0.1) as server:
        before = server.predict(questions[0]).json()["rows"][0]["answer"]
        manifest = served / "hallmark.json"
        manifest.write_text(manifest.read_text().replace('"version": "1.0.0"', '"version": "9.0.0"'))
        (served / "base" / "model.safetensors").write_bytes(b"x")
        time.sleep(1)
        assert server.predict(questions[0]).json()["rows"][0]["answer"] == before


def test_an_adapter_that_is_corrupted_on_disk_costs_its_subject_the_adapter_and_no_other(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with running(served, tmp_path / "home", {}) as server:
        first = questions[0]["subject_id"]
        [file] = (served / "subjects" / first).glob("history.safetensors")
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        rows = server.predict({"rows": questions}).json()["rows"]
        assert rows[0]["answer"]["served_by"] == "base"
        assert "sha256" in rows[0]["answer"]["fallback"]
        assert rows[0]["evidence"]["adapter_sha256"] == ""
        assert all(row["answer"]["fallback"] == "" for row in rows[1:])


def test_files_that_are_corrupt_before_the_start_cost_what_they_hold_and_a_mended_one_is_taken_again(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    history = served / "subjects" / questions[0]["subject_id"] / "history.safetensors"
    network = served / "base" / "model.safetensors"
    whole = network.read_bytes()
    for file in (history, network):
        file.write_bytes(file.read_bytes()[:-9] + b"corrupted")
    with running(served, tmp_path / "home", {}, reload_s=0.1) as server:
        ready = server.call("GET", "/readyz", None)
        assert ready.status_code == 200
        assert any(
            warning.startswith("2 files of the bundle are missing or changed") for warning in ready.json()["warnings"]
        )
        assert "hallmark_damaged_files 2.0" in server.call("GET", "/metrics").text
        rows = server.predict({"rows": questions}).json()["rows"]
        assert {row["answer"]["served_by"] for row in rows} == {"baseline"}
        network.write_bytes(whole)
        deadline = time.monotonic() + 120
        while server.state.engine.served.model.damaged != (f"subjects/{history.parent.name}/history.safetensors",):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        rows = server.predict({"rows": questions}).json()["rows"]
        assert rows[0]["answer"]["served_by"] == "base"
        assert "sha256" in rows[0]["answer"]["fallback"]
        assert all(row["answer"]["fallback"] == "" for row in rows[1:])


def test_with_a_public_key_a_damaged_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    from hallmark.errors import BundleError
    from hallmark.prove.signature import sign

    served = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    for command in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "private.pem"],
        ["ec", "-in", "private.pem", "-pubout", "-out", "public.pem"],
    ):
        subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)
    sign(served, tmp_path / "private.pem")
    next(served.glob("subjects/*/history.safetensors")).write_bytes(b"x")
    with pytest.raises(BundleError, match=r"is not what the owner of public\.pem has signed"):
        Engine(served, tmp_path / "public.pem")


def test_no_input_is_in_anything_that_was_written_but_the_records(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A canary in every place where a client can put a text; then every file that the service wrote is searched."""
    with serving(bundle, tmp_path / "home", HALLMARK_RECORDS__KEEP_REQUESTS="false") as service:
        address, headers = f"http://127.0.0.1:{service.port}", {"authorization": f"Bearer {service.key}"}
        texts = []
        for body in (
            {**questions[0], "asked_at": CANARY},
            {**questions[0], CANARY: 1},
            {"rows": [{"readings": [{"timestamp": CANARY}]}]},
            {"rows": CANARY},
            CANARY,
        ):
            texts.append(service.ask(body, **{"idempotency-key": CANARY, "x-request-id": CANARY}).text)
        texts.append(httpx.get(f"{address}/v1/predictions/{CANARY}", headers=headers).text)
        texts.append(httpx.get(f"{address}/{CANARY}?{CANARY}={CANARY}", headers=headers).text)
        texts.append(httpx.get(f"{address}/v1/models", headers={"authorization": f"Bearer {CANARY}.{CANARY}.x"}).text)
        texts.append(httpx.post(f"{address}/v1/jobs", headers={**headers, "content-type": CANARY}, content=b"x").text)
        texts.append(httpx.get(f"{address}/metrics", headers=headers).text)
        assert not [text for text in texts if CANARY in text]
        assert service.ask(questions[0]).status_code == 200
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [p for p in (tmp_path / "home").glob("records.sqlite*") if p.stat().st_mode & 0o077]
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]
    reading = json.dumps(questions[0]["readings"][0])[1:-1].encode()
    assert not [path for path in written if reading in path.read_bytes()], "inputs are not kept"


def test_a_clock_that_jumps_back_changes_no_answer_and_keeps_every_record(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines and rates use a clock that cannot be set; the wall clock only dates the records."""
    from datetime import UTC, datetime, timedelta

    import bentos.routes.predict as module

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(UTC) - timedelta(days=400)

    with running(bundle, tmp_path / "home", {}) as server:
        before = server.predict(questions[0]).json()["rows"][0]
        monkeypatch.setattr(module, "datetime", Earlier)
        after = server.predict(questions[0]).json()["rows"][0]
        assert after["answer"] == before["answer"]
        server.flush()
        for row in (before, after):
            assert server.call("GET", f"/v1/predictions/{row['prediction_id']}", "admin").status_code == 200
