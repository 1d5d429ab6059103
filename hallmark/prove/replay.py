"""Replay: compute a recorded answer again from its bundle and its request, and compare it byte for byte."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel

from hallmark.contracts import AnyPredictor
from hallmark.errors import ReplayError
from hallmark.evidence import Evidence, answers_with_evidence
from hallmark.prove.provenance import describe_machine

DIGESTS = tuple(digest.name for digest in fields(Evidence))


@dataclass(frozen=True)
class Replayed:
    """A recorded answer beside the one that was computed now.

    Attributes:
        id: of the prediction.
        difference: the first difference, such as `forecast.3.median_mg_dl`; empty if every byte is equal.
        wrong_weights: names of the recorded digests that are not those of the bundle's own weights.
        other_machine: what this machine has otherwise than the recorded one; empty if nothing.
    """

    id: str
    difference: str
    wrong_weights: tuple[str, ...]
    other_machine: str = ""

    @property
    def equal(self) -> bool:
        """Whether answer and weights are the recorded ones."""
        return not self.difference and not self.wrong_weights


def replay(
    records: Sequence[Mapping[str, Any]],
    predictor: AnyPredictor,
    request_type: type[BaseModel],
    base_sha256: str,
    machines: Mapping[str, str],
    device: str = "cpu",
) -> list[Replayed]:
    """Compute recorded answers again.

    Args:
        records: rows of the table `predictions`, all of one bundle.
        predictor: of the same bundle, opened for this purpose: what it holds in memory must come from the files.
        request_type: of the task.
        base_sha256: digest of the bundle's weights, see `answers_with_evidence`.
        machines: description of every recorded machine, JSON, by its sha256.
        device: on which the predictor computes.

    Raises:
        ReplayError: a request was not kept.
    """
    if missing := [record["id"] for record in records if record["request"] is None]:
        raise ReplayError(
            f"prediction {missing[0]} has no request: it was not kept (HALLMARK_RECORDS__KEEP_REQUESTS), or its "
            "retention has passed"
        )
    here = describe_machine(device)
    requests = [request_type.model_validate_json(record["request"]) for record in records]
    answered = answers_with_evidence(predictor, requests, base_sha256)
    return [
        _compare(record, response, evidence, _difference_of_machines(machines.get(record["machine_sha256"]), here))
        for record, (response, evidence) in zip(records, answered, strict=True)
    ]


def _compare(record: Mapping[str, Any], response: BaseModel, evidence: Evidence, other_machine: str) -> Replayed:
    text = response.model_dump_json()
    difference = ""
    if text != record["response"]:
        difference = first_difference(json.loads(record["response"]), json.loads(text)) or "the order of the fields"
    wrong = tuple(name for name in DIGESTS if record[name] != getattr(evidence, name))
    return Replayed(record["id"], difference, wrong, other_machine)


def first_difference(recorded: Any, computed: Any, place: str = "") -> str:
    """Return the place of the first difference of two JSON values, without the values; empty if they are equal."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in sorted({*recorded, *computed}):
            if key not in recorded or key not in computed:
                return f"{place}.{key}".lstrip(".")
            if found := first_difference(recorded[key], computed[key], f"{place}.{key}".lstrip(".")):
                return found
        return ""
    if isinstance(recorded, list) and isinstance(computed, list):
        if len(recorded) != len(computed):
            return f"{place} (length)"
        pairs = enumerate(zip(recorded, computed, strict=True))
        return next((found for i, (a, b) in pairs if (found := first_difference(a, b, f"{place}.{i}"))), "")
    return "" if recorded == computed else (place or "the value")


def _difference_of_machines(recorded: str | None, here: Mapping[str, Any]) -> str:
    if recorded is None:
        return "the machine of the record is unknown"
    there = json.loads(recorded)
    differing = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
    return ", ".join(f"{key} was {there.get(key)!r}, here {here.get(key)!r}" for key in differing)
