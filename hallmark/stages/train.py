"""Stage train: fit the base model, personalise and calibrate it, resuming from checkpoints."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hallmark.build import dump
from hallmark.contracts import (
    AnyLearner,
    Calibrating,
    Candidate,
    Personalising,
    Progress,
    Task,
    TrainSettings,
    silent,
)
from hallmark.files import FileRef, read_json
from hallmark.learn.candidates import fit_candidates
from hallmark.learn.processes import own, rank, run
from hallmark.progress import bars
from hallmark.prove.code import SourceTree
from hallmark.prove.provenance import describe_machine, digest_of
from hallmark.stages.prepare import open_prepared

CHECKPOINTS = Path(".work/checkpoints")


def fit_base(
    task: Task,
    learner: AnyLearner,
    candidates: Sequence[Candidate],
    train: TrainSettings,
    prepared: Path,
    out: Path,
    progress: Progress,
) -> FileRef:
    """Fit the candidates; a killed run's checkpoints are resumed by the next run of the same content."""
    scratch = _checkpoints(task, learner, prepared, [dump(list(candidates)), dump(train)], [*candidates, train])
    work = (task, learner, candidates, train, prepared, out, scratch)
    run(train.processes, _fit, *work, progress if train.processes == 1 else None)
    return FileRef.to(out / "base")


def _fit(
    task: Task,
    learner: AnyLearner,
    candidates: Sequence[Candidate],
    train: TrainSettings,
    prepared: Path,
    out: Path,
    scratch: Path,
    progress: Progress | None,
) -> None:
    with own(out, scratch) as mine:
        fit_candidates(learner, task, open_prepared(prepared), candidates, train, mine, scratch, progress or _mine())


def personalise(
    task: Task, learner: AnyLearner, prepared: Path, model: Path, config: Any, progress: Progress
) -> FileRef:
    """Fit what each subject's gate keeps; a killed run goes on as in `fit_base`."""
    scratch = _checkpoints(task, learner, prepared, [asdict(FileRef.to(model / "base")), dump(config)], [config])
    processes = config.processes
    work = (task, learner, prepared, model, config, scratch)
    run(processes, _personalise, *work, progress if processes == 1 else None)
    return FileRef.to(model / "people")


def _personalise(
    task: Task,
    learner: Personalising,
    prepared: Path,
    model: Path,
    config: Any,
    scratch: Path,
    progress: Progress | None,
) -> None:
    with own(model, scratch) as mine:
        if mine != model:
            shutil.copytree(model / "base", mine / "base")
        learner.personalise(task, open_prepared(prepared), mine, config, scratch, progress or _mine())


def _mine() -> Progress:
    """Bars of the first of several processes; the others are silent."""
    return bars() if rank() == 0 else silent


def _checkpoints(task: Task, learner: AnyLearner, prepared: Path, settings: list[Any], built: Sequence[Any]) -> Path:
    """Name a directory after all that its checkpoints depend on: those of another content must never be resumed."""
    code = SourceTree().imported_by({type(x).__module__ for x in (task, learner, *built)})
    parts = [settings, dump(task), dump(learner), describe_machine(), asdict(FileRef.to(prepared)), dict(code.files)]
    return CHECKPOINTS / digest_of(parts)[:16]


def calibrate(
    task: Task, learner: Calibrating, prepared: Path, model: Path, config: Any, progress: Progress
) -> FileRef:
    """Fit calibrated probabilities or intervals."""
    learner.calibrate(task, open_prepared(prepared), model, config, progress)
    return FileRef.to(model / "calibration")


def forget_checkpoints() -> None:
    """Remove all checkpoints: training has ended, nothing is left to resume."""
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)


def training_facts(model: Path) -> dict[str, Any]:
    """Read what training recorded, for the run's metadata."""
    record = read_json(model / "training.json")
    return {"chosen": record["chosen"], "candidates": {k: v["valid_loss"] for k, v in record["candidates"].items()}}
