"""Model selection: fit all candidates, combine ensembles, keep the one with the lowest loss on valid."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from hallmark.abilities import Combining
from hallmark.build import configuration
from hallmark.contracts import Candidate, Follow, Learner, Prepared, Progress, Spent, Task, TrainResult, TrainSettings
from hallmark.errors import ConfigError
from hallmark.files import write_json
from hallmark.learn.parallel import run_parallel
from hallmark.learn.processes import world

Evaluated = Callable[[int, float], None]
"""Called with (step, loss on valid) after every validation pass of a network; may raise to stop training."""

T = TypeVar("T", bound=Task)
E = TypeVar("E")
C = TypeVar("C", bound=Candidate)
S = TypeVar("S", bound=TrainSettings)
M = TypeVar("M")


@configuration
class NoTrainer:
    """Training settings of candidates without a trainer, such as trees and regressions.

    Attributes:
        seed: random seed.
        processes: number of processes; must be 1.
    """

    seed: int
    processes: int
    n_jobs: ClassVar[int] = 1
    nodes: ClassVar[int] = 1
    restarts: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.processes != 1:
            raise ValueError(f"processes={self.processes}: one is enough for what needs no trainer")


@runtime_checkable
class Composite(Protocol):
    """A candidate that combines other fitted candidates."""

    @property
    def members(self) -> Sequence[Candidate]:
        """The candidates that are fitted first."""


def fit_candidates(
    learner: Learner[T, E, C, S, M],
    task: T,
    prepared: Prepared,
    candidates: Sequence[C],
    train: S,
    out: Path,
    scratch: Path,
    progress: Progress,
    evaluated: Evaluated | None = None,
    spent: Callable[[str, Spent], None] | None = None,
) -> dict[str, Any]:
    """Fit every candidate, rank them by loss on valid, and save them.

    Candidates with `members` are combined from these; a member of several candidates is fitted once.

    Args:
        learner: fits and saves the candidates.
        task: the task.
        prepared: the rows and their splits.
        candidates: candidates with unique names.
        train: training settings.
        out: output directory: the best goes into `base`, the others into `candidates`, the record into `training.json`.
        scratch: directory of checkpoints; the same directory resumes a killed run.
        progress: called with the progress of training.
        evaluated: see `Evaluated`; with it, networks are trained one after the other.
        spent: called with the name of every network and what its training took.

    Returns:
        The training record: facts of the examples, a record per candidate, and the name of the chosen one.

    Raises:
        ConfigError: two candidates share a name.
    """
    _check_names(candidates)
    examples = learner.examples(task, prepared, train, progress)
    networks = to_fit(candidates)
    callbacks = {name: progress_callback(i, name, progress, evaluated) for i, name in enumerate(networks)}
    jobs = {
        name: partial(learner.fit_one, examples, single, train, scratch / name) for name, single in networks.items()
    }
    # Processes of torchrun share each network; a study needs the losses of one network before those of the next.
    serial = world() > 1 or evaluated is not None
    trained = run_parallel(jobs, 1 if serial else train.n_jobs, lambda name, *state: callbacks[name](*state))

    for name, (_, result) in trained.items():
        if spent is not None and result.spent is not None:
            spent(name, result.spent)

    def fitted(candidate: Any) -> tuple[M, TrainResult]:
        if not isinstance(candidate, Composite):
            return trained[next(name for name, single in networks.items() if single == candidate)]
        assert isinstance(learner, Combining)  # checked when the configuration was built
        combined: tuple[M, TrainResult] = learner.combine(
            examples, candidate, [fitted(m)[0] for m in candidate.members]
        )
        return combined

    models = [(candidate, *fitted(candidate)) for candidate in candidates]
    models.sort(key=lambda model: model[2].valid_loss)
    records: dict[str, dict[str, Any]] = {}
    for rank, (candidate, model, result) in enumerate(models):
        directory = out / "base" if rank == 0 else out / "candidates" / candidate.name
        directory.mkdir(parents=True, exist_ok=True)
        records[candidate.name] = {
            "valid_loss": round(result.valid_loss, 6),
            "best_step": result.best_step,
            "steps": result.steps,
            "curve": [[step, round(loss, 6)] for step, loss in result.curve],
            **_shrunk(result, train),
            **learner.save(model, candidate, directory),
        }
    record = {
        **learner.describe(examples),
        "candidates": {candidate.name: records[candidate.name] for candidate in candidates},
        "chosen": models[0][0].name,
    }
    write_json(out / "training.json", record)
    return record


def _shrunk(result: TrainResult, train: TrainSettings) -> dict[str, int]:
    """Return the batch of a run whose memory was too small for the configured one; sums in another order follow."""
    configured = getattr(train, "batch_size", None)
    if result.spent is None or result.spent.batch_size == configured:
        return {}
    return {"batch_size": result.spent.batch_size, "gradient_accumulation": result.spent.gradient_accumulation}


def _check_names(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two of model.candidates are named {repeated.pop()!r}: give one another `name`")


def to_fit(candidates: Sequence[Any]) -> dict[str, Any]:
    """Return all candidates to fit by a unique name: those without members, and the members of the others."""
    named: dict[str, Any] = {}
    for candidate in candidates:
        for single in candidate.members if isinstance(candidate, Composite) else (candidate,):
            if single not in named.values():
                same_name = sum(other.name == single.name for other in named.values())
                named[f"{single.name}-{same_name + 1}" if same_name else single.name] = single
    return named


def progress_callback(place: int, name: str, progress: Progress, evaluated: Evaluated | None) -> Follow:
    """Return the callback that reports the training of one network.

    Args:
        place: index of the network; its steps are reported after those of all earlier networks.
        name: name of the network.
        progress: called with the progress of training.
        evaluated: called once for every new loss on valid.
    """
    reported: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        if evaluated is not None and not math.isnan(loss) and reported[-1:] != [loss]:
            reported.append(loss)
            evaluated(place * 10**6 + step, loss)
        progress(f"fit {name}", step, steps, "" if math.isnan(loss) else f"valid {loss:.4f}")

    return follow
