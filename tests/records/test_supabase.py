"""The tables as migrations for Supabase: made from the same revisions, applied by its command line, and advised on."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from hallmark.records.database import Database
from hallmark.records.supabase import DIRECTORY, FILES, migrations
from hallmark.records.tables import metadata
from tests.toys import ROOT

CLI = "supabase@2.117.0"
OF_SUPABASE = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create schema auth;
create function auth.uid() returns text language sql stable as
  $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
alter default privileges in schema public grant all on tables to anon, authenticated;
grant usage on schema public to anon, authenticated;
grant usage on schema auth to anon, authenticated;
"""
"""What a new project of Supabase has, as far as the tables need it."""


def test_the_files_are_what_the_revisions_make() -> None:
    kept = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / DIRECTORY).iterdir()}
    assert kept == migrations(), "run `python -m hallmark.records.supabase`"


@pytest.fixture
def project(postgresql: str) -> Iterator[Database]:
    """An empty database with the roles of a new project."""
    server = Database(postgresql)
    with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("drop database if exists supabase_project with (force)")
        connection.exec_driver_sql("create database supabase_project")
        known = {name for (name,) in connection.exec_driver_sql("select rolname from pg_roles")}
    found = Database(server.url.set(database="supabase_project").render_as_string(hide_password=False))
    statements = [s for s in OF_SUPABASE.split(";\n") if s.strip()]
    with found.engine.begin() as connection:
        for statement in statements:
            if not any(f"create role {name} " in statement for name in known):
                connection.exec_driver_sql(statement)
    yield found
    found.close()
    server.close()


def test_after_the_files_the_library_has_nothing_left_to_migrate(project: Database) -> None:
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for text in migrations().values():
            connection.connection.cursor().execute(text)
    project.migrate()
    with project.engine.connect() as connection:
        options = {"version_table_schema": "alembic"}
        context = MigrationContext.configure(connection, opts=options)
        assert context.get_current_heads() == (list(FILES)[-1],)
        assert compare_metadata(context, metadata) == []


@contextmanager
def forwarded(uri: sa.URL) -> Iterator[int]:
    """A TCP port of this machine in front of a server that listens on a socket file alone."""
    target = f"{uri.query['host']}/.s.PGSQL.{uri.port or 5432}"
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.mark.slow
def test_supabases_command_line_applies_the_files_and_its_advisors_find_nothing(
    project: Database, tmp_path: Path
) -> None:
    npm = shutil.which("npm")
    installed = npm and subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", CLI], cwd=tmp_path, capture_output=True, timeout=300, check=False
    )
    if not installed or installed.returncode:
        pytest.skip(f"npm, or a registry that has {CLI}, is not at hand")
    cli = str(tmp_path / "node_modules" / ".bin" / "supabase")
    shutil.copytree(ROOT / DIRECTORY, tmp_path / DIRECTORY)
    environment = {**os.environ, "DO_NOT_TRACK": "1", "SUPABASE_TELEMETRY_DISABLED": "1", "HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [cli, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    with forwarded(project.url) as port:
        url = ["--db-url", f"postgresql://postgres@127.0.0.1:{port}/supabase_project?sslmode=disable"]
        for command in (["init", "--yes"], ["migration", "up", *url], ["db", "advisors", "--fail-on", "warn", *url]):
            done = run(*command)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        with project.engine.begin() as connection:
            connection.exec_driver_sql("create table public.open_to_all (id int)")
        found = run("db", "advisors", "--fail-on", "warn", *url)
        assert found.returncode != 0, "the advisors must find a table without row-level security"
        assert "open_to_all" in found.stdout + found.stderr
