"""Decisions about subjects in the records: append-only rows of `training_jobs`, which each subject may read."""

import uuid
from collections.abc import Mapping
from datetime import datetime

from hallmark.records.database import Database
from hallmark.records.erasures import digest_of, read_erasures
from hallmark.records.rows import REQUESTED, training_row
from hallmark.records.tables import training_jobs
from hallmark.watch.standing import last_jobs, open_requests

ACTOR = "retrain"
WAITING = ("canary", "budget", "failed")
"""Codes of reasons for which a request waits on."""


def note(
    database: Database,
    task: str,
    status: str,
    reasons: Mapping[str, tuple[str, str]],
    now: datetime,
    actor: str = ACTOR,
    since: datetime | None = None,
) -> None:
    """Write decisions.

    One that repeats the last decision about its subject is left out: a fleet that is looked at every night would
    otherwise grow by a row per subject and night. A decision that ends a request has a row for everybody who asked.

    Args:
        database: of the records.
        task: name of the task.
        status: `requested`, `skipped`, `rejected`, `failed` or `deployed`.
        reasons: subject → code and sentence.
        now: UTC, with a zone.
        actor: who decides.
        since: when the decisions were begun; nothing is written about subjects that were erased after it.

    Raises:
        RecordsError: the database cannot be written.
    """
    known, waiting = last_jobs(database, task), open_requests(database, task)
    rows = []
    for subject, (code, text) in reasons.items():
        last, asked = known.get(subject), waiting.get(subject, set())
        if asked and (code in WAITING or (status == REQUESTED and actor in asked)):
            continue
        repeated = last is not None and last.status == status and last.reason.startswith(f"{code}:")
        if repeated and status not in (REQUESTED, "deployed"):
            continue
        whose = sorted(asked) if asked and status != REQUESTED else [actor]
        rows += [training_row(str(uuid.uuid4()), subject, who, task, status, f"{code}: {text}", now) for who in whose]
    if not rows:
        return
    with database.writing() as connection:
        erased = read_erasures(connection) if since is not None else {}
        gone = {digest for digest, at in erased.items() if since is not None and at >= since}
        database.insert(connection, training_jobs, [row for row in rows if digest_of(row["owner_id"]) not in gone])
