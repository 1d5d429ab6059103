"""Files of requests and answers, CSV, Parquet or NDJSON: read some rows at a time, written completely or not at all."""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from hallmark.errors import RequestError
from hallmark.formats import FORMATS

LONGEST_LINE = 4_000_000  # bytes of a line of NDJSON, characters of a cell of a CSV
_NO_JSON, _NO_OBJECT = "\0no JSON", "\0no object"
_UNREADABLE = {_NO_JSON: "The line is not JSON.", _NO_OBJECT: "The line is JSON, but no object of fields."}


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


def why_unreadable(row: Mapping[str, Any]) -> str:
    """Say why a row of `read_rows` holds nothing that could be a request; empty if it can be read."""
    return next((problem for mark, problem in _UNREADABLE.items() if mark in row), "")


def read_rows(source: Path, count: int, as_lines: bool = False) -> Iterator[list[Any]]:
    """Yield the rows of a file, `count` at a time; a cell without a value is left out.

    Args:
        source: the file.
        count: rows that are held at once.
        as_lines: rows of NDJSON are the bytes of their lines; blank lines are no rows and are not counted.

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
    yield from map(as_row, _lines(source))


def _lines(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise ValueError(f"a line is over {LONGEST_LINE} bytes")
            if line.strip():
                yield line


def as_row(line: bytes) -> dict[str, Any]:
    """Read a line of NDJSON; one that is no JSON object becomes a mark that `why_unreadable` knows."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {_NO_JSON: True}
    return value if isinstance(value, dict) else {_NO_OBJECT: True}


@contextmanager
def writing(target: Path, columns: Sequence[str]) -> Iterator[Writer]:
    """Open a file that appears when the block ends without an error."""
    make: dict[str, Any] = {"parquet": _ParquetWriter, "csv": _CsvWriter, "ndjson": _NdjsonWriter}
    kind = format_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise RequestError(f"{target} cannot be written ({error.strerror}): name another file") from None
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
