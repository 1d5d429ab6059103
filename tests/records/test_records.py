"""Records in SQLite and in a real PostgreSQL: written once, seen by their owners, and an audit that only grows."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from hallmark.errors import ConfigError, RecordsError
from hallmark.records import audit, reader
from hallmark.records.database import Database, Viewer, open_database
from hallmark.records.rows import outcome_row, prediction_id
from hallmark.records.tables import OWNED, audit_log, metadata, outcomes, predictions, subject_days
from tests.toys import ROOT

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def row(owner: str, client: str = "key:app", **changes: Any) -> dict[str, Any]:
    """A row of `predictions`."""
    texts = dict.fromkeys(
        ("hallmark_sha256", "base_sha256", "adapter_sha256", "history_sha256", "machine_sha256"), "a" * 64
    )
    values = {"id": prediction_id(client, None, 0), "owner_id": owner, "client_id": client, "task": "toy"}
    values |= {"model_version": "1.0.0", **texts, "status": "forecast", "served_by": "base", "reason": ""}
    values |= {"asked_at": NOW, "latency_ms": 1.0, "batch_rows": 1, "request": "{}", "response": '{"a": 1}'}
    return {**values, **changes}


def write(database: Database, table: sa.Table, *rows: dict[str, Any]) -> None:
    with database.writing() as connection:
        database.insert(connection, table, rows)


def test_the_migrations_make_the_tables_that_the_library_reads(database: Database) -> None:
    database.migrate()  # a second time changes nothing
    options = {"version_table_schema": "alembic"} if database.is_postgresql else {}
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_a_row_that_arrives_twice_is_there_once(database: Database) -> None:
    first = row("ada")
    write(database, predictions, first, {**first, "response": "{}"})
    write(database, predictions, first)
    found = reader.prediction(database, reader.EVERYTHING, first["id"])
    assert found is not None
    assert found["response"] == first["response"]
    with database.reading(reader.EVERYTHING) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar() == 1


def test_a_viewer_sees_the_rows_of_its_subjects_and_those_it_asked_for(database: Database) -> None:
    of_ada, of_ben = row("ada"), row("ben", client="key:other")
    write(database, predictions, of_ada, of_ben)
    for viewer, wanted in {
        Viewer(None, frozenset({"ada"})): [True, False],
        Viewer(None, frozenset({"ada", "ben"})): [True, True],
        Viewer("key:app", frozenset()): [True, False],
        Viewer("key:other", frozenset()): [False, True],
        Viewer(None, frozenset()): [False, False],
        Viewer(None, None): [True, True],
    }.items():
        seen = [reader.prediction(database, viewer, r["id"]) is not None for r in (of_ada, of_ben)]
        assert seen == wanted, viewer
    assert {line["owner_id"] for _, line in reader.export(database, Viewer(None, frozenset({"ada"})), "ada")} == {"ada"}
    assert not list(reader.export(database, Viewer(None, frozenset({"ada"})), "ben"))


def test_an_export_holds_the_monitors_figures_of_the_subject_alone(database: Database) -> None:
    for owner in ("ada", "ben"):
        day = {"task": "glucose", "day": NOW.date(), "hallmark_sha256": "0" * 64, "owner_id": owner, "figures": "{}"}
        write(database, subject_days, day)
    of_ada = Viewer(None, frozenset({"ada"}))
    assert [(table, line["owner_id"]) for table, line in reader.export(database, of_ada, "ada")] == [
        ("subject_days", "ada")
    ]
    assert not list(reader.export(database, of_ada, "ben"))
    assert len(list(reader.export(database, Viewer(None, None), "ben"))) == 1


def test_row_level_security_holds_where_a_query_forgets_its_condition(postgresql: str, tmp_path: Path) -> None:
    database = Database(postgresql)
    database.migrate()
    write(database, predictions, row("ada"), row("ben", client="key:other"))
    with database.reading(Viewer(None, frozenset({"ada"}))) as connection:
        seen = connection.execute(sa.select(predictions.c.owner_id)).scalars().all()
        assert set(seen) == {"ada"}
    for table in OWNED:
        nothing = sa.insert(table).values(**dict.fromkeys(table.columns.keys()))
        with pytest.raises(RecordsError), database.reading(Viewer(None, frozenset({"ada"}))) as connection:
            connection.execute(nothing)
    with database.engine.begin() as connection:  # a token of Supabase, as supabase-js would send it
        claims = json.dumps({"sub": "ben", "role": "authenticated"})
        connection.execute(sa.text("select set_config('request.jwt.claims', :c, true)"), {"c": claims})
        connection.exec_driver_sql("set local role authenticated")
        assert set(connection.execute(sa.select(predictions.c.owner_id)).scalars()) == {"ben"}
    with database.engine.begin() as connection:
        connection.exec_driver_sql("set local role anon")
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            connection.execute(sa.select(predictions.c.owner_id))
    database.close()


def test_the_first_outcome_of_a_prediction_and_horizon_counts(database: Database) -> None:
    asked = row("ada")
    write(database, predictions, asked)
    for value in (100.0, 200.0):
        write(database, outcomes, outcome_row(asked, "key:app", "60", value, NOW))
    write(database, outcomes, outcome_row(asked, "key:app", "120", "label", NOW))
    found = reader.outcomes_of(database, Viewer(None, frozenset({"ada"})), asked["id"])
    assert [(o["horizon"], json.loads(o["value"])) for o in found] == [("120", "label"), ("60", 100.0)]
    assert not reader.outcomes_of(database, Viewer(None, frozenset({"ben"})), asked["id"])


def test_requests_are_forgotten_after_their_retention_and_answers_are_not(database: Database) -> None:
    old, new = row("ada", asked_at=NOW - timedelta(days=31)), row("ada")
    write(database, predictions, old, new)
    assert reader.forget_requests(database, NOW - timedelta(days=30)) == 1
    kept = [reader.prediction(database, reader.EVERYTHING, r["id"]) for r in (old, new)]
    assert [(r["request"], r["response"]) for r in kept if r] == [(None, old["response"]), ("{}", new["response"])]


def test_the_audit_log_is_a_chain_that_only_grows(database: Database) -> None:
    for number in range(3):
        audit.append(database, "key:app", "subject_exported", f"subject-{number}")
    assert audit.check(database) is None
    for statement in (sa.update(audit_log).values(actor="x"), sa.delete(audit_log)):
        with pytest.raises(sa.exc.DatabaseError, match="only grows"), database.engine.begin() as connection:
            connection.execute(statement)
    assert audit.check(database) is None


def test_a_changed_or_missing_entry_breaks_the_chain(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/records.sqlite")
    database.migrate()
    for number in range(4):
        audit.append(database, "key:app", "subject_exported", f"subject-{number}")
    with database.engine.begin() as connection:  # whoever owns the file can take the triggers away
        for verb in ("update", "delete"):
            connection.exec_driver_sql(f"drop trigger audit_log_no_{verb}")
        connection.execute(sa.update(audit_log).where(audit_log.c.number == 3).values(object="another"))
    assert audit.check(database) == 3
    with database.engine.begin() as connection:
        connection.execute(sa.delete(audit_log).where(audit_log.c.number == 2))
    assert audit.check(database) == 3


def test_heads_outside_the_database_show_that_the_chain_was_cut_or_written_anew(tmp_path: Path) -> None:
    anchor = tmp_path / "elsewhere" / "audit.heads"
    for name in ("records", "forged"):
        database = Database(f"sqlite:///{tmp_path}/{name}.sqlite")
        database.migrate()
        for number in range(4):
            audit.append(database, "key:app", "subject_exported", f"{name}-{number}", anchor=anchor)
        if name == "records":
            heads = audit.read_anchor(anchor)
            assert audit.check(database, heads) is None
            with database.engine.begin() as connection:
                connection.exec_driver_sql("drop trigger audit_log_no_delete")
                connection.execute(sa.delete(audit_log).where(audit_log.c.number == 4))
            assert (audit.check(database), audit.check(database, heads)) == (None, 4)
    assert (audit.check(database), audit.check(database, heads)) == (None, 1)
    anchor.write_text("1 abc\n")
    with pytest.raises(RecordsError, match=r"line 1 of .* is not a number and a sha256"):
        audit.read_anchor(anchor)


def test_the_command_names_the_entry_that_was_edited_by_hand(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.sqlite"
    assert "the records database is not there" in _audit_verify(url, cwd=tmp_path).stderr
    database = open_database(url)
    for number in range(3):
        audit.append(database, "key:app", "subject_exported", f"subject-{number}", anchor=tmp_path / "heads")
    whole = _audit_verify(url, "--anchor", str(tmp_path / "heads"), cwd=tmp_path)
    assert (whole.stdout, whole.returncode) == (
        "3 entries are whole, 3 of them anchored outside the database\n",
        0,
    )
    with database.engine.begin() as connection:
        connection.exec_driver_sql("drop trigger audit_log_no_update")
        connection.execute(sa.update(audit_log).where(audit_log.c.number == 2).values(actor="somebody"))
    edited = _audit_verify(url, cwd=tmp_path)
    assert (edited.stderr, edited.returncode) == (
        "error: entry 2 of the audit log was changed, or one before it was taken away\n",
        1,
    )


def _audit_verify(url: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "hallmark.cli", "audit", "verify", "--records", url, *arguments]
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=known, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("url", ["mysql://user:hush@host/name", "nothing at all"])
def test_another_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Database(url)
    assert "hush" not in str(refused.value)
