"""A bundle of many people, for measurements of the service: each has own numbers, made from those of a real bundle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from hallmark.adapters.bank import AdapterSpec
from hallmark.adapters.files import write_peft
from hallmark.contracts import Verdict
from hallmark.files import directory_of, read_json, sha256, write_json
from hallmark.prove.bundle import Contents, make_bundle, open_bundle

CHANGE = 0.01  # relative change of every number of a history
LORA_EVERY = 10  # every tenth person has a LoRA adapter


def name_of(number: int) -> str:
    """Return the subject_id of a person of the crowd."""
    return f"person-{number:06d}"


def crowded(bundle: Path, people: int, scratch: Path) -> Path:
    """Make a bundle of many people from a forecaster's bundle.

    Args:
        bundle: of a forecasting task with personal histories.
        people: how many.
        scratch: an empty directory.

    Returns:
        The new bundle's directory.
    """
    hallmark, _ = open_bundle(bundle)
    model, subjects = scratch / "model", scratch / "model" / "subjects"
    subjects.mkdir(parents=True)
    for part in ("base", "calibration"):
        (model / part).symlink_to((bundle / part).resolve())
    write_json(subjects / "adapters.json", read_json(bundle / "subjects" / "adapters.json"))
    spec = AdapterSpec.of(read_json(subjects / "adapters.json"))
    known = [entry for entry in read_json(bundle / "subjects" / "subjects.json") if entry["days"] > 0]
    histories = [
        load_file(str(bundle / "subjects" / directory_of(e["subject_id"]) / "history.safetensors")) for e in known
    ]
    generator, entries = np.random.default_rng(0), []
    for number in range(people):
        person, source = name_of(number), number % len(known)
        directory = subjects / directory_of(person)
        directory.mkdir()
        save_file(_changed(histories[source], generator), str(directory / "history.safetensors"))
        entry = {**known[source], "subject_id": person, "method": "online_ridge", "sha256": ""}
        if number % LORA_EVERY == 0:
            write_peft(_factors(spec, generator), spec, directory / "lora", "all-linear")
            entry |= {"method": "lora", "sha256": sha256(directory / "lora")}
        entries.append({**entry, "history_sha256": sha256(directory / "history.safetensors")})
    write_json(subjects / "subjects.json", entries)
    contents = Contents(
        task=hallmark.task,
        spec=hallmark.spec,
        requirements=hallmark.requirements,
        schema=hallmark.schema,
        provenance={"crowd": people},
        metrics=hallmark.metrics,
        verdicts=[Verdict(**verdict) for verdict in hallmark.verdicts],
        card=(bundle / "card.md").read_text(encoding="utf-8"),
        release=None,
    )
    make_bundle(model, contents, scratch / "bundle")
    return scratch / "bundle"


def requests(example: dict[str, Any], people: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Make a request of every person: the example's readings, each with noise of its own."""
    generator, made = np.random.default_rng(seed), []
    values = [name for name in example["readings"][0] if name != "timestamp"]
    for person in people:
        noise = np.clip(generator.normal(0, 4, len(example["readings"])), -10, 10)
        readings = [
            {**reading, **{name: round(min(max(reading[name] + float(n), 45.0), 395.0), 1) for name in values}}
            for reading, n in zip(example["readings"], noise, strict=True)
        ]
        made.append({**example, "subject_id": person, "readings": readings})
    return made


def read_example(task: str) -> dict[str, Any]:
    """Read the example request of a task."""
    return dict(json.loads((Path(__file__).resolve().parents[1] / "examples" / f"{task}.json").read_text()))


def _changed(history: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    kept = {"first_row", "first_day", "days", "known", "since"}
    return {
        name: array
        if name in kept
        else (array * (1 + CHANGE * generator.standard_normal(array.shape, dtype=np.float32))).astype(array.dtype)
        for name, array in history.items()
    }


def _factors(spec: AdapterSpec, generator: np.random.Generator) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (
            torch.from_numpy(0.02 * generator.standard_normal((spec.rank, inputs), dtype=np.float32)),
            torch.from_numpy(0.02 * generator.standard_normal((outputs, spec.rank), dtype=np.float32)),
        )
        for name, (outputs, inputs) in spec.shapes.items()
    }
