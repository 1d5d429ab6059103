"""Guard of a service: rolls a version back by itself that fails soon after it was promoted."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from bentos.engine import Engine, Served
from bentos.settings import GuardSettings
from hallmark.errors import HallmarkError
from hallmark.prove.serving import ServedVersions
from hallmark.switching import note, note_challenger
from hallmark.watch.guard import Seen, judge

log = logging.getLogger("bentoml.hallmark")


class Guard:
    """Counts what the version that answers now has failed at, and moves the pointer back if that is too much.

    Args:
        engine: whose version is guarded; only one that follows a pointer (`served/TASK/current`) can be rolled back.
        settings: the rule, and for how long a version is guarded.
        records: URL of the database, for the audit log.
        anchor: file that gets the head of the audit log's chain.

    Attributes:
        told: what the guard has done; empty if nothing.
    """

    def __init__(self, engine: Engine, settings: GuardSettings, records: str, anchor: Path) -> None:
        self.engine, self.settings, self.records, self.anchor = engine, settings, records, anchor
        self.rule = settings.rule
        self.told = ""
        self._lock = Lock()
        self._now, self._before, self._decided = "", "", ""
        self._seen: dict[str, Seen] = {}
        self._since = engine.beside.since

    def add(self, digest: str, seen: Seen) -> None:
        """Count rows of a version, also late ones of the version before."""
        with self._lock:
            self._seen[digest] = self._seen.get(digest, Seen()) + seen

    def check(self) -> bool:
        """Decide on the versions that answer now; returns whether one was rolled back or stopped."""
        digest, challenger, since = self.engine.served.digest, self.engine.challenger(), self.engine.beside.since
        with self._lock:
            if since != self._since:  # another challenger, or the same one once more
                self._since = since
                if challenger is not None:
                    self._seen.pop(challenger.digest, None)
            if digest != self._now:
                self._now, self._before = digest, self._now
                answering = {served.digest for served in self.engine.versions}
                self._seen = {d: s for d, s in self._seen.items() if d in {self._now, self._before, *answering}}
            seen, before = self._seen.get(digest, Seen()), self._seen.get(self._before, Seen())
            beside = self._seen.get(challenger.digest, Seen()) if challenger is not None else Seen()
        if challenger is not None and (reason := judge(beside, seen, self.rule)):
            return self._stop(challenger, reason)
        if digest == self._decided:
            return False
        reason = judge(seen, before, self.rule)
        if not reason:
            return False
        self._decided = digest  # once, whatever comes of it
        return self._roll_back(digest, reason)

    def _stop(self, challenger: Served, reason: str) -> bool:
        """Let the champion answer those whom the challenger answered."""
        hallmark, pointer = self.engine.served.hallmark, self.engine.directory
        versions = ServedVersions(hallmark.task, pointer.parent.parent, self.engine.public_key)
        try:
            if not versions.stop_challenger(challenger.digest):
                return False  # another process was faster
            self.told = note_challenger(
                hallmark.task, challenger.digest, "challenger_stopped", reason, self.records, self.anchor, "guard"
            )
        except HallmarkError as error:
            self.told = str(error)
        self.engine.reload_beside()
        log.error("a challenger was stopped: %s", self.told)
        return True

    def _roll_back(self, digest: str, reason: str) -> bool:
        task, pointer = self.engine.served.hallmark.task, self.engine.directory
        versions = ServedVersions(task, pointer.parent.parent, self.engine.public_key)
        if pointer != versions.current:
            log.error("%s: there is no pointer to roll back, see docs/operation.md", reason)
            return False
        promoted = versions.promoted_at(digest)
        if promoted is None or datetime.now(UTC) - promoted > timedelta(days=self.settings.days):
            log.error("%s, long after it was promoted: another version would not help", reason)
            return False
        try:
            switch = versions.roll_back_from(digest)
        except HallmarkError as error:
            log.error("%s, but it cannot be rolled back: %s", reason, error)
            return False
        if switch is None:
            return False  # another process was faster
        try:
            self.told = note(switch, "rolled_back", reason, self.records, self.anchor, actor="guard")
        except HallmarkError as error:
            self.told = str(error)
        log.error("rolled back, because %s: %s", reason, self.told)
        return True
