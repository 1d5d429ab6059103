"""Tell of a change of the version that serves, and write it to the audit log."""

from pathlib import Path
from typing import Literal

from hallmark.errors import RecordsError
from hallmark.prove.serving import Switch

Challenging = Literal["challenger_began", "challenger_stopped"]


def note(
    switch: Switch,
    action: Literal["promoted", "rolled_back"],
    why: str,
    records: str,
    anchor: Path | None = None,
    actor: str = "command",
) -> str:
    """Write a change to the audit log.

    Args:
        switch: the change, which has happened: an outage of the database must not delay a rollback.
        action: what was done.
        why: the reason; may be empty.
        records: URL of the database.
        anchor: file that gets the new head of the log's chain; None for the one that the environment names.
        actor: who has decided.

    Returns:
        One sentence that says what serves now.

    Raises:
        RecordsError: the log has no entry of the change; the message begins with that sentence.
    """
    (old, before), (version, digest) = switch.before, switch.after
    if before == digest:
        return f"{switch.task} {version} ({digest[:12]}) serves already"
    over = f" instead of {old or 'one that is gone'} ({before[:12]})" if before else ""
    told = f"{switch.task} {version} ({digest[:12]}) serves now{over}"
    _keep(records, actor, action, digest, told, told + (f": {why}" if why else ""), anchor)
    return told


def note_challenger(
    task: str,
    digest: str,
    action: Challenging,
    why: str,
    records: str,
    anchor: Path | None = None,
    actor: str = "command",
) -> str:
    """Write to the audit log that a version begins or ceases to serve beside the champion; see `note`.

    Raises:
        RecordsError: the log has no entry of it; the message begins with the sentence that is returned otherwise.
    """
    what = (
        "serves beside the champion" if action == "challenger_began" else "does not serve beside the champion any more"
    )
    told = f"{task} {digest[:12]} {what}" + (f": {why}" if why else "")
    _keep(records, actor, action, digest, told, told, anchor)
    return told


def _keep(records: str, actor: str, action: str, digest: str, told: str, detail: str, anchor: Path | None) -> None:
    """Append `detail` to the audit log; an error begins with what was `told`."""
    from hallmark.records import audit
    from hallmark.records.database import open_database

    try:
        audit.append(open_database(records), actor, action, digest, detail, anchor or audit.configured_anchor())
    except RecordsError as error:
        raise RecordsError(f"{told}, but the audit log has no entry of it: {error}") from error
