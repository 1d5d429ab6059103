"""Files of services and pipelines that hold a subject: lines of spools, jobs, derived files."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from hallmark.errors import RecordsError
from hallmark.files import read_json, sha256, write_json, write_text
from hallmark.forget.search import Canary, Searched, search

DRAINING_S = 15.0  # a living service empties its spool within a second, if its database answers
ENDED = ("done", "cancelled", "failed")
WAS = ".was.json"  # beside the table of splits: what it was before subjects were taken out


def forget_spool(spool: Path, subject_id: str) -> int:
    """Rewrite what dead processes have left, and wait until living ones have emptied theirs; returns lines deleted.

    Raises:
        RecordsError: a living process keeps rows of the subject: its database does not answer.
    """
    canary, deleted, deadline = Canary(subject_id), 0, time.monotonic() + DRAINING_S
    while True:
        waiting = [file for file in spool.glob("*/*.jsonl") if _holds(file, canary)]
        for file in waiting:
            deleted += _rewrite(file, subject_id)
        if not any(_holds(file, canary) for file in waiting):
            return deleted
        if time.monotonic() > deadline:
            raise RecordsError(
                f"{spool} keeps rows of the subject for a service whose database does not answer: run this again later"
            )
        time.sleep(0.2)


def forget_jobs(directory: Path, subject_id: str) -> tuple[int, list[str]]:
    """Delete jobs whose requests or answers hold the subject, with those of others in them.

    Returns:
        How many, and the names of those that are not over yet, which stay.
    """
    canary, deleted, running = Canary(subject_id), 0, []
    for job in sorted(directory.glob("*/job.json")):
        if not any(_holds(file, canary) for file in job.parent.iterdir() if file.is_file()):
            continue
        if read_json(job).get("status") in ENDED:
            shutil.rmtree(job.parent)
            deleted += 1
        else:
            running.append(job.parent.name)
    return deleted, running


def search_stores(stores: Iterable[Path], subject_id: str) -> list[Searched]:
    """Search stores; in a cache of DVC, whatever belongs to a directory that names the subject is a hit as well."""
    return [replace(store, hits=tuple(sorted({*store.hits, *_payload(store)}))) for store in search(stores, subject_id)]


def purge(derived: Iterable[Path], subject_id: str, splits: Path) -> int:
    """Delete derived files that hold the subject; returns how many.

    From the table of splits the subject's row alone is taken, so that other erasures can still be attested.
    """
    count = 0
    for store in search_stores(derived, subject_id):
        for name in store.hits:
            file = store.path / name if store.path.is_dir() else store.path
            if file == splits:
                _rewrite_splits(file, subject_id)
            else:
                file.unlink(missing_ok=True)
            count += 1
    return count


def fitted_on(splits: Path, subject_id: str, wanted: str) -> str:
    """Tell whether the base model of a split was fitted on rows of a subject: `yes`, `no` or `unknown`.

    Args:
        splits: the table that is here.
        subject_id: whose.
        wanted: sha256 of the table that the model was made from.
    """
    if not splits.is_file():
        return "unknown"
    if _original(splits) != wanted:
        return "unknown"
    table = pd.read_parquet(splits)
    mine = table[table["subject_id"] == subject_id]
    return "no" if mine.empty or (mine["group"] == "held_out").all() else "yes"


def _rewrite_splits(splits: Path, subject_id: str) -> None:
    was, table = _original(splits), pd.read_parquet(splits)
    table[table["subject_id"] != subject_id].to_parquet(splits, index=False)
    write_json(splits.with_name(splits.name + WAS), {"sha256": sha256(splits), "was": was})


def _original(splits: Path) -> str:
    """Return the sha256 of the table of splits before subjects were taken out of it."""
    digest, sidecar = sha256(splits), splits.with_name(splits.name + WAS)
    known = read_json(sidecar) if sidecar.is_file() else {"sha256": ""}
    return str(known["was"]) if known["sha256"] == digest else digest


def _payload(store: Searched) -> list[str]:
    """Return the objects of every output in a cache of DVC whose list of files names the subject."""
    found = []
    for name in store.hits:
        if not name.endswith(".dir"):
            continue
        root = Path(name).parents[1]  # files/md5
        for entry in json.loads((store.path / name).read_text(encoding="utf-8")):
            file = root / entry["md5"][:2] / entry["md5"][2:]
            if (store.path / file).is_file():
                found.append(str(file))
    return found


def _holds(file: Path, canary: Canary) -> bool:
    try:
        return canary.in_file(file)
    except FileNotFoundError:
        return False


def _rewrite(segment: Path, subject_id: str) -> int:
    """Write a segment again without the rows of a subject, unless its process lives."""
    handle = os.open(segment.parent / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lines = segment.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)[1].get("owner_id") != subject_id]
        write_text(segment, "".join(kept))
        return len(lines) - len(kept)
    except BlockingIOError:
        return 0
    finally:
        os.close(handle)
