"""Answers to people of the toy cohort and what happened after them, as a service would have recorded them."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from hallmark.contracts import AnyPredictor
from hallmark.evidence import answers_with_evidence
from hallmark.outcomes import FEEDBACK
from hallmark.prove.bundle import Hallmark
from hallmark.prove.provenance import describe_machine
from hallmark.records.database import Database
from hallmark.records.rows import Asked, machine_entry, outcome_row, prediction_row
from hallmark.records.tables import machines, outcomes, predictions
from hallmark.watch.pairs import Serving, asked_by

FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)
HORIZONS = 2  # whose outcomes become known
Truth = Callable[[float, float], float]
"""What happens, given the medians of the subject's own model and of the base model."""


def tell_feedback(database: Database, said: Mapping[str, str]) -> None:
    """Record what some subjects say about each of their answers: subject → `helpful` or `unhelpful`."""
    with database.writing() as connection:
        about = sa.select(predictions).where(predictions.c.owner_id.in_(said))
        rows = [
            outcome_row(dict(row), "key:app", FEEDBACK, said[row["owner_id"]], row["asked_at"])
            for row in connection.execute(about).mappings()
        ]
        assert rows
        database.insert(connection, outcomes, rows)


class Writer:
    """Writes answers and what happened after them as a service would have."""

    def __init__(
        self, database: Database, serving: Serving, hallmark: Hallmark, truth_of: AnyPredictor | None = None
    ) -> None:
        database.migrate()
        self.truth_of = truth_of or serving.predictor
        self.database, self.serving, self.hallmark = database, serving, hallmark
        self.machine, (_, described) = machine_entry(describe_machine("cpu"))
        with database.writing() as connection:
            database.insert(connection, machines, [described])

    def write(self, request: Any, truth: Truth, days: Iterable[int], held_back: bool = False) -> None:
        """Write two answers of every day to a subject, who may be answered by the base model."""
        base_request = asked_by(request, None)
        asked = base_request if held_back else request
        [(given, evidence)] = answers_with_evidence(
            self.serving.predictor, [asked], str(self.hallmark.digests["weights"])
        )
        own, base = self.truth_of.predict([request, base_request])
        answers, happened = [], []
        for day in days:
            at = FIRST + timedelta(days=day)
            for _ in range(2):
                who = Asked(str(uuid.uuid4()), "key:app", request.subject_id, at, asked)
                digest = self.serving.hallmark_sha256
                row = prediction_row(who, given, evidence, self.hallmark, digest, self.machine, 5.0, 1, True)
                answers.append(row)
                for mine, other in list(zip(own.forecast, base.forecast, strict=True))[5::6][:HORIZONS]:
                    value = truth(mine.median_mg_dl, other.median_mg_dl)
                    happened.append(outcome_row(row, "key:app", str(mine.minutes), value, at))
        with self.database.writing() as connection:
            self.database.insert(connection, predictions, answers)
            self.database.insert(connection, outcomes, happened)
