"""Model selection: fit all candidates with the same budget of FLOPs, keep the best by loss on valid."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from hallmark.contracts import (
    Candidate,
    Combining,
    Follow,
    Learner,
    Prepared,
    Progress,
    Task,
    TrainResult,
    TrainSettings,
)
from hallmark.errors import ConfigError
from hallmark.files import write_json
from hallmark.learn.processes import world
from hallmark.learn.side_by_side import side_by_side

Evaluated = Callable[[int, float], None]
"""Called with (step, loss on valid) after every evaluation of a network; may raise to stop."""

T = TypeVar("T", bound=Task)
E = TypeVar("E")
C = TypeVar("C", bound=Candidate)
S = TypeVar("S", bound=TrainSettings)
M = TypeVar("M")


@dataclass(frozen=True)
class Quick:
    """What candidates share that need no trainer: trees, regressions.

    Attributes:
        seed: of their draws.
        processes: that share the work.
    """

    seed: int
    processes: int
    side_by_side: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.processes != 1:
            raise ValueError(f"processes={self.processes}: one is enough for what needs no trainer")


@runtime_checkable
class Composite(Protocol):
    """A candidate that is made of fitted ones."""

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
) -> dict[str, Any]:
    """Fit every candidate and save them in the order of their loss on valid.

    Candidates with `members` are combined from these, each of which is fitted once, whoever names it.

    Args:
        learner: fits and saves.
        task: what is learned.
        prepared: the rows and their splits.
        candidates: each has a name of its own.
        train: how they are trained.
        out: the best goes into `base`, the others into `candidates`, the record into `training.json`.
        scratch: a directory for checkpoints; the same one resumes a killed run.
        progress: of the terminal.
        evaluated: see `Evaluated`; it orders networks one after the other.

    Returns:
        The record: facts of the examples, candidates, the chosen one's name.

    Raises:
        ConfigError: two candidates share a name.
    """
    _check_names(candidates)
    examples = learner.examples(task, prepared, train, progress)
    parts = _parts(candidates)
    follow = {name: following(i, name, progress, evaluated) for i, name in enumerate(parts)}
    jobs = {name: partial(learner.fit_one, examples, part, train, scratch / name) for name, part in parts.items()}
    # torchrun's processes train every network together; a study must see one network's losses after the other's.
    alone = world() > 1 or evaluated is not None
    trained = side_by_side(jobs, 1 if alone else train.side_by_side, lambda name, *state: follow[name](*state))

    def fitted(candidate: Any) -> tuple[M, TrainResult]:
        if not isinstance(candidate, Composite):
            return trained[next(name for name, part in parts.items() if part == candidate)]
        assert isinstance(learner, Combining)  # what a learner accepts is checked when a composition is built
        found: tuple[M, TrainResult] = learner.combine(examples, candidate, [fitted(m)[0] for m in candidate.members])
        return found

    models = [(candidate, *fitted(candidate)) for candidate in candidates]
    models.sort(key=lambda model: model[2].valid_loss)
    said: dict[str, dict[str, Any]] = {}
    for place, (candidate, model, result) in enumerate(models):
        directory = out / "base" if place == 0 else out / "candidates" / candidate.name
        directory.mkdir(parents=True, exist_ok=True)
        said[candidate.name] = {
            "valid_loss": round(result.valid_loss, 6),
            "best_step": result.best_step,
            "steps": result.steps,
            "curve": [[step, round(loss, 6)] for step, loss in result.curve],
            **learner.save(model, candidate, directory),
        }
    record = {
        **learner.describe(examples),
        "candidates": {candidate.name: said[candidate.name] for candidate in candidates},
        "chosen": models[0][0].name,
    }
    write_json(out / "training.json", record)
    return record


def _check_names(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two of model.candidates are named {twice.pop()!r}: give one another `name`")


def _parts(candidates: Sequence[Any]) -> dict[str, Any]:
    """Name every candidate that is fitted: those without members, and the members of the others."""
    found: dict[str, Any] = {}
    for candidate in candidates:
        for part in candidate.members if isinstance(candidate, Composite) else (candidate,):
            if part not in found.values():
                twice = sum(other.name == part.name for other in found.values())
                found[f"{part.name}-{twice + 1}" if twice else part.name] = part
    return found


def following(place: int, name: str, progress: Progress, evaluated: Evaluated | None) -> Follow:
    """Return what follows one network's training.

    Args:
        place: of the network among all that are trained; later ones report later steps.
        name: of the network.
        progress: of the terminal.
        evaluated: called once for every new loss.
    """
    seen: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        if evaluated is not None and not math.isnan(loss) and seen[-1:] != [loss]:
            seen.append(loss)
            evaluated(place * 10**6 + step, loss)
        progress(f"fit {name}", step, steps, "" if math.isnan(loss) else f"valid {loss:.4f}")

    return follow
