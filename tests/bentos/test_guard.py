"""A version that fails after its promotion is rolled back by the service itself, once, and the audit log says why."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hallmark.files import directory_of, read_json, sha256, write_json
from hallmark.prove.bundle import open_bundle
from hallmark.prove.serving import ServedVersions
from hallmark.records.database import open_database
from hallmark.records.tables import audit_log
from hallmark.watch.guard import Seen
from tests.bentos.server import Server, running
from tests.toys import another_version


@pytest.fixture(scope="module")
def broken(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers its example, but whose numbers of every person cannot be used."""
    scratch = tmp_path_factory.mktemp("broken")
    model = Path(shutil.copytree(bundle, scratch / "model"))
    entries = read_json(model / "subjects" / "subjects.json")
    for entry in entries:
        file = model / "subjects" / directory_of(entry["subject_id"]) / "history.safetensors"
        if file.is_file():
            arrays = {n: np.full_like(a, np.inf) if a.dtype.kind == "f" else a for n, a in load_file(str(file)).items()}
            save_file(arrays, str(file))
            entry["history_sha256"] = sha256(file)
    write_json(model / "subjects" / "subjects.json", entries)
    return another_version(bundle, scratch / "bundle", "broken", model)


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[tuple[Server, ServedVersions]]:
    versions = ServedVersions("glucose", tmp_path / "served")
    versions.promote(bundle)
    with running(versions.current, tmp_path / "home", {}, reload_s=0.1) as found:
        yield found, versions


def serving(server: Server, digest: str) -> bool:
    deadline = time.monotonic() + 120
    while server.state.engine.served.digest != digest and time.monotonic() < deadline:
        time.sleep(0.05)
    return server.state.engine.served.digest == digest


def test_a_version_that_fails_is_rolled_back_and_the_reason_is_kept(
    server: tuple[Server, ServedVersions],
    bundle: Path,
    broken: Path,
    requests_by_subject: dict[str, Any],
    tmp_path: Path,
) -> None:
    service, versions = server
    good, bad = open_bundle(bundle)[1], open_bundle(broken)[1]
    questions = list(requests_by_subject.values())
    service.predict({"rows": questions * 5})
    versions.promote(broken)
    assert serving(service, bad)
    assert service.predict({"rows": questions * 6}).status_code == 200
    assert serving(service, good)
    assert versions.digest() == good[:16]
    rows = service.predict({"rows": questions}).json()["rows"]
    assert {row["answer"]["fallback"] for row in rows} == {""}
    warnings = " ".join(service.call("GET", "/readyz", None).json()["warnings"])
    assert "the guard has acted" in warnings
    with open_database(service.state.settings.records.url.get_secret_value()).writing() as connection:
        [entry] = connection.execute(audit_log.select().where(audit_log.c.action == "rolled_back")).all()
    assert entry.actor == "guard"
    assert "the subject's own model could not be used for" in entry.detail


def test_a_version_that_has_served_for_long_is_not_rolled_back(
    server: tuple[Server, ServedVersions], broken: Path, requests_by_subject: dict[str, Any]
) -> None:
    service, versions = server
    bad = open_bundle(broken)[1]
    questions = list(requests_by_subject.values())
    service.predict({"rows": questions * 5})
    versions.promote(broken)
    record = versions.directory / f"{bad[:16]}.json"
    record.write_text(json.dumps(read_json(record) | {"at": "2026-01-01T00:00:00+00:00"}))
    assert serving(service, bad)
    service.predict({"rows": questions * 6})
    time.sleep(0.5)
    assert versions.digest() == bad[:16]


def test_a_service_without_a_pointer_goes_on(bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path) -> None:
    with running(bundle, tmp_path / "home", {}) as service:
        digest = service.state.engine.served.digest
        service.state.guard.add(digest, Seen(wrong=1))
        assert not service.state.guard.check()
        assert service.predict(next(iter(requests_by_subject.values()))).status_code == 200
