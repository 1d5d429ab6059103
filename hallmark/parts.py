"""A file that is made part by part: what a killed run has finished is not done again, and none of it is a result."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from hallmark.errors import HallmarkError, RequestError
from hallmark.files import read_json, write_json
from hallmark.formats import FORMATS

MADE_FROM = "made_from.json"
BLOCK = 2**20


class Parts(AbstractContextManager["Parts"]):
    """The finished parts of a file, in a directory beside it, until all are there and become the file.

    A context: within it, no other process makes the same file.

    Args:
        target: the file; its suffix names the format, in which every part is a file of its own.
        made_from: all that its content depends on, JSON values; parts that were made from something else are removed.

    Attributes:
        directory: of the parts; it is gone when the file is there.

    Raises:
        RequestError: the directory cannot be written, or another process makes this file.
    """

    def __init__(self, target: Path, made_from: Mapping[str, Any]) -> None:
        self.target = target
        self.directory = target.with_name(f".{target.name}.parts")
        if target.is_dir():
            raise RequestError(f"{target} is a directory: name a file")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not self._is_of(made_from):
                    self._empty()
                    write_json(self.directory / MADE_FROM, dict(made_from))
            except BlockingIOError:
                raise RequestError(f"another process makes {target}: wait for it, or name another file") from None
            finally:
                if sys.exc_info()[0] is not None:
                    os.close(self._lock)
        except OSError as error:
            raise RequestError(f"{target} cannot be written ({error.strerror}): name another file") from None

    def __exit__(self, *_: object) -> None:
        """Let other processes make the file."""
        os.close(self._lock)

    def _is_of(self, made_from: Mapping[str, Any]) -> bool:
        with suppress(OSError, ValueError):
            return bool(read_json(self.directory / MADE_FROM) == dict(made_from))
        return False

    def counts(self, number: int) -> Mapping[str, int] | None:
        """Return what was counted in a part; None if it is not finished, or its content is not whole."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = read_json(self._path(number).with_suffix(".json"))
            if self._path(number).stat().st_size == kept["bytes"]:
                counted: Mapping[str, int] = dict(kept["counts"])
                return counted
        return None

    def keep(self, number: int, content: bytes, counts: Mapping[str, int]) -> None:
        """Keep a part: from now on it is finished.

        Raises:
            HallmarkError: it cannot be written; earlier parts stay.
        """
        with self._writing():
            with self._path(number).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            kept = {"bytes": len(content), "counts": dict(counts)}
            write_json(self._path(number).with_suffix(".json"), kept)  # last: until then it is not finished

    def join(self, count: int) -> None:
        """Make the file of the first so many parts; an earlier file is replaced at once, and the parts are removed.

        Raises:
            HallmarkError: it cannot be written; the parts and an earlier file stay.
        """
        with self._writing():
            handle, name = tempfile.mkstemp(dir=self.target.parent, prefix=f".{self.target.name}.")
            os.close(handle)
            try:
                suffix = self.target.suffix.lower()
                joined = _parquet if FORMATS[suffix] == "parquet" else _text
                joined((self._path(number) for number in range(count)), Path(name), suffix == ".csv")
                os.chmod(name, 0o644)
                os.replace(name, self.target)
            finally:
                Path(name).unlink(missing_ok=True)
        self.remove()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HallmarkError(
                f"{self.target} cannot be written ({error.strerror}): finished parts are kept in {self.directory}; "
                "make room, and run again"
            ) from error

    def remove(self) -> None:
        """Remove all parts; what else lies in their directory stays."""
        with suppress(OSError):
            self._empty()
            self.directory.rmdir()

    def _empty(self) -> None:
        """Remove parts, and first what says that they are any."""
        (self.directory / MADE_FROM).unlink(missing_ok=True)
        for path in self.directory.glob("part-*"):
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.directory / f"part-{number:06d}{self.target.suffix}"


def _text(parts: Iterator[Path], out: Path, headed: bool) -> None:
    """Join texts; of tables with a header, the first one's is kept."""
    with out.open("wb") as target:
        for number, path in enumerate(parts):
            with path.open("rb") as source:
                if headed and number:
                    source.readline()
                shutil.copyfileobj(source, target, BLOCK)


def _parquet(parts: Iterator[Path], out: Path, _: bool) -> None:
    """Join Parquet files row group by row group, as if one writer had written them."""
    import pyarrow.parquet as parquet

    writer = None
    try:
        for path in parts:
            with parquet.ParquetFile(path) as file:
                writer = writer or parquet.ParquetWriter(out, file.schema_arrow)
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
    finally:
        if writer is not None:
            writer.close()
