"""Splits → base → adapters → intervals."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hallmark.contracts import Progress, Task
from hallmark.files import FileRef, read_json
from hallmark.prove.provenance import code_closure, describe_machine, digest_of
from hallmark.stages.prepare import open_prepared

CHECKPOINTS = Path(".work/checkpoints")


def fit_base(
    task: Task,
    model: Mapping[str, Any],
    built: Sequence[Any],
    train: Any,
    prepared: Path,
    out: Path,
    progress: Progress,
) -> FileRef:
    """Fit the candidates; a killed run's checkpoints are resumed by the next run of the same content."""
    key = digest_of(
        [
            model,
            repr(task),  # a checkpoint of another configuration must never be resumed
            describe_machine(),
            asdict(train),
            asdict(FileRef.to(prepared)),
            code_closure(sorted({type(x).__module__ for x in (task, *built)})),
        ]
    )
    task.fit(open_prepared(prepared), built, model["candidates"], train, out, CHECKPOINTS / key[:16], progress)
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)
    return FileRef.to(out / "base")


def personalise(task: Task, prepared: Path, model: Path, config: Any, progress: Progress) -> FileRef:
    """Fit what each subject's gate keeps."""
    task.personalise(open_prepared(prepared), model, config, progress)
    return FileRef.to(model / "people")


def calibrate(task: Task, prepared: Path, model: Path, config: Any, progress: Progress) -> FileRef:
    """Learn honest intervals."""
    task.calibrate(open_prepared(prepared), model, config, progress)
    return FileRef.to(model / "calibration")


def training_facts(model: Path) -> dict[str, Any]:
    """Read what training recorded, for the run's metadata."""
    record = read_json(model / "training.json")
    return {"chosen": record["chosen"], "candidates": {k: v["valid_loss"] for k, v in record["candidates"].items()}}
