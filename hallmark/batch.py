"""Answer a file of requests, CSV, Parquet or NDJSON, in constant memory; `hallmark predict-batch` and jobs."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

from pydantic import BaseModel, ValidationError

from hallmark.contracts import Progress, no_progress
from hallmark.errors import RequestError
from hallmark.formats import FORMATS
from hallmark.model import Model, explain, plain

ROWS = 256  # requests that are answered together
LONGEST_LINE = 4_000_000  # bytes of a line of NDJSON, characters of a cell of a CSV


class Row(NamedTuple):
    """One row of a result.

    Attributes:
        number: of the request in its file.
        problem: why it is no request, else empty.
        answer: the response; None where there is a problem.
    """

    number: int
    problem: str
    answer: BaseModel | None

    def cells(self) -> dict[str, Any]:
        """Return the row as JSON values by column."""
        answer = {} if self.answer is None else self.answer.model_dump(mode="json")
        return {"row": self.number, "problem": self.problem, **answer}

    @property
    def status(self) -> str:
        """What counts it."""
        return "problem" if self.problem else str(getattr(self.answer, "status", "answered"))


class Writer(Protocol):
    """Appends rows to a file."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows."""


def predict_file(model: Model, source: Path, target: Path, progress: Progress = no_progress) -> dict[str, int]:
    """Answer every row of a file.

    Args:
        model: an opened bundle.
        source: a row per request, a column per field; lists as JSON in a CSV, as lists in Parquet.
        target: gets a row per request, in order: `row`, `problem` and the fields of the response. It is written
            completely or not at all.
        progress: called with the rows that are done.

    Returns:
        Number of rows by status; rows that are no request count as `problem`.

    Raises:
        RequestError: the file cannot be read, has another format, or is the target.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise RequestError(f"{target} is the file of the requests: name another one for the answers")
    kind, counts, done = model.task.request_type(), dict[str, int](), 0
    total = count_rows(source)
    with writing(target, ["row", "problem", *model.task.response_type().model_fields]) as writer:
        for rows in read_rows(source, ROWS, as_lines=True):
            parsed = [parse(kind, row) for row in rows]
            answers = iter(model.predictor.predict([p for p in parsed if isinstance(p, BaseModel)]))
            out = [
                Row(number, p, None) if isinstance(p, str) else Row(number, "", next(answers))
                for number, p in enumerate(parsed, done)
            ]
            for row in out:
                counts[row.status] = counts.get(row.status, 0) + 1
            writer.write(out)
            done += len(out)
            progress("predict", done, max(total, done), "")
    return counts


def parse(kind: type[BaseModel], row: Mapping[str, Any] | bytes) -> BaseModel | str:
    """Make a request of a row or of a line of NDJSON, or say in one line why it is none."""
    if isinstance(row, bytes):
        try:
            return kind.model_validate_json(row)
        except ValidationError:
            row = _line(row)  # its lists may be written as JSON in texts, as in a CSV
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


def read_rows(source: Path, count: int, as_lines: bool = False) -> Iterator[list[Any]]:
    """Yield the rows of a file, `count` at a time; a cell without a value is left out.

    Args:
        source: the file.
        count: rows that are held at once.
        as_lines: rows of NDJSON are the bytes of their lines.

    Raises:
        RequestError: the file cannot be read, or has another format.
    """
    read = {"parquet": _read_parquet, "csv": _read_csv, "ndjson": _read_ndjson}[format_of(source)]
    rows = _lines(source) if as_lines and read is _read_ndjson else read(source, count)
    try:
        while chunk := list(islice(rows, count)):
            yield chunk
    except (OSError, ValueError, csv.Error, ArithmeticError, RecursionError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{source} cannot be read ({reason[:200]})") from None


def format_of(path: Path) -> str:
    """Return the format of a file by its suffix.

    Raises:
        RequestError: the suffix is of no known format.
    """
    if path.suffix.lower() not in FORMATS:
        raise RequestError(f"{path}: name a {', '.join(FORMATS)} file")
    return FORMATS[path.suffix.lower()]


def count_rows(source: Path) -> int:
    """Count the rows of a file where that is cheap; 0 where it is not."""
    if format_of(source) == "parquet" and source.is_file():
        import pyarrow.parquet as parquet

        try:
            return int(parquet.read_metadata(source).num_rows)
        except (OSError, ValueError):
            return 0
    return 0


def _read_parquet(source: Path, count: int) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(source) as file:
        for batch in file.iter_batches(batch_size=count):
            yield from ({k: v for k, v in row.items() if v is not None} for row in batch.to_pylist())


def _read_csv(source: Path, count: int) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LONGEST_LINE)
    with source.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {str(k): v for k, v in row.items() if v not in (None, "")}


def _read_ndjson(source: Path, count: int) -> Iterator[dict[str, Any]]:
    yield from map(_line, _lines(source))


def _lines(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise ValueError(f"a line is over {LONGEST_LINE} bytes")
            if line.strip():
                yield line


def _line(line: bytes) -> dict[str, Any]:
    """Read a line; one that is no JSON object becomes a row that no request type accepts."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {"no JSON": True}
    return value if isinstance(value, dict) else {"no object": True}


@contextmanager
def writing(target: Path, columns: Sequence[str]) -> Iterator[Writer]:
    """Open a file that appears when the block ends without an error."""
    make: dict[str, Any] = {"parquet": _ParquetWriter, "csv": _CsvWriter, "ndjson": _NdjsonWriter}
    kind = format_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        opened: AbstractContextManager[Writer] = make[kind](Path(name), columns)
        with opened as writer:
            yield writer
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class _ParquetWriter(AbstractContextManager["_ParquetWriter"]):
    """Columns are texts, but for `row`: nested values are JSON, as in a CSV."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        self.schema = pa.schema([(c, pa.int64() if c == "row" else pa.string()) for c in columns])
        self.file = parquet.ParquetWriter(path, self.schema)

    def write(self, rows: Sequence[Row]) -> None:
        import pyarrow as pa

        table = [row.cells() for row in rows]
        columns = {
            name: [cells.get(name) if name == "row" else _text(cells.get(name)) for cells in table]
            for name in self.schema.names
        }
        self.file.write_table(pa.table(columns, schema=self.schema))

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _CsvWriter(AbstractContextManager["_CsvWriter"]):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = columns
        self.file = path.open("w", encoding="utf-8", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(columns)

    def write(self, rows: Sequence[Row]) -> None:
        self.writer.writerows([_text(cells.get(name)) for name in self.columns] for cells in map(Row.cells, rows))

    def __exit__(self, *_: object) -> None:
        self.file.close()


class _NdjsonWriter(AbstractContextManager["_NdjsonWriter"]):
    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            head = json.dumps({"row": row.number, "problem": row.problem}, ensure_ascii=False)
            rest = "}" if row.answer is None else f", {row.answer.model_dump_json()[1:]}"
            self.file.write(f"{head[:-1]}{rest}\n")

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
