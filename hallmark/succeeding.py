"""What follows from the records for a version that serves: a rollback by outcomes, and ledgers that go on."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hallmark.errors import HallmarkError
from hallmark.prove.bundle import read_hallmark
from hallmark.prove.serving import CURRENT, ServedVersions
from hallmark.records.database import Database
from hallmark.stages.refresh import trained_from
from hallmark.switching import note, note_challenger
from hallmark.watch.adapters import carry_ledgers
from hallmark.watch.canary import CanaryResult
from hallmark.watch.pairs import open_serving
from hallmark.watch.succession import Succession, Successor, judge_successor, raise_rollback


@dataclass(frozen=True)
class Judged:
    """What came of it.

    Attributes:
        result: what the outcomes say.
        told: what was done, one sentence; empty if nothing was.
    """

    result: CanaryResult
    told: str = ""


def judge_version(
    database: Database, pointer: Path, settings: Succession, now: datetime, public_key: Path | None = None
) -> Judged | None:
    """Judge the version that a pointer leads to, and let the one before serve again if it is worse.

    Args:
        database: of the records.
        pointer: `served/TASK/current`; a bundle elsewhere is not judged.
        settings: the rule.
        now: UTC, with a zone.
        public_key: of the owner who must have signed what serves.

    Returns:
        None if there is nothing to judge: no version was promoted over another one, or long ago.

    Raises:
        RecordsError: the database cannot be read or written.
        BundleError: a version cannot be opened.
    """
    if pointer.name != CURRENT or not pointer.is_symlink():
        return None
    hallmark, digest = read_hallmark(pointer)
    versions = ServedVersions(hallmark.task, pointer.parent.parent, public_key)
    before, promoted = versions.before(), versions.promoted_at(digest)
    if before is None or promoted is None:
        return None
    successor = Successor(open_serving(pointer.resolve()), open_serving(before), promoted)
    result = judge_successor(database, successor, settings, now)
    if result is None:
        return None
    if result.decision != "roll_back":
        return Judged(result)
    try:
        switch = versions.roll_back_from(digest)
    except HallmarkError as error:
        return Judged(result, f"it cannot be rolled back: {error}")
    if switch is None:
        return Judged(result, "another version serves already")
    url = database.url.render_as_string(hide_password=False)
    told = note(switch, "rolled_back", result.reason, url, actor="monitor")
    raise_rollback(database, hallmark.task, result, promoted, now)
    return Judged(result, told)


def carry_over(database: Database, versions: ServedVersions, bundle: Path) -> bool:
    """Let the ledgers of subjects go on if a bundle is to follow one of the same training; tells whether they do.

    Call it before the bundle is promoted: an adapter that is stopped must not serve again meanwhile.

    Raises:
        RecordsError: the database cannot be written.
        BundleError: a manifest cannot be read.
    """
    if not versions.current.is_dir():
        return False
    before, after = read_hallmark(versions.current.resolve()), read_hallmark(bundle)
    if before[1] == after[1] or trained_from(*before) != trained_from(*after):
        return False
    carry_ledgers(database, before[1], after[1])
    return True


def judge_challenger_beside(
    database: Database, pointer: Path, settings: Succession, now: datetime, public_key: Path | None = None
) -> Judged | None:
    """Judge the version that serves beside the champion, and let the champion answer everybody if it is worse.

    The champion answers the challenger's requests again: the losses are paired, as after a promotion. A challenger in
    the shadow, which answers nobody, is judged by what it would have answered.

    Returns:
        None if there is nothing to judge: no version stands beside the champion, or it has done so for long.

    Raises:
        RecordsError: the database cannot be read or written.
        BundleError: a version cannot be opened.
    """
    if pointer.name != CURRENT or not pointer.is_symlink():
        return None
    task = read_hallmark(pointer)[0].task
    versions = ServedVersions(task, pointer.parent.parent, public_key)
    beside = versions.beside()
    if not beside.challenger:
        return None
    began = datetime.fromisoformat(beside.since)
    challenger = open_serving(versions.directory / beside.challenger)
    would_answer = beside.shadows if beside.mode == "shadow" else None
    pair = Successor(challenger, open_serving(pointer.resolve()), began, would_answer)
    result = judge_successor(database, pair, settings, now)
    if result is None:
        return None
    if result.decision != "roll_back":
        return Judged(result)
    if not versions.stop_challenger(beside.challenger):
        return Judged(result, "another version is challenger already")
    url = database.url.render_as_string(hide_password=False)
    digest = challenger.hallmark_sha256
    told = note_challenger(task, digest, "challenger_stopped", result.reason, url, actor="monitor")
    raise_rollback(database, task, result, began, now, "serves beside the champion no more")
    return Judged(result, told)
