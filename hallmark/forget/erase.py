"""Erase a subject: from the records, spools, jobs, bundles and models of this machine; say what is left elsewhere."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from hallmark.errors import HallmarkError, RecordsError, ReplayError
from hallmark.forget.bundles import (
    all_bundles,
    check_bundles,
    forget_bundles,
    forget_models,
    forget_pins,
    known_to_a_bundle,
)
from hallmark.forget.leftovers import fitted_on, forget_jobs, forget_spool, purge, search_stores
from hallmark.forget.rows import Deleted, delete_again, delete_subject, erased_at, owned_rows, rows_with
from hallmark.forget.search import SHORTEST, Canary, Searched
from hallmark.forget.stores import Stores
from hallmark.records.audit import write_anchor
from hallmark.records.database import Database
from hallmark.replaying import replay_answers
from hallmark.stages.forget import Forgotten


@dataclass
class Erased:
    """What was done.

    Attributes:
        at: when; UTC.
        deleted: rows of the records.
        earlier: when an erasure of this subject began that this one goes on with; None if none did.
        spooled: lines that were taken out of the spools of processes that have died.
        jobs: number of jobs that were deleted.
        versions: bundles that were replaced, by their directories.
        models: model directories that were rewritten.
        purged: number of derived files that were deleted.
        replayed: answers of others that were computed again, and how many of them are equal byte for byte.
        base: task → whether the base model was fitted on rows of the subject: `yes`, `no` or `unknown`.
        searched: every store, after all this.
        rows_left: rows of the records that still hold the id, by table.
        left: what remains to be done by somebody, in sentences.
    """

    at: datetime
    deleted: Deleted
    earlier: datetime | None = None
    spooled: int = 0
    jobs: int = 0
    versions: dict[str, Forgotten] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    purged: int = 0
    replayed: tuple[int, int] = (0, 0)
    base: dict[str, str] = field(default_factory=dict)
    searched: Sequence[Searched] = ()
    rows_left: Mapping[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    @property
    def hits(self) -> int:
        """Files and rows that still hold the id."""
        return sum(len(store.hits) for store in self.searched) + sum(self.rows_left.values())


def erase(
    database: Database,
    stores: Stores,
    subject_id: str,
    why: str = "",
    key: Path | None = None,
    purging: bool = False,
    replays: int = 100,
    anchor: Path | None = None,
) -> Erased:
    """Erase a subject.

    It may be run again after it was killed: what is gone already is left out. A service takes the new bundle by itself;
    answers that it gives meanwhile are deleted at the end.

    Args:
        database: of the records.
        stores: of this machine.
        subject_id: whose.
        why: the reason, for the audit log; it must not name the subject.
        key: private key that signs the new bundles in place of the one that signed the old ones.
        purging: delete derived files that hold the id, also in DVC's cache.
        replays: recorded answers of others that are computed again afterwards.
        anchor: file that gets the head of the audit log.

    Raises:
        HallmarkError: nothing knows the subject, or the reason names it; nothing was changed.
        RecordsError, BundleError: a store cannot be read or written. Bundles are checked before anything is deleted;
            later, what was done before stays done.
    """
    _check(database, stores, subject_id, why, purging)
    check_bundles(stores, subject_id, key)
    now, earlier = datetime.now(UTC), erased_at(database, subject_id)
    erased = Erased(now, delete_subject(database, subject_id, now, "command", why), earlier)
    if anchor is not None:
        write_anchor(anchor, erased.deleted.entry)
    erased.spooled = forget_spool(stores.spool, subject_id)
    erased.jobs, running = forget_jobs(stores.jobs, subject_id)
    erased.left += [f"job {name} is not over yet: cancel it, or wait, and run this again" for name in running]
    erased.versions = forget_bundles(database, stores, subject_id, key)
    forget_pins(stores, subject_id)
    erased.models = forget_models(stores, subject_id)
    for made in erased.versions.values():  # before the table that it reads is purged
        if erased.base.get(made.task) in (None, "no"):  # the worst of all versions counts
            erased.base[made.task] = fitted_on(stores.splits, subject_id, made.splits)
    if purging:
        erased.purged = purge(stores.derived, subject_id, stores.splits)
    erased.replayed = _replay(database, stores, replays)
    rows = Counter(erased.deleted.rows) + Counter(delete_again(database, subject_id, datetime.now(UTC)))
    erased.deleted = replace(erased.deleted, rows=dict(rows))
    erased.searched = search_stores(stores.all, subject_id)
    erased.rows_left = rows_with(database, subject_id)
    erased.left += _left(stores, erased)
    return erased


def _check(database: Database, stores: Stores, subject_id: str, why: str, purging: bool) -> None:
    """Check that the id is that of a subject, not of something else that occurs in files."""
    if not (subject_id.strip() == subject_id and subject_id.isprintable() and subject_id):
        raise HallmarkError("the id of a subject is a printable text without space around it")
    if Canary(subject_id).in_name(why):
        raise HallmarkError("--why names the subject: the reason stays in the audit log, write it without the id")
    if purging and len(subject_id) < SHORTEST:
        raise HallmarkError(f"{subject_id!r} is too short for --purge: it occurs in files by chance; erase without it")
    if owned_rows(database, subject_id) or known_to_a_bundle(stores, subject_id):
        return
    at = erased_at(database, subject_id)
    if at is not None and any(store.hits for store in search_stores(stores.all, subject_id)):
        return  # an erasure that was interrupted, or derived files that are purged now
    what = (
        f"was erased on {at:%Y-%m-%d}, nothing is left" if at else "is known to no record and no bundle: check the id"
    )
    raise HallmarkError(f"the subject {subject_id!r} {what}")


def _replay(database: Database, stores: Stores, count: int) -> tuple[int, int]:
    """Compute recorded answers of others again."""
    url = database.url.render_as_string(hide_password=False)
    try:
        results = list(replay_answers(url, None, count, all_bundles(stores))) if count else []
    except (RecordsError, ReplayError):
        return 0, 0  # no answer of these bundles has kept its request
    return len(results), sum(result.equal for result in results)


def _left(stores: Stores, erased: Erased) -> list[str]:
    """Say what this machine still holds and what cannot be reached from here."""
    told = []
    for task, fitted in erased.base.items():
        if fitted == "yes":
            told.append(
                f"the base model of {task} was fitted on rows of the subject: take them out of the source, train again"
            )
        elif fitted == "unknown":
            told.append(f"whether the base model of {task} was fitted on the subject is not known here")
    for store in erased.searched:
        remedy = "--purge deletes them" if store.path in stores.derived else "take the subject out there"
        if store.hits:
            told.append(f"{store.path}: {len(store.hits)} files hold the subject: {remedy}")
        if store.unreadable:
            told.append(f"{store.path}: {len(store.unreadable)} files could not be searched")
    told += [f"{count} rows of {table} hold the id in another place" for table, count in erased.rows_left.items()]
    return [*told, "not reached from here: backups, container images, DVC remotes that are not directories"]
