"""Pseudonyms: what subjects are called where an entry cannot be deleted."""

import uuid

import sqlalchemy as sa

from hallmark.records.database import Database
from hallmark.records.tables import pseudonyms


def pseudonym(database: Database, connection: sa.Connection, subject_id: str) -> str:
    """Return a subject's pseudonym: a random one, made when it is first asked for."""
    database.insert(connection, pseudonyms, [{"owner_id": subject_id, "pseudonym": str(uuid.uuid4())}])
    known = sa.select(pseudonyms.c.pseudonym).where(pseudonyms.c.owner_id == subject_id)
    return str(connection.execute(known).scalar_one())
