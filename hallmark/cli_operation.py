"""Commands of operation: which version serves, which adapters do, and the audit log of such decisions."""

# Modules that take long to import are imported inside the command that uses them.

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hallmark.errors import HallmarkError, RecordsError
from hallmark.records import DEFAULT_URL

if TYPE_CHECKING:
    import pandas as pd

    from hallmark.prove.serving import Switch

app = typer.Typer()

audit = typer.Typer(help="The audit log of decisions.", no_args_is_help=True)
app.add_typer(audit, name="audit")

BUNDLE = Path("bundle")
SERVED = Path("served")
Bundle = Annotated[Path, typer.Option(envvar="HALLMARK_BUNDLE", help="a bundle's directory")]
Records = Annotated[str, typer.Option(envvar="HALLMARK_RECORDS__URL", help="the database")]
Watched = Annotated[Path | None, typer.Option(envvar="HALLMARK_BUNDLE", help="default: the champion")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="of recorded answers that are read")]
Served = Annotated[Path, typer.Option(help="directory of the versions that may serve")]
Key = Annotated[Path | None, typer.Option(envvar="HALLMARK_PUBLIC_KEY", help="of the owner who must have signed it")]
Why = Annotated[str, typer.Option(help="the reason, for the audit log")]


@app.command()
def promote(
    bundle: Bundle = BUNDLE, why: Why = "", served: Served = SERVED, key: Key = None, records: Records = DEFAULT_URL
) -> None:
    """Let a bundle serve: services that follow served/TASK/current take it without a restart."""
    from hallmark.forget.bundles import refuse_erased
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import ServedVersions
    from hallmark.records.database import open_database
    from hallmark.succeeding import carry_over

    versions = ServedVersions(read_hallmark(bundle)[0].task, served, key)
    try:
        database = open_database(records)
        refuse_erased(database, bundle)
        carry_over(database, versions, bundle)
    except RecordsError as error:
        unknown = f"whether {bundle} knows somebody who was erased, and which adapters are stopped, is not known"
        print(f"warning: {unknown}: {error}", file=sys.stderr)
    _tell(versions.promote(bundle), "promoted", why, records)


@app.command()
def rollback(
    task: Annotated[str, typer.Argument(help="of the version; not needed where one task serves")] = "",
    to: Annotated[str, typer.Option(help="version or first digits of its digest; default: the one before")] = "",
    why: Why = "",
    served: Served = SERVED,
    key: Key = None,
    records: Records = DEFAULT_URL,
) -> None:
    """Let an earlier version serve again; one that is gone or damaged is refused, and what serves stays."""
    from hallmark.prove.serving import ServedVersions

    _tell(ServedVersions(_task_of(task, served), served, key).roll_back(to), "rolled_back", why, records)


@app.command()
def challenge(
    bundle: Annotated[Path | None, typer.Argument(help="the challenger")] = None,
    share: Annotated[int, typer.Option(min=1, max=100, help="per cent of subjects that it answers")] = 10,
    shadow: Annotated[bool, typer.Option("--shadow", help="it answers nobody: computed, counted, not given")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="the champion answers everybody again")] = False,
    task: Annotated[str, typer.Option(help="with --stop; not needed where one task serves")] = "",
    why: Why = "",
    served: Served = SERVED,
    key: Key = None,
    records: Records = DEFAULT_URL,
) -> None:
    """Let a bundle serve beside the champion, for a share of the subjects; `make monitor` compares them on outcomes."""
    from hallmark.forget.bundles import refuse_erased
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import ServedVersions
    from hallmark.records.database import open_database
    from hallmark.switching import note_challenger

    if stop == (bundle is not None):
        raise HallmarkError("name the challenger's bundle, or end its time by --stop")
    try:
        if bundle is None:
            of_task = ServedVersions(_task_of(task, served), served)
            name = of_task.stop_challenger()
            if not name:
                typer.echo(f"no version serves beside the champion of {of_task.task}")
                return
        else:
            refuse_erased(open_database(records), bundle)
            of_task = ServedVersions(read_hallmark(bundle)[0].task, served, key)
            name = of_task.challenge(bundle, share, "shadow" if shadow else "split")
            why = f"{f'shadow of {share}%' if shadow else f'{share}%'}{f', {why}' if why else ''}"
        typer.echo(
            note_challenger(of_task.task, name, "challenger_stopped" if stop else "challenger_began", why, records)
        )
    except RecordsError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(3) from None


@app.command()
def pin(
    subject: Annotated[str, typer.Argument(help="whom")],
    to: Annotated[str, typer.Option(help="version or first digits of its digest; without: whichever is drawn")] = "",
    task: Annotated[str, typer.Option(help="not needed where one task serves")] = "",
    served: Served = SERVED,
    records: Records = DEFAULT_URL,
) -> None:
    """Let one version answer a subject, whatever else serves; only a salted digest of the id is kept."""
    from hallmark.prove.serving import ServedVersions
    from hallmark.records import audit
    from hallmark.records.database import open_database

    of_task = _task_of(task, served)
    name = ServedVersions(of_task, served).pin(subject, to)
    told = f"{name} answers this subject now" if name else "this subject is pinned to no version"
    audit.append_about(
        open_database(records), "command", "pinned", subject, f"{of_task}: {told}", audit.configured_anchor()
    )
    typer.echo(told)


@app.command()
def versions(
    task: Annotated[str, typer.Argument(help="not needed where one task serves")] = "", served: Served = SERVED
) -> None:
    """List the versions that may serve, in the order of their promotion: * the champion, + its challenger."""
    from hallmark.prove.beside import read_beside
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import ServedVersions

    of_task = ServedVersions(_task_of(task, served), served)
    beside = read_beside(of_task.directory)
    for version, name in of_task.versions():
        promoted = of_task.promoted_at(name)
        when = f"{promoted:%Y-%m-%d %H:%M} UTC" if promoted else "at an unknown time"
        typer.echo(f"{'*' if name == of_task.digest() else ' '} {version:10} {name}  promoted {when}")
    if beside.challenger:
        what = f"shadow of {beside.share}%" if beside.mode == "shadow" else f"answers {beside.share}%"
        version = read_hallmark(of_task.directory / beside.challenger)[0].version
        typer.echo(f"+ {version:10} {beside.challenger}  {what} since {beside.since[:16].replace('T', ' ')} UTC")
    if beside.pins:
        typer.echo(f"subjects that are pinned to a version: {len(beside.pins)}")


@app.command()
def adapters(
    task: Annotated[str, typer.Argument(help="default: that of the champion, or of the last bundle")] = "",
    every: Annotated[bool, typer.Option("--all", help="also those that serve")] = False,
    records: Records = DEFAULT_URL,
) -> None:
    """List the adapters that `make monitor` has stopped, because the base model does as well or better, and why."""
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import champion_or_last
    from hallmark.records.database import open_database
    from hallmark.watch.adapters import read_ledgers

    name = read_hallmark(champion_or_last(task))[0].task
    known = read_ledgers(open_database(records, must_exist=True), name)
    shown = [account for account in known if every or account["state"] == "stopped"]
    for account in shown:
        ledger = account["ledger"]
        beyond = f"{ledger.excess / ledger.base:+.2%}" if ledger.base else "0"
        told = (
            f"{account['state']:8} {account['hallmark_sha256'][:12]} {ledger.days:4} days, {beyond} of the base's loss"
        )
        typer.echo(f"{account['owner_id']:20} {told}  {account['reason']}".rstrip())
    typer.echo(f"{len(known)} adapters are judged, {sum(a['state'] == 'stopped' for a in known)} are stopped")


@app.command()
def retrain(
    subjects: Annotated[list[str] | None, typer.Argument(help="whose adapters shall be fitted again")] = None,
    why: Annotated[bool, typer.Option("--why", help="say what the next run would do, and why; change nothing")] = False,
    every: Annotated[bool, typer.Option("--all", help="with --why: also those that are not fitted again")] = False,
    task: Annotated[str, typer.Option(help="default: that of the champion")] = "",
    rule: Annotated[Path, typer.Option(help="what makes a fit due")] = Path("conf/retrain/standard.yaml"),
    records: Records = DEFAULT_URL,
) -> None:
    """Ask for subjects' adapters to be fitted again by the next `make retrain`, or say why it would fit whom."""
    from datetime import UTC, datetime

    from hallmark.prove.serving import champion_or_last
    from hallmark.records.database import open_database
    from hallmark.retrain.decide import decide_now, read_rule, request
    from hallmark.retrain.start import open_champion

    champion, now = open_champion(champion_or_last(task)), datetime.now(UTC)
    database = open_database(records, must_exist=True)
    if not why:
        if not subjects:
            raise HallmarkError("name subjects, or ask --why; `make retrain` fits again what is due")
        request(database, champion, subjects, "command", now)
        typer.echo(f"{len(subjects)} asked for: `make retrain` fits them again, if they have new observations")
        return
    decided = decide_now(database, champion, read_rule(rule), now)
    if unknown := sorted(set(subjects or ()) - {d.subject_id for d in decided.decisions}):
        raise HallmarkError(f"no adapter and no recorded answer is that of {unknown[0]!r}: check the id")
    shown = [d for d in decided.decisions if d.subject_id in (subjects or ()) or (not subjects and (every or d.refit))]
    for decision in shown:
        typer.echo(f"{decision.subject_id:20} {'fit' if decision.refit else 'skip':4} {decision.why}: {decision.text}")
    typer.echo(f"{len(decided.decisions)} adapters, {len(decided.chosen)} would be fitted again")
    typer.echo(f"base model: {'due' if decided.base.due else 'not due'}: {decided.base.text}")


@app.command()
def observed(
    out: Annotated[Path, typer.Argument(help="Parquet file that gets the rows")],
    days: Days = 366,
    bundle: Watched = None,
    records: Records = DEFAULT_URL,
) -> None:
    """Write the rows that recorded answers hold, to train a base model on: the file is personal data."""
    from hallmark.watch.observed import SUBJECT, write_rows

    rows = _observed(_watched_task(bundle), days, records)
    if rows.empty:
        raise HallmarkError(f"no answer of the last {days} days names a subject and has kept its request")
    write_rows(rows, out)
    typer.echo(f"{out}: {len(rows):,} rows of {rows[SUBJECT].nunique()} subjects; train with")
    typer.echo(f'  make repro S="data=table data.path={out}"')


@app.command()
def insights(
    subject: Annotated[str, typer.Argument(help="whose readings")],
    days: Days = 60,
    bundle: Watched = None,
    records: Records = DEFAULT_URL,
) -> None:
    """Say what a subject's recorded readings show: unusual stretches and patterns; no diagnosis and no advice."""
    from hallmark.watch.observed import Insightful

    task = _watched_task(bundle)
    if not isinstance(task, Insightful):
        raise HallmarkError(f"answers of {task.name} hold no series that could show something")
    rows = _observed(task, days, records, subject)
    for found in task.insights(rows) if len(rows) else ():
        typer.echo(f"{found.kind:8} {found.text}")
    typer.echo(f"{len(rows):,} readings were looked at; by statistics alone: no diagnosis and no advice")


def _watched_task(bundle: Path | None) -> Any:
    """Return the task of a bundle; of the champion where none is named."""
    from hallmark.build import build
    from hallmark.prove.bundle import read_hallmark
    from hallmark.prove.serving import champion_or_last

    return build(read_hallmark(bundle or champion_or_last())[0].spec["task"], "task")


def _observed(task: Any, days: int, records: str, owner: str | None = None) -> "pd.DataFrame":
    """Return the rows that the recorded answers of some days hold, of one subject or of all."""
    from datetime import UTC, datetime, timedelta

    from hallmark.records.database import open_database
    from hallmark.watch.observed import observed_rows

    first = datetime.now(UTC) - timedelta(days=days)
    known = () if owner is None else {owner}
    return observed_rows(open_database(records, must_exist=True), task, first, {}, known, owner)


def _task_of(task: str, served: Path) -> str:
    """Return the task that is meant, one of those that serve."""
    from hallmark.prove.serving import serving_tasks

    tasks = serving_tasks(served)
    if task in tasks or (not task and len(tasks) == 1):
        return task or tasks[0]
    known = f"those that serve from {served} are {', '.join(tasks)}" if tasks else f"none serves from {served}"
    raise HallmarkError(f"{f'{task!r} is no task that serves' if task else 'name a task'}: {known}")


def _tell(switch: "Switch", action: Literal["promoted", "rolled_back"], why: str, records: str) -> None:
    """Tell of a change of what serves; exit status 3 says that it happened without an entry in the audit log."""
    from hallmark.switching import note

    try:
        typer.echo(note(switch, action, why, records))
    except RecordsError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(3) from None


@audit.command("verify")
def verify_audit(
    records: Records = DEFAULT_URL,
    anchor: Annotated[
        Path | None, typer.Option(envvar="HALLMARK_RECORDS__ANCHOR", help="heads of the chain that were kept elsewhere")
    ] = None,
) -> None:
    """Check that no entry of the audit log was changed or taken away; compare it with its anchored heads."""
    from hallmark.records import audit as log
    from hallmark.records.database import open_database

    if anchor is not None and not anchor.is_file():
        raise RecordsError(f"{anchor} is missing: name the file with the heads, or leave --anchor out")
    database, heads = open_database(records, must_exist=True), log.read_anchor(anchor or log.configured_anchor())
    if (broken := log.check(database, heads)) is not None:
        raise RecordsError(f"entry {broken} of the audit log was changed, or one before it was taken away")
    typer.echo(f"{log.count(database)} entries are whole, {len(heads)} of them anchored outside the database")


@audit.command("show")
def show_audit(records: Records = DEFAULT_URL, last: Annotated[int, typer.Option(help="how many")] = 20) -> None:
    """Show the newest entries: when, who, what, and why."""
    from hallmark.records import audit as log
    from hallmark.records.database import open_database

    for entry in log.entries(open_database(records, must_exist=True), last):
        what = entry["detail"] or entry["object"]
        typer.echo(f"{entry['at']:%Y-%m-%d %H:%M} {entry['actor']:10} {entry['action']:16} {what}")


STORES_HELP = "a further directory that is searched, such as a DVC remote; may be repeated"


@app.command()
def erase(
    subject_id: Annotated[str, typer.Argument(help="whose data, adapter and answers are deleted")],
    why: Why = "",
    key: Annotated[Path | None, typer.Option(help="private key that signs new bundles and the certificate")] = None,
    purge: Annotated[
        bool, typer.Option(help="delete derived files that hold the subject, also in DVC's cache")
    ] = False,
    store: Annotated[list[Path] | None, typer.Option(help=STORES_HELP)] = None,
    replays: Annotated[int, typer.Option(help="answers of others that are computed again afterwards")] = 100,
    out: Annotated[Path, typer.Option(help="directory of certificates")] = Path("erasures"),
    served: Served = SERVED,
    records: Records = DEFAULT_URL,
) -> None:
    """Delete everything about a subject, and certify it; exit status 3: something here still holds its id."""
    from hallmark.forget.certificate import write_certificate
    from hallmark.forget.erase import erase as erase_subject
    from hallmark.forget.stores import here
    from hallmark.records.audit import configured_anchor
    from hallmark.records.database import open_database

    database, stores = open_database(records, must_exist=True), here(served, store or ())
    erased = erase_subject(database, stores, subject_id, why, key, purge, replays, configured_anchor())
    certified = write_certificate(erased, subject_id, out, key)
    typer.echo(f"deleted   {sum(erased.deleted.rows.values())} rows, {erased.spooled} spooled, {erased.jobs} jobs")
    for place, made in erased.versions.items():
        typer.echo(f"replaced  {place}: {made.before[1][:12]} by {made.task} {made.after[0]} ({made.after[1][:12]})")
    count, equal = erased.replayed
    told = f"{equal} of {count} answers to others are equal byte for byte"
    typer.echo(f"replayed  {told if count else 'nothing: no answer to others has kept its request'}")
    typer.echo(f"searched  {sum(s.files for s in erased.searched):,} files, {erased.hits} hits")
    for sentence in erased.left:
        typer.echo(f"left      {sentence}")
    typer.echo(f"written   {certified.directory}; salt {certified.salt}, shown only now: give it to the subject")
    if erased.hits or equal < count:
        raise typer.Exit(3)


@app.command()
def certificate(
    directory: Annotated[Path, typer.Argument(help="of a certificate, such as erasures/20261127T120000-1a2b3c4d")],
    subject: Annotated[str, typer.Option(help="id that it must be about; needs --salt")] = "",
    salt: Annotated[str, typer.Option(help="which `hallmark erase` has told")] = "",
    key: Key = None,
    bundle: Annotated[list[Path] | None, typer.Option(help="a bundle that it names; may be repeated")] = None,
) -> None:
    """Check the certificate of an erasure: its signature, the bundles at hand, and whom it is about."""
    from hallmark.forget.certificate import check_certificate

    about = (subject, salt) if subject else None
    bundles = bundle or [BUNDLE, *Path("bundles").glob("*"), *(p for p in SERVED.glob("*/*/") if not p.is_symlink())]
    for sentence in check_certificate(directory, bundles, key, about):
        typer.echo(sentence)
