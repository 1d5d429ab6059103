"""Erasing a subject leaves nothing that names it, changes no byte of the others' answers, and proves both."""

import hashlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from hallmark.build import build
from hallmark.errors import BundleError, HallmarkError
from hallmark.families.forecasting.refresh import known_until
from hallmark.files import read_json, sha256, write_json
from hallmark.forget.bundles import refuse_erased
from hallmark.forget.certificate import CertificateError, check_certificate, write_certificate
from hallmark.forget.erase import erase
from hallmark.forget.leftovers import fitted_on
from hallmark.forget.rows import delete_before, rows_with
from hallmark.forget.stores import Stores
from hallmark.model import Model
from hallmark.prove.bundle import Contents, make_bundle, read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.records.database import Database, open_database
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import days, ledgers, outcomes, predictions, subject_days
from hallmark.records.writer import RecordWriter
from hallmark.watch.adapters import stopped
from hallmark.watch.monitor import Monitor, watch
from hallmark.watch.pairs import Serving, open_serving
from runtime.compose import compose_operation
from tests.bentos.server import Server, running
from tests.written import FIRST, Writer

NAMES = ("model_version", "hallmark_sha256")  # of the model, in an answer
ERASED, OTHER = "sim-000", "sim-001"


def as_it_was(own: float, base: float) -> float:
    return own + 0.1 * (own - base)


@dataclass(frozen=True)
class Place:
    """A small repository: records, spool, jobs, a served version, a bundle, a model."""

    database: Database
    stores: Stores
    serving: Serving
    root: Path


@pytest.fixture(scope="module")
def serving(bundle: Path) -> Serving:
    return open_serving(bundle)


@pytest.fixture
def place(
    database: Database,
    serving: Serving,
    bundle: Path,
    trained: Path,
    requests_by_subject: dict[str, Any],
    monitor: Monitor,
    tmp_path: Path,
) -> Place:
    kind, hallmark = serving.task.request_type(), read_hallmark(bundle)[0]
    writer = Writer(database, serving, hallmark)
    for subject in (ERASED, OTHER):
        writer.write(kind.model_validate(requests_by_subject[subject]), as_it_was, range(3))
    watch(database, serving.task, monitor, FIRST + timedelta(days=10), lambda: serving)
    root = tmp_path / "repository"
    ServedVersions("glucose", root / "served").promote(bundle)
    shutil.copytree(bundle, root / "bundle")
    shutil.copytree(trained, root / "models" / "current", ignore=shutil.ignore_patterns("scratch"))
    job = root / "jobs" / "j1"
    job.mkdir(parents=True)
    write_json(job / "job.json", {"status": "done"})
    (job / "input.ndjson").write_text(json.dumps(requests_by_subject[ERASED]))
    for folder in ("spool", "reports", "sources"):
        (root / folder).mkdir()
    dead = root / "spool" / "1-dead"
    dead.mkdir()
    lines = [["predictions", {"id": str(n), "owner_id": owner}] for n, owner in enumerate((ERASED, OTHER))]
    (dead / "0000000001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "reports" / "worst.csv").write_text(f"subject_id\n{ERASED}\n")
    stores = Stores(
        spool=root / "spool",
        jobs=root / "jobs",
        served=root / "served",
        bundles=[root / "bundle"],
        models=[root / "models" / "current"],
        derived=[root / "reports"],
        searched=[root / "sources"],
        splits=root / "splits.parquet",
        challengers=root / "challengers",
    )
    return Place(database, stores, serving, root)


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    found: Monitor = build(compose_operation([]))["monitor"]
    return found


def answers(bundle: Path, requests_by_subject: dict[str, Any], named: tuple[str, str]) -> dict[str, str]:
    """What a bundle answers to everybody but the erased subject, under another's name."""
    bodies = {subject: body for subject, body in requests_by_subject.items() if subject != ERASED}
    found = Model(bundle, named=named).predict(list(bodies.values()))
    return {subject: answer.model_dump_json() for subject, answer in zip(bodies, found, strict=True)}


def test_nothing_names_the_subject_any_more_and_the_others_answers_keep_their_bytes(
    place: Place, bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path
) -> None:
    before = read_hallmark(bundle)
    erased = erase(place.database, place.stores, ERASED, why="asked by letter", purging=True)
    assert erased.hits == 0, [(s.path, s.hits) for s in erased.searched if s.hits]
    assert erased.deleted.rows["predictions"] == 6
    assert erased.deleted.rows["ledgers"] == 1
    assert (erased.spooled, erased.jobs, erased.purged) == (1, 1, 1)
    assert erased.models == [str(place.root / "models" / "current")]
    assert erased.replayed == (6, 6)  # of the other subject
    named = (before[0].version, before[1])
    left = Model(bundle).predict([body for subject, body in requests_by_subject.items() if subject != ERASED])
    expected = [answer.model_dump_json() for answer in left]
    for directory in (place.root / "bundle", (place.root / "served" / "glucose" / "current").resolve()):
        assert list(answers(directory, requests_by_subject, named).values()) == expected
        [unknown] = Model(directory).predict([requests_by_subject[ERASED]])
        assert unknown.served_by == "base"
        assert read_hallmark(directory)[0].version == "1.0.1"
    [made] = {made.after: made for made in erased.versions.values()}.values()
    assert made.root_before != made.root_after
    assert made.base_before == made.base_after
    assert audit.check(place.database) is None
    [entry] = [e for e in audit.entries(place.database, 9) if e["action"] == "subject_erased"]
    assert "asked by letter" in entry["detail"]


def test_figures_of_days_are_those_of_the_others(place: Place) -> None:
    erase(place.database, place.stores, ERASED, replays=0)
    with place.database.writing() as connection:
        kept = connection.execute(sa.select(days.c.day, days.c.figures)).all()
        own = dict(connection.execute(sa.select(subject_days.c.day, subject_days.c.figures)).all())  # type: ignore[arg-type]
    assert len(kept) == len(own) == 3
    for day, text in kept:
        means, sums = json.loads(text), json.loads(own[day])
        assert means.pop("subjects") == 1
        assert means == pytest.approx({name: total / count for name, (count, total) in sums.items()})


def test_an_unknown_subject_and_one_that_is_erased_are_told_and_change_nothing(place: Place) -> None:
    with pytest.raises(HallmarkError, match="'nobody-1' is known to no record and no bundle"):
        erase(place.database, place.stores, "nobody-1")
    erase(place.database, place.stores, ERASED, purging=True, replays=0)
    entries = audit.count(place.database)
    with pytest.raises(HallmarkError, match=r"was erased on .*, nothing is left"):
        erase(place.database, place.stores, ERASED)
    assert audit.count(place.database) == entries


@pytest.mark.parametrize("wrong", ["", " ", ".", "12", "base", f" {ERASED}"])
def test_what_is_no_subject_is_refused_although_it_occurs_in_files(place: Place, wrong: str) -> None:
    before = sorted(str(path) for path in place.root.rglob("*"))
    with pytest.raises(HallmarkError, match="id"):
        erase(place.database, place.stores, wrong)
    assert sorted(str(path) for path in place.root.rglob("*")) == before


def test_a_reason_that_names_the_subject_a_short_id_and_a_missing_key_are_refused_before_anything_is_deleted(
    place: Place,
) -> None:
    with pytest.raises(HallmarkError, match="--why names the subject"):
        erase(place.database, place.stores, ERASED, why=f"letter from {ERASED}")
    with pytest.raises(HallmarkError, match="too short for --purge"):
        erase(place.database, place.stores, "0007", purging=True)
    (place.root / "bundle.sig").write_text("{}")
    with pytest.raises(BundleError, match="is signed: give the private key"):
        erase(place.database, place.stores, ERASED)
    (place.root / "bundle.sig").unlink()
    (place.root / "bundle" / "card.md").write_text("changed")
    with pytest.raises(BundleError, match="the file is corrupt"):
        erase(place.database, place.stores, ERASED)
    assert rows_with(place.database, ERASED)["predictions"] == 6
    assert not [entry for entry in audit.entries(place.database, 9) if entry["action"] == "subject_erased"]


def test_the_refresh_state_of_a_refit_and_a_pin_go_with_the_subject(place: Place, trained: Path) -> None:
    versions = ServedVersions("glucose", place.root / "served")
    states = place.root / "challengers" / "glucose" / "states"
    shutil.copytree(trained / "refresh_state", states / versions.digest())
    versions.pin(ERASED, versions.digest())
    versions.pin(OTHER, versions.digest())
    erase(place.database, place.stores, ERASED, replays=0)
    assert [state.name for state in states.iterdir()] == [versions.digest()]
    assert known_until(states / versions.digest()).keys() == {
        str(entry["subject_id"]) for entry in read_json(versions.current / "subjects" / "subjects.json")
    }
    assert ERASED not in known_until(states / versions.digest())
    beside = versions.beside()
    assert (beside.answers(ERASED), beside.answers(OTHER)) == ("", versions.digest())


def test_an_adapter_of_somebody_else_stays_stopped(place: Place, serving: Serving) -> None:
    with place.database.writing() as connection:
        connection.execute(sa.update(ledgers).where(ledgers.c.owner_id == OTHER).values(state="stopped"))
    erased = erase(place.database, place.stores, ERASED, replays=0)
    for made in erased.versions.values():
        assert list(stopped(place.database, made.after[1])) == [OTHER]


def test_a_bundle_that_knows_somebody_who_was_erased_is_not_promoted_again(place: Place, bundle: Path) -> None:
    refuse_erased(place.database, bundle)
    erase(place.database, place.stores, ERASED, replays=0)
    refuse_erased(place.database, place.root / "bundle")
    with pytest.raises(BundleError, match="knows 1 of the subjects that were erased"):
        refuse_erased(place.database, bundle)


def test_an_output_in_dvcs_cache_goes_with_everything_that_it_lists(place: Place, bundle: Path) -> None:
    cache = place.root / "cache" / "files" / "md5"
    history = bundle / "subjects" / ERASED / "history.safetensors"
    md5 = hashlib.md5(history.read_bytes(), usedforsecurity=False).hexdigest()
    (cache / md5[:2]).mkdir(parents=True)
    shutil.copyfile(history, cache / md5[:2] / md5[2:])  # its bytes do not hold the id
    (cache / "aa").mkdir(exist_ok=True)
    listed = [{"md5": md5, "relpath": f"subjects/{ERASED}/history.safetensors"}]
    (cache / "aa" / "bb.dir").write_text(json.dumps(listed))
    stores = replace(place.stores, derived=[place.root / "cache"])
    erased = erase(place.database, stores, ERASED, purging=True, replays=0)
    assert erased.purged == 2
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_erasure_that_was_killed_is_finished_by_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hallmark.forget.erase.forget_bundles", killed)
    with pytest.raises(KeyboardInterrupt):
        erase(place.database, place.stores, ERASED)
    monkeypatch.undo()
    assert erase(place.database, place.stores, ERASED, purging=True, replays=0).hits == 0


def test_rows_on_their_way_do_not_come_in_but_later_ones_do(place: Place) -> None:
    owned = sa.select(predictions).where(predictions.c.owner_id == ERASED)
    with place.database.reading(EVERYTHING) as connection:
        row = dict(connection.execute(owned).mappings().first() or {})
    erased = erase(place.database, place.stores, ERASED, replays=0)

    writer = RecordWriter(place.database, place.root / "another spool")
    late = {**row, "id": "late", "asked_at": erased.at - timedelta(seconds=1)}
    new = {**row, "id": "new", "asked_at": erased.at + timedelta(seconds=1)}
    writer.append([("predictions", late), ("predictions", new)])
    assert writer.flush(30)
    assert writer.recent("predictions", "late") is None
    writer.close()
    with place.database.reading(EVERYTHING) as connection:
        assert [row["id"] for row in connection.execute(owned).mappings()] == ["new"]


def test_a_certificate_holds_until_something_is_changed(place: Place, tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    show = ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(show, check=True, capture_output=True)
    erased = erase(place.database, place.stores, ERASED, key=private, purging=True, replays=10)
    certified = write_certificate(erased, ERASED, place.root / "erasures", private)
    text = (certified.directory / "certificate.json").read_text()
    assert ERASED not in text
    bundles = [place.root / "bundle"]
    told = check_certificate(certified.directory, bundles, public, (ERASED, certified.salt))
    assert any("none of" in sentence for sentence in told)
    with pytest.raises(CertificateError, match="another subject"):
        check_certificate(certified.directory, bundles, public, (OTHER, certified.salt))
    content = read_json(certified.directory / "certificate.json")
    write_json(certified.directory / "certificate.json", {**content, "rows": {}})
    with pytest.raises(BundleError, match="signed"):
        check_certificate(certified.directory, bundles, public)
    told = check_certificate(certified.directory, bundles)
    assert "its signature was not checked" in told[0]
    for made in content["versions"]:
        made["root_after"] = made["root_before"]
    write_json(certified.directory / "certificate.json", content)
    with pytest.raises(CertificateError, match="root of its subjects"):
        check_certificate(certified.directory, bundles)
    for wrong in ("x", "[]", "{}"):
        (certified.directory / "certificate.json").write_text(wrong)
        with pytest.raises(CertificateError, match="is no certificate"):
            check_certificate(certified.directory, bundles)


def test_what_is_left_is_said(place: Place) -> None:
    (place.stores.searched[0] / "rows.csv").write_text(f"subject_id\n{ERASED}\n")
    write_json(place.stores.jobs / "j1" / "job.json", {"status": "running"})
    erased = erase(place.database, place.stores, ERASED, replays=0)
    told = "\n".join(erased.left)
    assert "1 files hold the subject: take the subject out there" in told
    assert "--purge" in told
    assert "job j1 is not over yet" in told
    assert "is not known here" in told  # whether the base model was fitted on it
    assert erased.hits == 3


@pytest.mark.parametrize(("group", "fitted"), [("seen", "yes"), ("held_out", "no")])
def test_the_split_of_its_training_says_whether_the_base_model_saw_the_subject(
    group: str, fitted: str, bundle: Path, tmp_path: Path
) -> None:
    splits, known = tmp_path / "splits.parquet", read_hallmark(bundle)[0]
    pd.DataFrame({"subject_id": [ERASED, OTHER], "group": [group, "seen"]}).to_parquet(splits)
    of_split = {"data": {"splits": sha256(splits)}}
    contents = Contents("glucose", known.spec, [], known.schema, of_split, {}, [], "# of a split\n", None)
    make_bundle(bundle, contents, tmp_path / "bundle")
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite'}")
    away = tmp_path / "away"
    stores = Stores(away, away, away, [tmp_path / "bundle"], [], [splits], [], splits)
    erased = erase(database, stores, ERASED, purging=True)
    assert erased.base == {"glucose": fitted}
    assert any("fitted on rows of the subject" in sentence for sentence in erased.left) == (fitted == "yes")
    assert fitted_on(splits, OTHER, erased.versions[str(tmp_path / "bundle")].splits) == "yes"  # it was rewritten


def test_old_rows_go_by_the_same_code_and_figures_of_days_stay(place: Place) -> None:
    deleted = delete_before(place.database, FIRST + timedelta(days=1))
    assert (deleted["predictions"], deleted["subject_days"]) == (4, 2)
    with place.database.writing() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(days)).scalar() == 3
        left = connection.execute(sa.select(sa.func.count()).select_from(outcomes)).scalar()
    assert left == 16
    assert rows_with(place.database, ERASED)


def test_a_service_forgets_as_well(
    bundle: Path, serving: Serving, requests_by_subject: dict[str, Any], tmp_path: Path
) -> None:
    versions = ServedVersions("glucose", tmp_path / "served")
    versions.promote(bundle)
    home = tmp_path / "home"
    with running(versions.current, home, {}, reload_s=0.1) as server:
        known = server.predict(requests_by_subject[ERASED]).json()["rows"][0]
        other = server.predict(requests_by_subject[OTHER]).json()["rows"][0]
        assert known["answer"]["served_by"] == "adapter"
        server.flush()
        database = open_database(f"sqlite:///{home}/records.sqlite")
        nothing = tmp_path / "nothing"
        stores = Stores(home / "spool", home / "jobs", tmp_path / "served", [], [], [], [home], nothing)
        erased = erase(database, stores, ERASED)
        assert {str(s.path): s.hits for s in erased.searched if s.hits} == {}
        after = wait_for(server, requests_by_subject[ERASED])
        assert after["answer"]["served_by"] == "base"
        deadline = time.monotonic() + 60  # the service reads who is erased a moment after it has taken the bundle
        while (found := server.call("GET", f"/v1/predictions/{known['prediction_id']}", "admin")).status_code == 200:
            assert time.monotonic() < deadline, "what it holds in memory is not forgotten"
            time.sleep(0.1)
        assert found.status_code == 404
        again = server.predict(requests_by_subject[OTHER]).json()["rows"][0]
        same = {
            name: again["answer"][name] for name in again["answer"] if name not in ("model_version", "hallmark_sha256")
        }
        assert same == {name: other["answer"][name] for name in same}
        assert again["evidence"]["adapter_sha256"] == other["evidence"]["adapter_sha256"]


def wait_for(server: Server, body: Any) -> Any:
    deadline = time.monotonic() + 120
    while True:
        row = server.predict(body).json()["rows"][0]
        if row["answer"]["served_by"] == "base" or time.monotonic() > deadline:
            return row
        time.sleep(0.2)
