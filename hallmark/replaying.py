"""`hallmark replay` and `provenance`: find recorded answers and their bundles, compute the answers again, compare."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallmark.errors import RecordsError, ReplayError
from hallmark.files import sha256
from hallmark.model import Model
from hallmark.prove.bundle import MANIFEST, read_hallmark
from hallmark.prove.influence import Influence, Trace, influences, trace
from hallmark.prove.replay import Replayed, replay
from hallmark.stages.forget import made_from

if TYPE_CHECKING:
    from hallmark.records.database import Database


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
    bundles = _by_digest(directories)
    if key is None:
        rows = reader.sample(database, count, list(bundles))
        if not rows:
            raise RecordsError("no recorded answer of a bundle that is here has kept its request")
    else:
        rows = [_find(database, key)]
    machines = {d: reader.machine(database, d) or "" for d in {row["machine_sha256"] for row in rows}}
    by_bundle = sorted(rows, key=lambda row: str(row["hallmark_sha256"]))
    for _, of_bundle in groupby(by_bundle, lambda row: str(row["hallmark_sha256"])):
        yield from _of_bundle(list(of_bundle), bundles, machines)


def _of_bundle(
    rows: Sequence[Mapping[str, Any]], bundles: Mapping[str, Path], machines: Mapping[str, str]
) -> list[Replayed]:
    model = _model(rows[0], bundles)
    weights = str(model.hallmark.digests["weights"])
    described = {key: text for key, text in machines.items() if text}
    return replay(rows, model.predictor, model.task.request_type(), weights, described)


def trace_answer(url: str, key: str, directories: Iterable[Path]) -> tuple[Trace, list[Influence]]:
    """Name the observations that a recorded answer rests on, the most influential first.

    Args:
        url: of the database.
        key: id of the prediction.
        directories: where the bundle of the answer may lie.

    Raises:
        RecordsError: the database cannot be read, or has no such prediction.
        ReplayError: the request was not kept, or the bundle is not here.
    """
    from hallmark.records.database import open_database

    row = _find(open_database(url), key)
    if row["request"] is None:
        raise ReplayError(f"prediction {key} has no request: it was not kept, or its retention has passed")
    model = _model(row, _by_digest(directories))
    request = model.task.request_type().model_validate_json(row["request"])
    response = model.task.response_type().model_validate_json(row["response"])
    traced = trace(model.predictor, request, response)
    whole, *answers = model.predictor.predict([request, *[rest for _, rest in traced.left_out]])
    if whole.model_dump_json() != row["response"]:
        raise ReplayError(f"prediction {key} cannot be computed again here: `hallmark replay {key}` says what differs")
    return traced, influences(model.predictor, response, traced, answers)


def _by_digest(directories: Iterable[Path]) -> dict[str, Path]:
    """Return digest → bundle; also digests of bundles whose place it took when a subject was taken out of them."""
    found: dict[str, Path] = {}
    for directory in directories:
        if (directory / MANIFEST).is_file():
            found[sha256(directory / MANIFEST)] = directory
            for digest, _ in made_from(read_hallmark(directory)[0]):
                found.setdefault(digest, directory)
    return found


def _find(database: "Database", key: str) -> Mapping[str, Any]:
    from hallmark.records import reader

    row = reader.prediction(database, reader.EVERYTHING, key)
    if row is None:
        raise RecordsError(f"the records have no prediction {key}")
    return row


def _model(row: Mapping[str, Any], bundles: Mapping[str, Path]) -> Model:
    digest = str(row["hallmark_sha256"])
    if digest not in bundles:
        raise ReplayError(
            f"the bundle of prediction {row['id']} ({row['task']} {row['model_version']}, "
            f"hallmark {digest[:12]}…) is not here: name its directory with --bundle"
        )
    return Model(bundles[digest], named=(str(row["model_version"]), digest))
