"""RecordWriter: keep records at once, and bring them into the database in the background.

`append` writes to the spool and returns. A thread inserts ended segments in batches, and retries with growing pauses
while the database refuses, hangs or is full.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

import sqlalchemy as sa

from hallmark.errors import RecordsError
from hallmark.records.database import Database
from hallmark.records.erasures import is_erased, read_erasures
from hallmark.records.reader import EVERYTHING
from hallmark.records.spool import Entry, Spool, batches
from hallmark.records.tables import metadata

log = logging.getLogger("bentoml.hallmark.records")

INTERVAL_S = 0.25  # seconds between two inserts
LONGEST_PAUSE_S = 30.0
RECENT = 1_000  # rows that can be read before the database has them; a row may hold 40 KB
CLOSING_S = 10.0  # seconds that the last insert may take when the service stops


class RecordWriter:
    """Writes records of one process.

    Args:
        database: where the records go; its tables are created by the thread, when the database first answers.
        spool: directory of the spool, shared by all processes of the service.

    Attributes:
        failures: attempts to insert that have failed since the last one that did not.
    """

    def __init__(self, database: Database, spool: Path) -> None:
        self.database, self.spool = database, Spool(spool)
        self.failures = 0
        self._recent: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._recent_lock = Lock()
        self._stop, self._wake = Event(), Event()
        self._migrated = False
        self._thread = Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Rows of this process that are not in the database yet."""
        return self.spool.pending

    def append(self, entries: list[Entry]) -> None:
        """Keep rows; when this returns, a kill of the process does not lose them.

        Raises:
            RecordsError: there is no room for them.
        """
        self.spool.append(entries)
        with self._recent_lock:
            for table, row in entries:
                if "id" in row:
                    self._recent.setdefault((table, row["id"]), row)
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def recent(self, table: str, key: str) -> Mapping[str, Any] | None:
        """Return a row that this process has written lately, which the database may not have yet."""
        with self._recent_lock:
            return self._recent.get((table, key))

    def recent_rows(self, table: str, wanted: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the rows that this process has written lately and that have some values."""
        with self._recent_lock:
            rows = [row for (name, _), row in self._recent.items() if name == table]
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def forget_erased(self) -> None:
        """Forget rows of erased subjects that are still in memory.

        Raises:
            RecordsError: the database does not answer.
        """
        with self.database.reading(EVERYTHING) as connection:
            self._forget_recent(read_erasures(connection))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything that was appended is in the database; returns whether it is."""
        deadline = monotonic() + timeout_s
        while self.pending and monotonic() < deadline:
            self._wake.set()
            self._stop.wait(0.01)
        return not self.pending

    def close(self) -> None:
        """Insert what is left, and stop; what the database does not take stays in the spool for the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSING_S)
        if not self._thread.is_alive():
            self.spool.close()

    def _run(self) -> None:
        while True:
            pause = min(INTERVAL_S * 2**self.failures, LONGEST_PAUSE_S)
            self._wake.wait(pause)
            self._wake.clear()
            stopping = self._stop.is_set()
            try:
                self._insert()
                self.failures = 0
            except Exception as error:  # the thread must outlive whatever a database may raise
                if self.failures in (0, 5):  # once at the beginning, once when it lasts
                    reason = str(error) if isinstance(error, RecordsError) else type(error).__name__
                    log.warning("records stay in the spool: %s", reason)
                self.failures += 1
            if stopping:
                return

    def _insert(self) -> None:
        if not self._migrated:
            self.database.migrate()
            self._migrated = True
        self.spool.close_segment()
        for segment in self.spool.segments():
            entries = self.spool.read(segment)
            self._commit(entries)
            self.spool.done(segment, len(entries))
        if entries := self.spool.in_memory():
            self._commit(entries)
            self.spool.forget_in_memory(len(entries))

    def _commit(self, entries: list[Entry]) -> None:
        if not entries:
            return
        with self.database.writing() as connection:
            erased = read_erasures(connection)
            for name, rows in batches(entries):
                table = metadata.tables[name]
                kept = [_typed(table, row) for row in rows if not is_erased(row, erased)]
                self.database.insert(connection, table, kept)
        self._forget_recent(erased)

    def _forget_recent(self, erased: Mapping[str, datetime]) -> None:
        """Forget the rows of erased subjects that are still in memory."""
        if erased:
            with self._recent_lock:
                for key in [key for key, row in self._recent.items() if is_erased(row, erased)]:
                    del self._recent[key]


def _typed(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert times, which are texts in the spool."""
    return {
        column.name: datetime.fromisoformat(value)
        if isinstance(column.type, sa.DateTime) and isinstance(value := row.get(column.name), str)
        else row.get(column.name)
        for column in table.columns
        if column.server_default is None
    }
