"""Files of a run in a bucket: what it refuses is one line, data come from the DVC remote, nothing is half-written."""

import os
import shutil
import subprocess
import sys
import urllib.request
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hallmark.errors import BundleError, HallmarkError
from hallmark.files import CHECKPOINTS
from runtime import store
from steps.carrier import Carrier
from tests.bentos.server import free_port
from tests.workspace import copy_repository


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Any:
    with pytest.MonkeyPatch.context() as patched:
        for key, value in {**store.environment(), "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patched.setenv(key, value)
        yield


def artifact_store(path: str, address: str, key: str = "key") -> Any:
    """ZenML's own artifact store of a bucket."""
    from zenml.enums import StackComponentType
    from zenml.integrations.s3.artifact_stores.s3_artifact_store import S3ArtifactStore
    from zenml.integrations.s3.flavors.s3_artifact_store_flavor import S3ArtifactStoreConfig

    quick = {"connect_timeout": 2, "read_timeout": 5, "retries": {"max_attempts": 1}}
    settings = {"endpoint_url": address}
    config = S3ArtifactStoreConfig(path=path, key=key, secret="secret", client_kwargs=settings, config_kwargs={**quick})
    now = datetime.now(UTC)
    return S3ArtifactStore(
        name="bucket", id=uuid.uuid4(), config=config, flavor="s3", type=StackComponentType.ARTIFACT_STORE,
        user=uuid.uuid4(), created=now, updated=now, labels=None,
    )  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/rows").write_text("one")
    return tmp_path


def test_files_are_elsewhere_what_they_are_here(here: Path, bucket: tuple[str, str], tmp_path: Path) -> None:
    name, address = bucket
    given = Carrier(artifact_store(name, address), "first", ["out"])
    given.point()
    given.give()
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    Carrier(artifact_store(name, address), "first", ["out"]).take()
    assert Path("out/rows").read_text() == "one"
    [listed] = given._read("first.json").values()
    with given.store.open(given._object(listed), "w") as poisoned:
        poisoned.write("two")
    Path("out/rows").unlink()
    with pytest.raises(BundleError, match=r"out/rows: the artifact store holds sha256 .* under the name"):
        Carrier(given.store, "first", ["out"]).take()
    assert list(Path("out").iterdir()) == [], "nothing is half-written"


def test_an_upload_that_is_interrupted_leaves_no_object(
    here: Path, bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, address = bucket
    Path("out/rows").write_bytes(os.urandom(100))
    carrier = Carrier(artifact_store(name, address), "cut", ["out"])

    def interrupted(source: Any, target: Any, length: int) -> None:
        target.write(source.read(10))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("steps.carrier.shutil.copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            carrier.give()
    carrier.give()
    whole = Path("out/rows").read_bytes()
    Path("out/rows").unlink()
    Carrier(carrier.store, "cut", ["out"]).take()
    assert Path("out/rows").read_bytes() == whole


def test_checkpoints_that_the_store_refuses_are_an_error_and_gone_ones_are_not_listed(
    here: Path, bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, address = bucket
    carrier = Carrier(artifact_store(name, address), "run", ["out"])
    checkpoint = CHECKPOINTS / "a" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{")
    carrier.give_checkpoints()
    assert carrier._read("run.checkpoints.json") == {}, "it is not complete"
    (checkpoint / "trainer_state.json").write_text("{}")
    carrier.give_checkpoints()
    assert len(carrier._read("run.checkpoints.json")) == 1
    shutil.rmtree(CHECKPOINTS)
    carrier.give_checkpoints()
    assert carrier._read("run.checkpoints.json") == {}
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"other": 1}')
    away = Carrier(artifact_store("s3://gone", f"http://127.0.0.1:{free_port()}"), "run", ["out"])
    with pytest.raises(Exception, match="Could not connect"):
        away.give_checkpoints()


def test_a_store_that_is_away_is_one_line(here: Path) -> None:
    carrier = Carrier(artifact_store("s3://gone", f"http://127.0.0.1:{free_port()}"), "run", ["out"])
    for action in (carrier.give, carrier.take, carrier.point):
        with pytest.raises(HallmarkError, match=r"^the artifact store s3://gone cannot be used .*: check that") as told:
            action()
        assert "\n" not in str(told.value)
    assert Path("out/rows").read_text() == "one"


def test_a_bucket_without_rights_is_one_line(here: Path, bucket: tuple[str, str]) -> None:
    name, address = bucket
    ask_for_rights(address, "0")
    try:
        carrier = Carrier(artifact_store(name, address, key="AKIAIOSFODNN7EXAMPLE"), "run", ["out"])
        with pytest.raises(HallmarkError, match=r"cannot be used .*secret of the stack may read, write") as told:
            carrier.give()
        assert "\n" not in str(told.value)
    finally:
        ask_for_rights(address, "inf")


def ask_for_rights(address: str, after: str) -> None:
    """Let the store check the rights of every key after so many requests."""
    kind = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{address}/moto-api/reset-auth", data=after.encode(), headers=kind, method="POST")
    urllib.request.urlopen(request)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_data_come_from_the_dvc_remote_and_not_from_the_store(
    tmp_path: Path, bucket: tuple[str, str], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, address = bucket
    remote = str(tmp_path / "mirror") if kind == "folder" else f"{name}/mirror"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    where = copy_repository(tmp_path / "repository")
    (where / "data" / "own.csv").write_text("rows\n" * 1000)

    def dvc(*command: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=where, check=True, capture_output=True)

    dvc("add", "data/own.csv")
    dvc("remote", "add", "--default", "mirror", remote)
    if kind == "s3":
        dvc("remote", "modify", "mirror", "endpointurl", address)
    os.chdir(where)
    carriers = [Carrier(artifact_store(name, address), f"data-{k}", ["data/own.csv"]) for k in range(3)]
    carriers[0].point()
    assert carriers[0]._read("data-0.pointers.json") == {}, "it is not in the remote yet"
    dvc("push", "data/own.csv")
    carriers[1].point()
    carriers[1].give()
    assert list(carriers[1]._read("data-1.pointers.json")) == ["data/own.csv.dvc"]
    assert carriers[1]._read("data-1.json") == {}
    pod = tmp_path / "pod"
    (pod / "data").mkdir(parents=True)
    for file in (".dvc/config", "data/own.csv.dvc"):
        (pod / file).parent.mkdir(parents=True, exist_ok=True)
        (pod / file).write_bytes((where / file).read_bytes())
    os.chdir(pod)
    Carrier(carriers[1].store, "data-1", ["data/own.csv"]).take()
    assert (pod / "data/own.csv").read_text() == "rows\n" * 1000
    (pod / "data/own.csv").write_text("older")
    Carrier(carriers[1].store, "data-1", ["data/own.csv"]).take()
    assert (pod / "data/own.csv").read_text() == "rows\n" * 1000, "what is here with other content is pulled again"
    (pod / "data/own.csv").unlink()
    if kind == "s3":
        settings = pod / ".dvc" / "config"
        settings.write_text(settings.read_text().replace(address, f"http://127.0.0.1:{free_port()}"))
    else:
        (tmp_path / "mirror").rename(tmp_path / "away")
    (pod / ".dvc" / "cache").rename(tmp_path / "cache")
    with pytest.raises(HallmarkError, match=r"data/own\.csv\.dvc cannot be pulled .*: the machines of steps need"):
        Carrier(carriers[1].store, "data-1", ["data/own.csv"]).take()
    os.chdir(where)
    if kind == "folder":
        (tmp_path / "away").rename(tmp_path / "mirror")
    else:
        settings.write_text((where / ".dvc" / "config").read_text())
    (where / "data" / "own.csv").write_text("changed")
    carriers[2].point()
    carriers[2].give()
    assert list(carriers[2]._read("data-2.json")) == ["data/own.csv"], "it is not what its pointer says"
    dvc("add", "data/own.csv")
    dvc("push", "data/own.csv")
    newer = Carrier(artifact_store(name, address), "data-3", ["data/own.csv"])
    newer.point()
    os.chdir(pod)
    with pytest.raises(BundleError, match=r"data/own\.csv\.dvc here points to other data than where the run began"):
        Carrier(newer.store, "data-3", ["data/own.csv"]).take()


@pytest.fixture(autouse=True)
def _back() -> Any:
    before = Path.cwd()
    yield
    os.chdir(before)
