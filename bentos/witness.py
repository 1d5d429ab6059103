"""Witness: compute some answers again from the bundle's files, in the background, and count what differs."""

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from bentos.engine import Engine
from bentos.guard import Guard
from bentos.metrics import Metrics
from hallmark.prove.replay import Replayed, replay
from hallmark.records.writer import RecordWriter
from hallmark.watch.guard import Seen

log = logging.getLogger("bentoml.hallmark")


class Witness:
    """Replays answers of this process.

    The predictor is opened anew for every answer: it shares no memory with the one that answered, so that an adapter in
    the wrong slot, a stale slot or a flipped bit cannot be in both.

    Args:
        engine: whose answers are replayed.
        records: the answers that this process gave lately.
        metrics: where the results are counted.
        per_hour: answers in an hour; 0 for none.
        machine: sha256 and description of this machine.
        guard: is told of wrong answers.
    """

    def __init__(
        self,
        engine: Engine,
        records: RecordWriter,
        metrics: Metrics,
        per_hour: int,
        machine: Mapping[str, str],
        guard: Guard,
    ) -> None:
        self.engine, self.records, self.metrics, self.per_hour = engine, records, metrics, per_hour
        self.machine, self.guard = machine, guard
        self.checked = self.wrong = 0
        self._random = random.Random()

    async def run(self) -> None:
        """Replay at the configured rate, for ever."""
        while self.per_hour:
            await asyncio.sleep(3600 / self.per_hour)
            await asyncio.to_thread(self.check_one)

    def check_one(self) -> Replayed | None:
        """Replay one recent answer of a model that answers now; None if there is none."""
        versions = {served.digest: served for served in self.engine.versions}
        # An answer of the baseline came from a network that failed or a file that may be mended since.
        rows = [
            row
            for row in self.records.recent_rows("predictions", {})
            if row["hallmark_sha256"] in versions and row["request"] is not None and row["served_by"] != "baseline"
        ]
        if not rows:
            return None
        row = self._random.choice(rows)
        served = versions[row["hallmark_sha256"]]
        again, device = served.open_again(), self.engine.device
        [replayed] = replay([row], again, served.request_type, served.base_sha256, self.machine, device)
        self.count(replayed, row)
        return replayed

    def count(self, replayed: Replayed, row: Mapping[str, Any]) -> None:
        """Count the result of a replay; a difference is logged with the id of the prediction."""
        self.checked += 1
        self.metrics.replays.inc()
        if replayed.wrong_weights:
            self.wrong += 1
            self.metrics.wrong_adapters.inc()
            log.error("prediction %s: wrong weights (%s)", row["id"], ", ".join(replayed.wrong_weights))
        if replayed.difference:
            self.metrics.replay_mismatches.inc()
            log.error("prediction %s: the replayed answer differs in %s", row["id"], replayed.difference)
        if replayed.wrong_weights or replayed.difference:
            self.guard.add(str(row["hallmark_sha256"]), Seen(wrong=1))
        self.metrics.wrong_adapter_rate.set(upper_95(self.wrong, self.checked))


def upper_95(wrong: int, checked: int) -> float:
    """Return the upper bound of a share, 95% confidence (Clopper and Pearson 1934); near 3 / checked if none was wrong.

    Source: Hanley and Lippman-Hand 1983, the rule of three.
    """
    from scipy.stats import beta

    return 1.0 if wrong >= checked else float(beta.ppf(0.95, wrong + 1, checked - wrong))
