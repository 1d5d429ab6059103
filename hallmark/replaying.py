"""`hallmark replay`: find recorded answers and their bundles, compute the answers again, and compare."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hallmark.errors import RecordsError, ReplayError
from hallmark.files import sha256
from hallmark.model import Model
from hallmark.prove.bundle import MANIFEST
from hallmark.prove.replay import Replayed, replay


def replay_answers(url: str, key: str | None, count: int, directories: Iterable[Path]) -> Iterator[Replayed]:
    """Compute recorded answers again.

    Args:
        url: of the database.
        key: id of a prediction; None takes the newest ones.
        count: how many, if no id is given.
        directories: where the bundles of the answers may lie.

    Yields:
        One result per answer.

    Raises:
        RecordsError: the database cannot be read, or has no such prediction.
        ReplayError: the request was not kept, or the bundle is not here.
    """
    from hallmark.records import reader
    from hallmark.records.database import open_database

    database = open_database(url)
    bundles = {sha256(d / MANIFEST): d for d in directories if (d / MANIFEST).is_file()}
    if key is None:
        rows = reader.sample(database, count, list(bundles))
        if not rows:
            raise RecordsError("no recorded answer of a bundle that is here has kept its request")
    else:
        row = reader.prediction(database, reader.EVERYTHING, key)
        if row is None:
            raise RecordsError(f"the records have no prediction {key}")
        rows = [row]
    machines = {d: reader.machine(database, d) or "" for d in {row["machine_sha256"] for row in rows}}
    by_bundle = sorted(rows, key=lambda row: str(row["hallmark_sha256"]))
    for digest, of_bundle in groupby(by_bundle, lambda row: str(row["hallmark_sha256"])):
        yield from _of_bundle(digest, list(of_bundle), bundles, machines)


def _of_bundle(
    digest: str, rows: Sequence[Mapping[str, Any]], bundles: Mapping[str, Path], machines: Mapping[str, str]
) -> list[Replayed]:
    if digest not in bundles:
        first = rows[0]
        raise ReplayError(
            f"the bundle of prediction {first['id']} ({first['task']} {first['model_version']}, "
            f"hallmark {digest[:12]}…) is not here: name its directory with --bundle"
        )
    model = Model(bundles[digest])
    weights = str(model.hallmark.digests["weights"])
    described = {key: text for key, text in machines.items() if text}
    return replay(rows, model.predictor, model.task.request_type(), weights, described)
