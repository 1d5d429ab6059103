"""Audit log: a chain of decisions, each with the digest of the one before; a changed or missing entry breaks it.

Whoever owns the database could write the whole chain anew, or cut off its end. The heads of the chain are therefore
anchored in a file outside of it, a line each: a copy of any line, kept by somebody else, proves what stood before.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hallmark.errors import RecordsError
from hallmark.records.database import Database
from hallmark.records.pseudonyms import pseudonym
from hallmark.records.reader import EVERYTHING
from hallmark.records.tables import audit_log

START = "0" * 64
LOCK = 1_635_083_369  # key of PostgreSQL's advisory lock


def append(
    database: Database, actor: str, action: str, what: str, detail: str = "", anchor: Path | None = None
) -> None:
    """Append a decision: one writer at a time.

    Args:
        database: the records.
        actor: client that decided, or the name of a command.
        action: verb and object, such as `subject_exported`.
        what: id of the thing.
        detail: one sentence, without inputs.
        anchor: file that gets the new head of the chain.

    Raises:
        RecordsError: the database cannot be written, or the anchor cannot; then the entry is in the database.
    """
    with database.writing() as connection:
        head = add(database, connection, actor, action, what, detail)
    if anchor is not None:  # after the commit: a head whose entry is not there says that it was taken away
        write_anchor(anchor, head)


def add(
    database: Database, connection: sa.Connection, actor: str, action: str, what: str, detail: str = ""
) -> tuple[int, str]:
    """Append a decision within a transaction, which holds up other writers until it ends; see `append`.

    Returns:
        Number and digest of the entry, for `write_anchor` after the commit.
    """
    if database.is_postgresql:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
    else:
        connection.exec_driver_sql("update alembic_version set version_num = version_num")  # takes the write lock
    last = connection.execute(sa.select(audit_log).order_by(audit_log.c.number.desc()).limit(1)).mappings().first()
    number = 1 if last is None else int(last["number"]) + 1
    entry = {
        "number": number,
        "at": datetime.now(UTC),
        "actor": actor,
        "action": action,
        "object": what,
        "detail": detail,
        "previous_sha256": START if last is None else last["sha256"],
    }
    digest = _digest(entry)
    connection.execute(audit_log.insert().values(**entry, sha256=digest))
    return number, digest


def append_about(
    database: Database, actor: str, action: str, subject_id: str, detail: str = "", anchor: Path | None = None
) -> None:
    """Append a decision about a subject, under its pseudonym; see `append`."""
    with database.writing() as connection:
        who = pseudonym(database, connection, subject_id)
        head = add(database, connection, actor, action, who, detail)
    if anchor is not None:
        write_anchor(anchor, head)


def configured_anchor() -> Path:
    """Return the file of the heads that the environment names, or the default."""
    return Path(os.environ.get("HALLMARK_RECORDS__ANCHOR", ".records/audit.heads"))


def entries(database: Database, count: int) -> list[Mapping[str, Any]]:
    """Return the newest entries, the newest first."""
    query = sa.select(audit_log).order_by(audit_log.c.number.desc()).limit(count)
    with database.reading(EVERYTHING) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def read_anchor(file: Path) -> dict[int, str]:
    """Read the heads that were anchored: number of an entry → its digest; none if there is no file.

    Raises:
        RecordsError: a line has another form.
    """
    if not file.is_file():
        return {}
    heads = {}
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        number, _, digest = line.partition(" ")
        if not (number.isdigit() and len(digest) == len(START)):
            raise RecordsError(f"line {place} of {file} is not a number and a sha256: it was edited by hand")
        heads[int(number)] = digest
    return heads


def check(database: Database, heads: Mapping[int, str] | None = None) -> int | None:
    """Return the number of the first entry that was changed, or follows a missing one; None if the chain holds.

    Args:
        database: the records.
        heads: number of an entry → digest that it must have, as `read_anchor` returns them.
    """
    previous, expected, heads = START, 1, heads or {}
    with database.reading(EVERYTHING) as connection:
        for row in connection.execute(sa.select(audit_log).order_by(audit_log.c.number)).mappings():
            entry = {name: value for name, value in row.items() if name != "sha256"}
            whole = entry["previous_sha256"] == previous and _digest(entry) == row["sha256"]
            if entry["number"] != expected or not whole or heads.get(expected, row["sha256"]) != row["sha256"]:
                return int(entry["number"])
            previous, expected = row["sha256"], expected + 1
    return min((number for number in heads if number >= expected), default=None)


def count(database: Database) -> int:
    """Return the number of entries."""
    with database.reading(EVERYTHING) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(audit_log)).scalar_one())


def write_anchor(file: Path, head: tuple[int, str]) -> None:
    """Append the number and the digest of an entry to the file of heads.

    Raises:
        RecordsError: it cannot be written.
    """
    number, digest = head
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, f"{number} {digest}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        remedy = "set HALLMARK_RECORDS__ANCHOR"
        raise RecordsError(f"{file} cannot be written ({error.strerror}): {remedy}") from error


def _digest(entry: Mapping[str, Any]) -> str:
    at: datetime = entry["at"]
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)  # SQLite gives times without their zone
    plain = {**entry, "at": at.isoformat(timespec="microseconds")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
