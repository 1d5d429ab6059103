"""Search files for a subject's id: in their names, their bytes, and inside Parquet tables and archives.

What is compressed is searched after it was decompressed. The id must stand alone: `ada-1` is not found in `ada-12`. An
id of fewer than five characters can occur in numbers by chance; then a hit in a binary file proves nothing.
"""

import gzip
import io
import json
import mmap
import re
import sqlite3
import zipfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hallmark.files import directory_of

NEIGHBOURS = rb"[0-9A-Za-z_\-]"
"""What may not stand beside an id, for it would belong to a longer one."""
SHORTEST = 5
"""Characters of an id that does not occur in binary files by chance."""
SQLITE = b"SQLite format 3\0"
UNREADABLE = (OSError, sqlite3.Error, ValueError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Searched:
    """A store that was searched.

    Attributes:
        path: file or directory.
        files: number of files.
        bytes: their size.
        hits: files that hold the id, relative to `path`.
        unreadable: files that could not be searched, relative to `path`.
    """

    path: Path
    files: int
    bytes: int
    hits: tuple[str, ...]
    unreadable: tuple[str, ...] = ()


def search(stores: Iterable[Path], subject_id: str) -> list[Searched]:
    """Search all files of some directories; one that does not exist is left out.

    A symbolic link is not followed: what it leads to lies in a store of its own, or in none.
    """
    canary = Canary(subject_id)
    return [_search(store, canary) for store in stores if store.exists()]


def _search(store: Path, canary: "Canary") -> Searched:
    files = [store] if store.is_file() else sorted(p for p in store.rglob("*") if p.is_file() and not p.is_symlink())
    hits, unreadable, size = [], [], 0
    for file in files:
        name = str(file.relative_to(store))
        try:
            size += file.stat().st_size
            if canary.in_name(name) or canary.in_file(file):
                hits.append(name)
        except FileNotFoundError:
            continue  # a service has deleted it meanwhile
        except UNREADABLE:
            unreadable.append(name)
    return Searched(store, len(files), size, tuple(hits), tuple(unreadable))


class Canary:
    """An id in the forms in which it may be written."""

    def __init__(self, subject_id: str) -> None:
        self.subject_id = subject_id
        forms = {subject_id, quote(subject_id, safe=""), directory_of(subject_id), json.dumps(subject_id)[1:-1]}
        written = {form.encode() for form in forms} | {subject_id.encode("utf-16-le")}
        self.forms = sorted(written, key=len, reverse=True)
        any_form = b"|".join(re.escape(form) for form in self.forms)
        self.pattern = re.compile(rb"(?<!" + NEIGHBOURS + rb")(?:" + any_form + rb")(?!" + NEIGHBOURS + rb")")

    def in_name(self, name: str) -> bool:
        """Tell whether the path of a file names the subject."""
        return self.pattern.search(name.encode()) is not None

    def in_value(self, value: Any) -> bool:
        """Tell whether a text holds the id."""
        return isinstance(value, str) and self.in_name(value)

    def in_file(self, file: Path) -> bool:
        """Tell whether a file holds the id."""
        with file.open("rb") as opened:
            if file.stat().st_size == 0:
                return False
            if opened.read(16) == SQLITE:
                return self._in_database(file)
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return self._in_bytes(content)

    def _in_database(self, file: Path) -> bool:
        """Search the texts of a database of SQLite, in whose file neighbouring values touch each other."""
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
            for (table,) in tables:
                for _, column, *_ in connection.execute(f'pragma table_info("{table}")').fetchall():
                    query = f'select "{column}" from "{table}" where instr("{column}", ?) > 0'
                    if any(self.in_value(value) for (value,) in connection.execute(query, (self.subject_id,))):
                        return True
        return False

    def _in_bytes(self, content: Any) -> bool:
        if any(content.find(form) >= 0 for form in self.forms) and self.pattern.search(content):
            return True
        start = bytes(content[:16])
        if start[:4] == b"PAR1":
            return self._in_table(io.BytesIO(content[:]))
        if start[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(content[:])) as archive:
                return any(self.in_name(name) or self._in_bytes(archive.read(name)) for name in archive.namelist())
        if start[:2] == b"\x1f\x8b":
            return self._in_bytes(gzip.decompress(content[:]))
        return False

    def _in_table(self, content: io.BytesIO) -> bool:
        """Search the columns of texts, a row group at a time."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(content)
            names = [field.name for field in table.schema_arrow if _is_text(field.type)]
            for group in range(table.num_row_groups if names else 0):
                for column in table.read_row_group(group, columns=names).columns:
                    texts = column.cast(pa.large_string()).combine_chunks()
                    if any(self.in_value(value) for value in pc.unique(texts).to_pylist()):
                        return True
        except pa.ArrowException as error:
            raise ValueError("not a table of Parquet") from error
        return False


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
