"""Splits → base → adapters → intervals."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hallmark.contracts import Progress, Task, silent
from hallmark.files import FileRef, read_json
from hallmark.learn.processes import own, rank, run
from hallmark.progress import bars
from hallmark.prove.code import SourceTree
from hallmark.prove.provenance import describe_machine, digest_of
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
    work = (task, built, model["candidates"], train, prepared, out, scratch)
    run(train.processes, _fit, *work, progress if train.processes == 1 else None)
    return FileRef.to(out / "base")


def _fit(
    task: Task,
    built: Sequence[Any],
    nodes: Sequence[Mapping[str, Any]],
    train: Any,
    prepared: Path,
    out: Path,
    scratch: Path,
    progress: Progress | None,
) -> None:
    with own(out, scratch) as mine:
        task.fit(open_prepared(prepared), built, nodes, train, mine, scratch, progress or _mine())


def personalise(task: Task, prepared: Path, model: Path, config: Any, progress: Progress) -> FileRef:
    """Fit what each subject's gate keeps; a killed run goes on as in `fit_base`."""
    scratch = _checkpoints(task, prepared, [asdict(FileRef.to(model / "base")), repr(config)], [config])
    processes = config.processes
    run(processes, _personalise, task, prepared, model, config, scratch, progress if processes == 1 else None)
    return FileRef.to(model / "people")


def _personalise(
    task: Task, prepared: Path, model: Path, config: Any, scratch: Path, progress: Progress | None
) -> None:
    with own(model, scratch) as mine:
        if mine != model:
            shutil.copytree(model / "base", mine / "base")
        task.personalise(open_prepared(prepared), mine, config, scratch, progress or _mine())


def _mine() -> Progress:
    """Bars of the first of several processes; the others are silent."""
    return bars() if rank() == 0 else silent


def _checkpoints(task: Task, prepared: Path, settings: list[Any], built: Sequence[Any]) -> Path:
    """Name a directory after all that its checkpoints depend on: those of another content must never be resumed."""
    code = SourceTree().imported_by({type(x).__module__ for x in (task, *built)})
    key = digest_of([settings, repr(task), describe_machine(), asdict(FileRef.to(prepared)), str(code)])
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
