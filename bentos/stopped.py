"""Adapters that may not serve: the monitor stops them in the records, the service asks the base model instead."""

from dataclasses import replace

from bentos.engine import Engine
from hallmark.records.database import Database
from hallmark.records.rows import Asked
from hallmark.watch.adapters import stopped
from hallmark.watch.pairs import asked_by


class StoppedAdapters:
    """Subjects of the version that answers whose adapters are stopped.

    While the database does not answer, what was read last holds; before anything was read, every adapter serves.

    Args:
        engine: whose version is meant.
        database: of the records.
    """

    def __init__(self, engine: Engine, database: Database) -> None:
        self.engine, self.database = engine, database
        self._reasons: dict[str, str] = {}
        self._digest = ""

    @property
    def known(self) -> bool:
        """Whether those of the version that answers now were read."""
        return self._digest == self.engine.served.digest

    def __len__(self) -> int:
        """Number of stopped adapters."""
        return len(self._reasons)

    def read(self) -> None:
        """Read which are stopped now.

        Raises:
            RecordsError: the database does not answer.
        """
        digest = self.engine.served.digest
        self._reasons, self._digest = stopped(self.database, digest), digest

    def hold_back(self, asked: Asked) -> Asked:
        """Ask for a subject whose adapter is stopped as for somebody who has none."""
        reason = self._reasons.get(asked.owner_id)
        if reason is None:
            return asked
        why = f"the subject's own model is stopped: {reason}"
        return replace(asked, request=asked_by(asked.request, None), held_back=why)
