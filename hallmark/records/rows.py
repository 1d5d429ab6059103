"""Rows of the records: made from answers, outcomes, bundles and machines."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from hallmark.evidence import Evidence
from hallmark.prove.bundle import Hallmark
from hallmark.records.spool import Entry

NAMESPACE = uuid.UUID("5f0c7a3e-0d5c-5c52-9a55-7e1d3b6f9e10")
REQUESTED, DEPLOYED = "requested", "deployed"  # states of a training job
UNANSWERED = "none"  # `served_by` of an abstention


@dataclass(frozen=True)
class Asked:
    """Who asked what, and when.

    Attributes:
        id: of the prediction.
        client_id: of the token or key.
        owner_id: the subject that the answer is about, or the client where it is not personal.
        at: when the request arrived.
        request: the request as the predictor read it.
        held_back: why it was not asked as one of its subject; empty if it was.
    """

    id: str
    client_id: str
    owner_id: str
    at: datetime
    request: BaseModel
    held_back: str = ""


def prediction_id(client_id: str, key: str | None, row: int) -> str:
    """Make the id of an answer: random, or the same again for the same idempotency key of a client."""
    return str(uuid.uuid4() if key is None else uuid.uuid5(NAMESPACE, json.dumps([client_id, key, row])))


def prediction_row(
    asked: Asked,
    response: BaseModel,
    evidence: Evidence,
    hallmark: Hallmark,
    digest: str,
    machine_sha256: str,
    latency_ms: float,
    batch_rows: int,
    keep_request: bool,
) -> dict[str, Any]:
    """Make the row of an answer.

    Args:
        asked: who asked what.
        response: the task's response, as it is sent.
        evidence: what it was computed with.
        hallmark: manifest of the bundle that answered.
        digest: its sha256.
        machine_sha256: see `machine_entry`.
        latency_ms: from the arrival of the request to the answer.
        batch_rows: rows of the batch that it travelled in.
        keep_request: whether the request is kept; without it, the answer cannot be replayed.
    """
    served_by = str(getattr(response, "served_by", "base"))
    status = str(getattr(response, "status", "answered"))
    return {
        "id": asked.id,
        "owner_id": asked.owner_id,
        "client_id": asked.client_id,
        "task": hallmark.task,
        "model_version": hallmark.version,
        "hallmark_sha256": digest,
        **asdict(evidence),
        "status": status,
        "served_by": UNANSWERED if status == "abstained" else served_by,
        "reason": str(getattr(response, "reason", "") or getattr(response, "fallback", "") or asked.held_back),
        "asked_at": asked.at,
        "latency_ms": round(latency_ms, 3),
        "batch_rows": batch_rows,
        "machine_sha256": machine_sha256,
        "request": asked.request.model_dump_json() if keep_request else None,
        "response": response.model_dump_json(),
    }


def outcome_row(
    prediction: Mapping[str, Any], client_id: str, horizon: str, value: float | str, observed_at: datetime
) -> dict[str, Any]:
    """Make the row of what really happened after a prediction; the first one for a horizon counts."""
    return {
        "id": str(uuid.uuid5(NAMESPACE, json.dumps([prediction["id"], horizon]))),
        "owner_id": prediction["owner_id"],
        "client_id": client_id,
        "prediction_id": prediction["id"],
        "horizon": horizon,
        "value": json.dumps(value),
        "observed_at": observed_at,
        "recorded_at": datetime.now(UTC),
    }


def training_row(
    key: str, owner_id: str, client_id: str, task: str, status: str, reason: str, now: datetime
) -> dict[str, Any]:
    """Make the row of a request to fit an adapter again, or of a decision about one."""
    finished = None if status == REQUESTED else now
    return {
        "id": key,
        "owner_id": owner_id,
        "client_id": client_id,
        "task": task,
        "status": status,
        "reason": reason,
        "created_at": now,
        "finished_at": finished,
    }


def model_version_entry(hallmark: Hallmark, digest: str) -> Entry:
    """Describe a bundle that begins to serve."""
    row = {
        "hallmark_sha256": digest,
        "task": hallmark.task,
        "version": hallmark.version,
        "metrics": json.dumps(hallmark.metrics),
        "verdicts": json.dumps(list(hallmark.verdicts)),
        "first_served_at": datetime.now(UTC),
    }
    return "model_versions", row


def machine_entry(description: Mapping[str, Any]) -> tuple[str, Entry]:
    """Describe a machine; returns the sha256 that predictions refer to, and the entry."""
    text = json.dumps(description, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest, ("machines", {"sha256": digest, "description": text})
