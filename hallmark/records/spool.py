"""Append-only files that hold records until the database has them: nothing is lost while it is away.

A process appends to segments of its own directory and deletes a segment after its rows are committed. A directory whose
process has died is adopted by the next process that starts. Rows carry their keys, so that inserting a segment twice
changes nothing.
"""

import fcntl
import json
import os
import secrets
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from hallmark.errors import RecordsError

Entry = tuple[str, dict[str, Any]]
"""Name of a table and a row for it."""

IN_MEMORY = 10_000  # rows that are kept in memory while the disk is full


class Spool:
    """The records of one process that are not in the database yet.

    Args:
        directory: shared by all processes of a service.

    Raises:
        RecordsError: the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self.own = directory / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = Lock()
        self._segment = 0
        self._active: int | None = None
        self._memory: deque[Entry] = deque()
        self._pending = 0
        try:
            fresh = self.own.with_name(f".{self.own.name}")  # nobody adopts it before it is locked
            fresh.mkdir(parents=True, mode=0o700)
            _, handle = _hold(fresh)
            fresh.rename(self.own)
            self._held = [(self.own, handle)]
        except OSError as error:
            raise RecordsError(
                f"{directory} cannot be written ({error.strerror}): set HALLMARK_RECORDS__SPOOL"
            ) from error

    @property
    def pending(self) -> int:
        """Rows that were appended by this process and are not in the database yet."""
        return self._pending

    def append(self, entries: list[Entry]) -> None:
        """Keep rows: on disk, or in memory while the disk is full.

        The rows survive a kill of this process once they are on disk.

        Raises:
            RecordsError: neither disk nor memory has room; no row was kept.
        """
        lines = b"".join(_line(entry) for entry in entries)
        with self._lock:
            try:
                self._write(lines)
            except OSError as error:
                if len(self._memory) + len(entries) > IN_MEMORY:
                    raise RecordsError(f"no room to keep records: {self.own} ({error.strerror})") from error
                self._memory.extend(entries)
            self._pending += len(entries)

    def close_segment(self) -> None:
        """End the active segment, so that `segments` yields it."""
        with self._lock:
            if self._active is not None:
                os.close(self._active)
                self._active = None

    def segments(self) -> list[Path]:
        """List ended segments, the oldest first, those of dead processes before those of this one."""
        self._adopt()
        with self._lock:  # a segment that is begun from here on is not ended, even if the listing finds it
            begun = self._name(self._segment + 1 if self._active is None else self._segment)
        held = [directory for directory, _ in self._held]
        listed = [s for directory in reversed(held) for s in sorted(directory.glob("*.jsonl"))]
        return [s for s in listed if s.parent != self.own or s.name < begun.name]

    def read(self, segment: Path) -> list[Entry]:
        """Read a segment; a last line that was cut off belongs to an answer that was never given, and is left out."""
        with segment.open("rb") as file:
            return [_entry(line) for line in file if line.endswith(b"\n")]

    def done(self, segment: Path, rows: int) -> None:
        """Delete a segment whose rows are committed."""
        segment.unlink(missing_ok=True)
        if segment.parent == self.own:
            with self._lock:
                self._pending -= rows

    def in_memory(self) -> list[Entry]:
        """Return the rows that found no room on disk."""
        with self._lock:
            return list(self._memory)

    def forget_in_memory(self, rows: int) -> None:
        """Forget the oldest rows in memory, which are committed."""
        with self._lock:
            for _ in range(rows):
                self._memory.popleft()
            self._pending -= rows

    def close(self) -> None:
        """Release the directories, and remove those that are empty."""
        self.close_segment()
        for directory, handle in self._held:
            if not any(directory.glob("*.jsonl")):
                (directory / "lock").unlink(missing_ok=True)
                directory.rmdir()
            os.close(handle)

    def _write(self, lines: bytes) -> None:
        if self._active is None:
            self._segment += 1
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL
            self._active = os.open(self._name(self._segment), flags, 0o600)
        before = os.fstat(self._active).st_size
        try:
            written = os.write(self._active, lines)
            if written < len(lines):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(self._active, before)
            raise

    def _name(self, number: int) -> Path:
        return self.own / f"{number:010d}.jsonl"

    def _adopt(self) -> None:
        held = {directory for directory, _ in self._held}
        for directory in sorted(self.root.iterdir()):
            if directory.is_dir() and directory not in held and not directory.name.startswith("."):
                try:
                    self._held.append(_hold(directory))
                except OSError:  # its process lives
                    continue


def _hold(directory: Path) -> tuple[Path, int]:
    """Lock a directory for as long as this process lives."""
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return directory, handle


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, default=datetime.isoformat, ensure_ascii=False).encode() + b"\n"


def _entry(line: bytes) -> Entry:
    table, row = json.loads(line)
    return table, row


def batches(entries: list[Entry]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Group rows by table, in the order in which the tables first occur."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for table, row in entries:
        grouped.setdefault(table, []).append(row)
    yield from grouped.items()
