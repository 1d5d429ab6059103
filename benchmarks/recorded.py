"""A log of a classifier's answers and outcomes, made at random, for measurements and tests of what reads records."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from hallmark.records.database import Database
from hallmark.records.tables import outcomes, predictions
from hallmark.tasks.sentiment.messages import DISCLAIMER

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = hashlib.sha256(b"a bundle").hexdigest()
PART = 5_000
LABELS = ("negative", "positive")


def write_log(
    database: Database,
    days: int,
    subjects: int,
    a_day: int,
    first_day: int = 0,
    seed: int = 0,
    shift: float = 0.0,
    told: float = 1.0,
    errors: float = 0.1,
) -> int:
    """Write answers of a sentiment model and what was really meant; returns the number of answers.

    Args:
        database: whose tables are up to date.
        days: how many.
        subjects: how many people ask.
        a_day: answers of each on a day.
        first_day: counted from `FIRST`.
        seed: of everything that is drawn.
        shift: by how many standard deviations of a text's length the texts are longer.
        told: share of the answers with an outcome.
        errors: share of wrong labels.
    """
    batch: list[dict[str, Any]] = []
    happened: list[dict[str, Any]] = []
    count = 0
    for row, outcome in _rows(days, subjects, a_day, first_day, seed, shift, told, errors):
        batch.append(row)
        happened += [outcome] if outcome else []
        if len(batch) == PART:
            count += _flush(database, batch, happened)
    return count + _flush(database, batch, happened)


def _flush(database: Database, batch: list[dict[str, Any]], happened: list[dict[str, Any]]) -> int:
    count = len(batch)
    with database.writing() as connection:
        if batch:
            database.insert(connection, predictions, batch)
        if happened:
            database.insert(connection, outcomes, happened)
    batch.clear()
    happened.clear()
    return count


def _rows(
    days: int, subjects: int, a_day: int, first_day: int, seed: int, shift: float, told: float, errors: float
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    generator = np.random.default_rng((seed, first_day))
    means = np.random.default_rng(seed).normal(60, 6, subjects)  # of a person's texts
    for day in range(first_day, first_day + days):
        lengths = np.maximum(5, generator.normal(means[:, None] + 15 * shift, 15, (subjects, a_day))).astype(int)
        sure = generator.uniform(0.6, 0.99, (subjects, a_day))
        wrong, is_told = (generator.random((2, subjects, a_day)) < np.array([errors, told])[:, None, None]).tolist()
        label = generator.integers(0, 2, (subjects, a_day)).tolist()
        for person in range(subjects):
            for number in range(a_day):
                at = FIRST + timedelta(days=day, seconds=int(86_000 * number / a_day))
                key = str(uuid.UUID(bytes=generator.bytes(16), version=4))
                given = label[person][number]
                yield (
                    _prediction(key, f"person-{person}", at, int(lengths[person, number]), given, sure[person, number]),
                    _outcome(key, f"person-{person}", at, given ^ wrong[person][number])
                    if is_told[person][number]
                    else None,
                )


def _prediction(key: str, person: str, at: datetime, length: int, label: int, sure: float) -> dict[str, Any]:
    shares = [1 - sure, sure] if label else [sure, 1 - sure]
    response = {
        "status": "classified",
        "reason": "",
        "label": LABELS[label],
        "probabilities": [{"label": n, "probability": round(p, 4)} for n, p in zip(LABELS, shares, strict=True)],
        "threshold": 0.55,
        "tokens": length // 4,
        "text_sha256": DIGEST,
        "model_version": "1.0.0",
        "hallmark_sha256": DIGEST,
        "disclaimer": DISCLAIMER,
    }
    return {
        "id": key,
        "owner_id": person,
        "client_id": "key:app",
        "task": "sentiment",
        "model_version": "1.0.0",
        "hallmark_sha256": DIGEST,
        "base_sha256": DIGEST,
        "adapter_sha256": "",
        "history_sha256": "",
        "status": "classified",
        "served_by": "base",
        "reason": "",
        "asked_at": at,
        "latency_ms": 12.0,
        "batch_rows": 1,
        "machine_sha256": DIGEST,
        "request": json.dumps({"text": "a" * length}),
        "response": json.dumps(response),
    }


def _outcome(key: str, person: str, at: datetime, label: int) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
        "owner_id": person,
        "client_id": "key:app",
        "prediction_id": key,
        "horizon": "",
        "value": json.dumps(LABELS[label]),
        "observed_at": at + timedelta(hours=3),
        "recorded_at": at + timedelta(hours=4),
    }
