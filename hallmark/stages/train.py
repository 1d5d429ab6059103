"""Stage train: fit the base model, personalise and calibrate it, resuming from checkpoints."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hallmark.abilities import Calibrating, Personalising
from hallmark.build import dump
from hallmark.contracts import AnyLearner, Candidate, Progress, Spent, Task, TrainSettings, no_progress
from hallmark.files import CHECKPOINTS, FileRef, read_json
from hallmark.learn.candidates import fit_candidates
from hallmark.learn.processes import output_of_rank, rank, run
from hallmark.progress import bars
from hallmark.prove.code import SourceTree
from hallmark.prove.provenance import describe_machine, digest_of
from hallmark.stages.prepare import open_prepared

SPENT = Path(".work/spent.jsonl")
RESUMABLE = ("distributed", "processes", "nodes", "restarts", "on_oom", "n_jobs")
"""Settings of training with which a run that others began goes on: a checkpoint holds whole tensors."""


def fit_base(
    task: Task,
    learner: AnyLearner,
    candidates: Sequence[Candidate],
    train: TrainSettings,
    prepared: Path,
    out: Path,
    progress: Progress,
) -> FileRef:
    """Fit the candidates and keep the best on valid; a killed run is resumed by the next run with the same inputs."""
    settings = [dump(list(candidates)), {k: v for k, v in dump(train).items() if k not in RESUMABLE}]
    scratch = _checkpoints(task, learner, prepared, settings, [*candidates, train])
    work = (task, learner, candidates, train, prepared, out, scratch)
    alone = train.processes == train.nodes == 1
    run(train.processes, _fit, *work, progress if alone else None, nodes=train.nodes, restarts=train.restarts)
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
    with output_of_rank(out, scratch) as directory:
        fit_candidates(
            learner,
            task,
            open_prepared(prepared),
            candidates,
            train,
            directory,
            scratch,
            progress or _progress_of_rank(),
            spent=partial(_note_spent, task) if rank() == 0 else None,
        )


def _note_spent(task: Task, name: str, spent: Spent) -> None:
    """Append what the training of one candidate took, for `hallmark plan review`; figures of no two runs are equal."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": task.name,
        "candidate": name,
        **asdict(spent),
    }
    SPENT.parent.mkdir(parents=True, exist_ok=True)
    with SPENT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def personalise(
    task: Task, learner: AnyLearner, prepared: Path, model: Path, config: Any, progress: Progress
) -> FileRef:
    """Fit the methods that the subjects' gates select; a killed run is resumed as in `fit_base`."""
    scratch = _checkpoints(task, learner, prepared, [asdict(FileRef.to(model / "base")), dump(config)], [config])
    processes = config.processes
    work = (task, learner, prepared, model, config, scratch)
    run(processes, _personalise, *work, progress if processes == 1 else None)
    return FileRef.to(model / "subjects")


def _personalise(
    task: Task,
    learner: Personalising[Any, Any],
    prepared: Path,
    model: Path,
    config: Any,
    scratch: Path,
    progress: Progress | None,
) -> None:
    with output_of_rank(model, scratch) as directory:
        if directory != model:
            shutil.copytree(model / "base", directory / "base")
        learner.personalise(task, open_prepared(prepared), directory, config, scratch, progress or _progress_of_rank())


def _progress_of_rank() -> Progress:
    """Return progress bars in the first of several processes; the others show no progress."""
    return bars() if rank() == 0 else no_progress


def _checkpoints(task: Task, learner: AnyLearner, prepared: Path, settings: list[Any], built: Sequence[Any]) -> Path:
    """Return a directory named after all that its checkpoints depend on, so that no other run resumes them."""
    code = SourceTree().imported_by({type(x).__module__ for x in (task, learner, *built)})
    inputs = [settings, dump(task), dump(learner), describe_machine(), asdict(FileRef.to(prepared)), dict(code.files)]
    return CHECKPOINTS / digest_of(inputs)[:16]


def calibrate(
    task: Task, learner: Calibrating[Any, Any], prepared: Path, model: Path, config: Any, progress: Progress
) -> FileRef:
    """Fit the calibration of probabilities or intervals on valid."""
    learner.calibrate(task, open_prepared(prepared), model, config, progress)
    return FileRef.to(model / "calibration")


def forget_checkpoints() -> None:
    """Remove all checkpoints: training has ended, nothing is left to resume."""
    shutil.rmtree(CHECKPOINTS, ignore_errors=True)


def training_facts(model: Path) -> dict[str, Any]:
    """Read the chosen candidate and the losses on valid, for the run's metadata."""
    record = read_json(model / "training.json")
    return {"chosen": record["chosen"], "candidates": {k: v["valid_loss"] for k, v in record["candidates"].items()}}
