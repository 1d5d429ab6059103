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
    scratch = _checkpoints(task, prepared, [model, asdict(train)], built)
    task.fit(open_prepared(prepared), built, model["candidates"], train, out, scratch, progress)
    return FileRef.to(out / "base")


def personalise(task: Task, prepared: Path, model: Path, config: Any, progress: Progress) -> FileRef:
    """Fit what each subject's gate keeps; a killed run goes on as in `fit_base`."""
    scratch = _checkpoints(task, prepared, [asdict(FileRef.to(model / "base")), repr(config)], [config])
    task.personalise(open_prepared(prepared), model, config, scratch, progress)
    return FileRef.to(model / "people")


def _checkpoints(task: Task, prepared: Path, settings: list[Any], built: Sequence[Any]) -> Path:
    """Name a directory after all that its checkpoints depend on: those of another content must never be resumed."""
    code = code_closure(sorted({type(x).__module__ for x in (task, *built)}))
    key = digest_of([settings, repr(task), describe_machine(), asdict(FileRef.to(prepared)), code])
    return CHECKPOINTS / key[:16]


def calibrate(task: Task, prepared: Path, model: Path, config: Any, progress: Progress) -> FileRef:
    """Learn honest intervals."""
    task.calibrate(open_prepared(prepared), model, config, progress)
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)  # the last step of training: nothing is left to resume
    return FileRef.to(model / "calibration")


def training_facts(model: Path) -> dict[str, Any]:
    """Read what training recorded, for the run's metadata."""
    record = read_json(model / "training.json")
    return {"chosen": record["chosen"], "candidates": {k: v["valid_loss"] for k, v in record["candidates"].items()}}
