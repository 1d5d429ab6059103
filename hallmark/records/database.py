"""Connect to the database of the records and bring its tables up to date."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from hallmark.errors import ConfigError, RecordsError
from hallmark.records import DEFAULT_URL

SERVICE = "hallmark_service"  # the PostgreSQL role that writes rows of every owner
BATCH = 500  # rows of one insert
URL = "HALLMARK_RECORDS__URL"
MIGRATING = 1_919_247_215  # key of the lock that keeps two services from migrating at once


@dataclass(frozen=True)
class Viewer:
    """Who reads: rows of others are invisible.

    Attributes:
        client_id: who asks and sees what it asked for itself; None sees no rows for this reason.
        subjects: whose rows it may see; None sees everything.
    """

    client_id: str | None
    subjects: frozenset[str] | None

    def sees(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the viewer sees a row that is at hand; `visible` is the same condition for a query."""
        return self.subjects is None or row["owner_id"] in self.subjects or row["client_id"] == self.client_id


class Database:
    """The records in SQLite or PostgreSQL.

    Args:
        url: such as `sqlite:///.records/records.sqlite` or `postgresql+psycopg://user@host/name`.
        timeout_s: seconds within which a connection must be made and a statement must end.

    Raises:
        ConfigError: the URL is of neither kind.
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        try:
            self.url = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise ConfigError(f"{URL} cannot be read: write sqlite:///PATH or postgresql+psycopg://…") from None
        self.is_postgresql = self.url.get_backend_name() == "postgresql"
        if self.is_postgresql:
            ms = int(timeout_s * 1000)
            settings = f"-c statement_timeout={ms} -c lock_timeout={ms} -c tcp_user_timeout={ms}"
            arguments: dict[str, Any] = {"connect_timeout": max(2, int(timeout_s)), "options": settings}
        elif self.url.get_backend_name() == "sqlite":
            arguments = {"timeout": timeout_s}
        else:
            raise ConfigError(f"{URL}: {self.url.drivername!r} is neither sqlite nor postgresql+psycopg")
        self.engine = sa.create_engine(self.url, connect_args=arguments, pool_pre_ping=True, pool_timeout=timeout_s)
        if not self.is_postgresql:
            sa.event.listen(self.engine, "connect", _sqlite_pragmas)

    def migrate(self) -> None:
        """Create the tables, or bring them up to date."""
        from alembic import command
        from alembic.config import Config

        with self.failing("bring the tables up to date"), self.engine.begin() as connection:
            if self.is_postgresql:
                connection.exec_driver_sql(f"select pg_advisory_xact_lock({MIGRATING})")
                prelude = resources.files("hallmark.records.migrations").joinpath("prelude.sql")
                connection.exec_driver_sql(prelude.read_text(encoding="utf-8"))
            config = Config()
            config.set_main_option("script_location", "hallmark.records:migrations")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write rows of every owner."""
        with self.failing("write"), self.engine.begin() as connection:
            if self.is_postgresql:
                connection.execute(sa.text(f"set local role {SERVICE}"))
            yield connection

    @contextmanager
    def reading(self, viewer: Viewer) -> Iterator[sa.Connection]:
        """Open a transaction that sees the rows of a viewer; in PostgreSQL by row-level security, too."""
        with self.failing("read"), self.engine.begin() as connection:
            if self.is_postgresql:
                role = SERVICE if viewer.subjects is None else "authenticated"
                claims = {"client_id": viewer.client_id, "app_metadata": {"subjects": sorted(viewer.subjects or ())}}
                connection.execute(
                    sa.text("select set_config('request.jwt.claims', :claims, true)"), {"claims": json.dumps(claims)}
                )
                connection.execute(sa.text(f"set local role {role}"))
            yield connection

    def insert(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; a row whose key is there already is left as it is."""
        statement = self._insert(table).on_conflict_do_nothing()
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, list(rows[start : start + BATCH]))

    def replace(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; one whose key is there already takes its place."""
        statement = self._insert(table)
        keys = [column.name for column in table.primary_key]
        others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, list(rows[start : start + BATCH]))

    def _insert(self, table: sa.Table) -> Any:
        """Begin an insert in the dialect of this database, which knows what to do about a conflict."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    def listed(self, values: Iterable[str]) -> sa.TableValuedAlias:
        """Return values as a table with a column `value`: one parameter of a statement, however many they are."""
        each = sa.func.json_array_elements_text if self.is_postgresql else sa.func.json_each
        return each(sa.literal(list(values), sa.JSON)).table_valued(sa.column("value", sa.String))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def failing(self, what: str) -> Iterator[None]:
        """Convert errors of the database into `RecordsError`, without the values of a statement."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise RecordsError(f"{self.place} cannot {what} ({_told(cause)}): check {URL}") from error

    @property
    def place(self) -> str:
        """Where the records are, without a password."""
        if self.is_postgresql:
            return f"the records database {self.url.database} at {self.url.host or 'the local socket'}"
        return f"the records database {self.url.database or 'in memory'}"


def visible(table: sa.Table, viewer: Viewer) -> "sa.ColumnElement[bool]":
    """Return the condition under which a viewer sees a row; PostgreSQL checks the same again."""
    if viewer.subjects is None:
        return sa.true()
    own = sa.false() if viewer.client_id is None else table.c.client_id == viewer.client_id
    return sa.or_(table.c.owner_id.in_(sorted(viewer.subjects)), own)


def _sqlite_pragmas(connection: Any, _: Any) -> None:
    """Write ahead, so that readers and the writer do not wait for each other."""
    for pragma in ("journal_mode=wal", "synchronous=normal"):
        connection.execute(f"pragma {pragma}")


def configured_url() -> str:
    """Return the URL that the environment names, or the default."""
    return os.environ.get(URL, DEFAULT_URL)


def open_database(url: str, must_exist: bool = False) -> Database:
    """Open a database whose tables are up to date, for a command; the directory of an SQLite file is made.

    A service does not make it: the directory may be a volume that is away for a while.

    Args:
        url: see `Database`.
        must_exist: whether a missing file of SQLite is an error instead of an empty database.

    Raises:
        ConfigError: see `Database`.
        RecordsError: it is missing, or does not answer.
    """
    database = Database(url)
    if not database.is_postgresql:
        file = Path(database.url.database or "")
        if must_exist and not file.is_file():
            raise RecordsError(f"the records database is not there: no file {file}; set --records")
        with database.failing("make its directory"):
            file.parent.mkdir(parents=True, exist_ok=True)
    database.migrate()
    return database


def _told(cause: BaseException) -> str:
    """Name an error of the driver; its text only where it cannot quote values of a statement."""
    if isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError:
        return str(cause)
    return type(cause).__name__
