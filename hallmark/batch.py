"""Answer a file of requests, CSV, Parquet or NDJSON, in constant memory; `hallmark predict-batch` and jobs."""

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hallmark.contracts import Progress, no_progress
from hallmark.errors import BundleError, HallmarkError, RequestError
from hallmark.files import digest_text, sha256
from hallmark.learn.cluster import on_ray, stream
from hallmark.model import Model, explain, plain
from hallmark.parts import Parts
from hallmark.tables import Row, as_row, count_rows, format_of, read_rows, why_unreadable, writing

ROWS = 256  # requests that are answered together
NOBODY: Mapping[str, str] = MappingProxyType({})
PART = 8 * ROWS  # rows that are kept together; no more of them are lost when a run is killed


def predict_file(
    model: Model,
    source: Path,
    target: Path,
    progress: Progress = no_progress,
    stopped: Mapping[str, str] = NOBODY,
) -> dict[str, int]:
    """Answer every row of a file.

    Finished parts are kept beside the target until it is complete: a run that was killed goes on after the last. Where
    `HALLMARK_ENGINE=ray`, the workers of a Ray cluster answer the parts; the result has the same bytes.

    Args:
        model: an opened bundle; workers elsewhere open the same directory.
        source: a row per request, a column per field; lists as JSON in a CSV, as lists in Parquet.
        target: gets a row per request, in order: `row`, `problem` and the fields of the response. It is written
            completely or not at all.
        progress: called with the rows that are done.
        stopped: subjects whose adapters may not serve, each with the reason: the base model answers them.

    Returns:
        Number of rows by status; rows that are no request count as `problem`.

    Raises:
        RequestError: the file cannot be read, has another format, or is the target.
        HallmarkError: workers were lost.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise RequestError(f"{target} is the file of the requests: name another one for the answers")
    suffix = f".{format_of(target)}"
    format_of(source)
    if source.exists() and not source.is_file():
        raise RequestError(f"{source} is no regular file: it is read twice, so write it to a disk first")
    try:
        made_from = {"bundle": model.digest, "requests": sha256(source), "rows": PART, "stopped": _digest(stopped)}
    except OSError as error:
        raise RequestError(f"{source} cannot be read ({error.strerror})") from None
    with Parts(target, made_from) as parts:
        try:
            return _predict_parts(model, source, suffix, parts, progress, stopped)
        except RequestError as error:
            if not isinstance(error.__context__, (OSError, MemoryError)):
                parts.remove()  # the file of the requests is broken: there is nothing to go on with
            raise


def _digest(stopped: Mapping[str, str]) -> str:
    """Return a digest of who is stopped: ids of others do not lie beside somebody's answers."""
    return digest_text(json.dumps(sorted(stopped.items()))) if stopped else ""


def _predict_parts(
    model: Model, source: Path, suffix: str, parts: Parts, progress: Progress, stopped: Mapping[str, str]
) -> dict[str, int]:
    """Answer what is not answered yet, and join all parts."""
    counts, done, number, total, waiting = dict[str, int](), 0, 0, count_rows(source), deque[int]()

    def unfinished() -> Iterator[tuple[int, list[Any]]]:
        nonlocal number
        for number, rows in enumerate(read_rows(source, PART, as_lines=True), 1):
            if (known := parts.counts(number - 1)) is None:
                waiting.append(number - 1)
                yield (number - 1) * PART, rows
            else:
                add(known)

    def add(found: Mapping[str, int]) -> None:
        nonlocal done
        for status, count in found.items():
            counts[status] = counts.get(status, 0) + count
        done += sum(found.values())
        progress("predict", done, max(total, done), "")

    if on_ray():
        results = stream(partial(_open_scorer, model.directory.resolve(), model.digest, suffix, stopped), unfinished())
    else:
        results = map(partial(_score, model, suffix, stopped=stopped), unfinished())
    for content, found in results:
        parts.keep(waiting.popleft(), content, found)
        add(found)
    if not number:
        parts.keep(0, *_score(model, suffix, (0, [])))
    parts.join(max(number, 1))
    return counts


def _open_scorer(
    directory: Path, digest: str, suffix: str, stopped: Mapping[str, str]
) -> Callable[[tuple[int, list[Any]]], Any]:
    """Open the bundle in a worker elsewhere."""
    model = Model(directory)
    if model.digest != digest:
        raise BundleError(f"{directory} holds another bundle on a worker ({model.digest[:12]}…) than here")
    return partial(_score, model, suffix, stopped=stopped)


def _score(
    model: Model, suffix: str, part: tuple[int, list[Any]], stopped: Mapping[str, str] = NOBODY
) -> tuple[bytes, dict[str, int]]:
    """Answer rows, of which the first has a number; returns their file's content, and how many have which status."""
    first, rows = part
    kind, counts = model.task.request_type(), dict[str, int]()
    columns = ["row", "problem", *model.task.response_type().model_fields]
    with _scratch() as scratch:
        file = Path(scratch) / f"part{suffix}"
        with writing(file, columns) as writer:
            for begin in range(0, len(rows), ROWS):
                parsed = [parse(kind, row) for row in rows[begin : begin + ROWS]]
                answers = iter(_answers_held_back(model, [p for p in parsed if isinstance(p, BaseModel)], stopped))
                out = []
                for place, found in enumerate(parsed, first + begin):
                    answer = found if isinstance(found, str) else next(answers)
                    out.append(Row(place, answer, None) if isinstance(answer, str) else Row(place, "", answer))
                    counts[out[-1].status] = counts.get(out[-1].status, 0) + 1
                writer.write(out)
        return file.read_bytes(), counts


@contextmanager
def _scratch() -> Iterator[str]:
    """Make a directory for a part that is being written."""
    try:
        with tempfile.TemporaryDirectory(prefix="hallmark-part-") as scratch:
            yield scratch
    except OSError as error:
        where = tempfile.gettempdir()
        raise HallmarkError(f"{where} cannot be written ({error.strerror}): make room, or set TMPDIR") from error


def _answers_held_back(
    model: Model, requests: list[BaseModel], stopped: Mapping[str, str]
) -> Iterator[BaseModel | str]:
    """Answer requests, those of subjects whose adapter is stopped by the base model; their answers say so."""
    if not stopped:
        yield from _answers(model, requests)
        return
    from hallmark.watch.pairs import SUBJECT, asked_by

    reasons = [stopped.get(getattr(request, SUBJECT, None) or "") for request in requests]
    asked = [r if why is None else asked_by(r, None) for r, why in zip(requests, reasons, strict=True)]
    for answer, why in zip(_answers(model, asked), reasons, strict=True):
        if why is not None and isinstance(answer, BaseModel) and "fallback" in type(answer).model_fields:
            answer = answer.model_copy(update={"fallback": f"the subject's own model is stopped: {why}"})
        yield answer


def _answers(model: Model, requests: list[BaseModel]) -> list[BaseModel | str]:
    """Answer requests; where the model fails, each alone, and say of those that make it fail that they do."""
    try:
        return list(model.predictor.predict(requests))
    except (HallmarkError, MemoryError):
        raise
    except Exception as error:
        if len(requests) == 1:
            return [f"The model failed on this row ({type(error).__name__})."]
    return [answer for request in requests for answer in _answers(model, [request])]


def parse(kind: type[BaseModel], row: Mapping[str, Any] | bytes) -> BaseModel | str:
    """Make a request of a row or of a line of NDJSON, or say in one line why it is none."""
    if isinstance(row, bytes):
        try:
            return kind.model_validate_json(row)
        except ValidationError:
            row = as_row(row)  # its lists may be written as JSON in texts, as in a CSV
            if unreadable := why_unreadable(row):
                return unreadable
    try:
        return kind.model_validate_json(json.dumps(fields_of(kind, row), default=plain))
    except ValidationError as error:
        return explain(error)
    except TypeError as error:
        return str(error)


def fields_of(kind: type[BaseModel], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request from the cells of a row, in which a list may be written as JSON."""
    return {name: _nested(kind, name, value) for name, value in row.items()}


def _nested(kind: type[BaseModel], name: str, value: Any) -> Any:
    """Read a list or an object that is written as JSON, unless the field is a text."""
    field = kind.model_fields.get(name)
    if isinstance(value, str) and value[:1] in ("[", "{") and field is not None:
        if str in (field.annotation, *get_args(field.annotation)):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
