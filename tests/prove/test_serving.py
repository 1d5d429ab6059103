"""One pointer says which version serves: it is replaced in one step, by one at a time, and only to a whole bundle."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hallmark.cli import app
from hallmark.errors import BundleError, ConfigError
from hallmark.prove.bundle import open_bundle
from hallmark.prove.serving import ServedVersions, champion_or_last
from hallmark.records.database import open_database
from hallmark.records.tables import audit_log
from tests.bentos.server import running
from tests.toys import ROOT, another_version


@pytest.fixture(scope="module")
def bundles(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three versions."""
    scratch = tmp_path_factory.mktemp("versions")
    return [bundle, another_version(bundle, scratch / "b", "b"), another_version(bundle, scratch / "c", "c")]


@pytest.fixture
def served(tmp_path: Path) -> ServedVersions:
    """No version serves yet."""
    return ServedVersions("glucose", tmp_path / "served")


def digest(bundle: Path) -> str:
    return open_bundle(bundle)[1]


def now(served: ServedVersions) -> str:
    return digest(served.current.resolve())


def test_a_rollback_goes_back_over_what_was_promoted(served: ServedVersions, bundles: list[Path]) -> None:
    a, b, c = map(digest, bundles)
    assert [served.promote(bundle).before[1] for bundle in bundles] == ["", a, b]
    assert now(served) == c
    assert served.promote(bundles[2]).before[1] == c, "it serves already"
    assert [served.roll_back().after[1] for _ in range(2)] == [b, a]
    with pytest.raises(BundleError, match=r"promoted over no version of glucose: name one by --to"):
        served.roll_back()
    assert now(served) == a
    assert served.roll_back(to=c[:6]).after[1] == c
    assert [name for _, name in served.versions()] == [d[:16] for d in (a, b, c)]


def test_what_cannot_serve_is_refused_and_what_serves_stays(
    served: ServedVersions, bundles: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="`hallmark promote` makes one"):
        served.roll_back()
    served.promote(bundles[0])
    served.promote(bundles[1])
    serving = now(served)
    with pytest.raises(BundleError, match=r"2 versions of glucose are called so; there are 1\.0\.0"):
        served.roll_back(to="1.0.0")
    with pytest.raises(BundleError, match="no version of glucose is called so"):
        served.roll_back(to="9.9.9")
    broken = Path(shutil.copytree(bundles[2], tmp_path / "broken"))
    (broken / "base" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        served.promote(broken)
    older = served.directory / digest(bundles[0])[:16]
    (older / "card.md").write_text("changed")
    with pytest.raises(BundleError, match=rf"card\.md.*; {serving[:16]} goes on serving"):
        served.roll_back()
    shutil.rmtree(older)
    with pytest.raises(BundleError, match=rf"is gone: name another one by --to; {serving[:16]} goes on serving"):
        served.roll_back()
    with pytest.raises(BundleError, match="is a model of glucose, not of trades"):
        ServedVersions("trades", tmp_path / "served").promote(bundles[0])
    assert now(served) == serving


def test_promoting_again_mends_a_damaged_copy(served: ServedVersions, bundles: list[Path]) -> None:
    served.promote(bundles[0])
    (served.current / "card.md").write_text("changed")
    assert served.promote(bundles[0]).before[1] == digest(bundles[0])
    assert now(served) == digest(bundles[0])


def test_files_that_cannot_be_read_or_written_are_told(
    served: ServedVersions, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=r"/proc/served/glucose cannot be written .*: name another one by --served"):
        ServedVersions("glucose", Path("/proc/served")).promote(bundles[0])
    served.promote(bundles[0])
    served.promote(bundles[1])
    (served.directory / f"{digest(bundles[1])[:16]}.json").write_text("{torn")
    with pytest.raises(BundleError, match="promoted over no version"):
        served.roll_back()
    assert served.roll_back(to=digest(bundles[0])[:8]).after[1] == digest(bundles[0])
    monkeypatch.chdir(tmp_path)
    assert champion_or_last("glucose") == Path("served/glucose/current")
    shutil.rmtree(served.current.resolve())
    with pytest.raises(
        ConfigError, match="leads to a version that is gone: run `hallmark rollback glucose --to VERSION`"
    ):
        champion_or_last("glucose")
    assert champion_or_last("trades") == Path("bundles/trades")


def test_promotions_at_once_happen_one_after_the_other(served: ServedVersions, bundles: list[Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from hallmark.prove.serving import ServedVersions\n"
        "for _ in range(3):\n"
        "    for bundle in sys.argv[2:]: ServedVersions('glucose', Path(sys.argv[1])).promote(Path(bundle))"
    )
    orders = [bundles, bundles[::-1]]
    stop, seen = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            if served.current.is_symlink():
                seen.add((served.current / "hallmark.json").read_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    root = str(served.directory.parent)
    started = [subprocess.Popen([sys.executable, "-c", code, root, *map(str, order)], cwd=ROOT) for order in orders]
    codes = [process.wait(120) for process in started]
    stop.set()
    watcher.join()
    assert codes == [0, 0]
    assert now(served) in map(digest, bundles)
    assert seen <= {(bundle / "hallmark.json").read_bytes() for bundle in bundles}, "always one of them, and whole"
    assert not list(served.directory.glob(".*.old"))


def test_a_service_follows_the_pointer_under_load_without_a_failed_request(
    served: ServedVersions, bundles: list[Path], requests_by_subject: dict[str, Any], tmp_path: Path
) -> None:
    served.promote(bundles[0])
    question = next(iter(requests_by_subject.values()))
    with running(served.current, tmp_path / "home", {}, reload_s=0.1) as server:
        seen: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                response = server.predict(question)
                assert response.status_code == 200
                seen.append(response.json()["rows"][0]["evidence"]["hallmark_sha256"])

        def wait_for(expected: str) -> None:
            for _ in range(300):
                if seen[-1:] == [expected]:
                    return
                stop.wait(0.05)
            raise AssertionError(f"{expected[:12]} does not answer")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        a, b = digest(bundles[0]), digest(bundles[1])
        wait_for(a)
        served.promote(bundles[1])
        wait_for(b)
        served.roll_back()
        wait_for(a)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {a, b}


def test_the_commands_say_what_serves_and_the_audit_log_why(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HALLMARK_RECORDS__URL", f"sqlite:///{tmp_path}/records.sqlite")

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout.strip()

    a, b = (digest(bundle)[:12] for bundle in bundles[:2])
    assert said("promote", "--bundle", str(bundles[0])) == f"glucose 1.0.0 ({a}) serves now"
    said("promote", "--bundle", str(bundles[1]), "--why", "better on test")
    assert said("rollback", "--why", "errors rose") == f"glucose 1.0.0 ({a}) serves now instead of 1.0.0 ({b})"
    with open_database(f"sqlite:///{tmp_path}/records.sqlite").writing() as connection:
        rows = connection.execute(audit_log.select().order_by(audit_log.c.number)).all()
    assert [row.action for row in rows] == ["promoted", "promoted", "rolled_back"]
    assert rows[2].object.startswith(a)
    assert rows[2].detail.endswith(": errors rose")
    assert "3 entries are whole" in said("audit", "verify")
    assert "rolled_back" in said("audit", "show").splitlines()[0]
    listed = said("versions").splitlines()
    assert [line.split()[0] for line in listed] == ["*", "1.0.0"], "the first one serves"
    beside = said("challenge", str(bundles[1]), "--share", "20", "--why", "wider network")
    assert beside == f"glucose {b[:12]} serves beside the champion: 20%, wider network"
    assert said("pin", "ada", "--to", b[:6]) == f"{digest(bundles[1])[:16]} answers this subject now"
    assert said("versions").splitlines()[-2].startswith(f"+ 1.0.0      {digest(bundles[1])[:16]}  answers 20% since 20")
    assert said("versions").splitlines()[-1] == "subjects that are pinned to a version: 1"
    assert said("pin", "ada") == "this subject is pinned to no version"
    assert said("challenge", "--stop").endswith("does not serve beside the champion any more")
    assert said("challenge", "--stop") == "no version serves beside the champion of glucose"
    for wrong in (["challenge"], ["challenge", "--stop", str(bundles[1])]):
        assert "name the challenger's bundle, or end its time" in str(CliRunner().invoke(app, wrong).exception)
    done = CliRunner().invoke(app, ["rollback", "trades"])
    assert "'trades' is no task that serves: those that serve from served are glucose" in str(done.exception)


def test_a_change_without_an_entry_in_the_audit_log_has_a_status_of_its_own(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HALLMARK_RECORDS__URL", "sqlite:////proc/records.sqlite")
    done = CliRunner().invoke(app, ["promote", "--bundle", str(bundles[0])])
    assert done.exit_code == 3
    assert "serves now, but the audit log has no entry of it" in done.stderr
    assert (tmp_path / "served" / "glucose" / "current").is_dir()
