"""Candidates at equal cost: the best on valid becomes the base, the others its rivals in the report."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.contracts import Progress
from hallmark.errors import ConfigError
from hallmark.files import write_json
from hallmark.learn.trainer import TrainResult

Follow = Callable[[int, int, float], None]
"""Called with step, steps and the latest loss on valid."""


@dataclass(frozen=True)
class Quick:
    """What candidates share that need no trainer: trees, regressions.

    Attributes:
        seed: of their draws.
        processes: that share the work.
    """

    seed: int
    processes: int

    def __post_init__(self) -> None:
        if self.processes != 1:
            raise ValueError(f"processes={self.processes}: one is enough for what needs no trainer")


def distinct(candidates: Sequence[Any]) -> None:
    """Check that every candidate has a name of its own.

    Raises:
        ConfigError: two share one.
    """
    names = [candidate.name for candidate in candidates]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"two of model.candidates are named {twice.pop()!r}: give one another `name`")


def following(place: int, name: str, progress: Progress, look: Callable[[int, float], None] | None) -> Follow:
    """Return what follows one network's training.

    Args:
        place: of the network among all that are trained; later ones report later steps.
        name: of the network.
        progress: of the terminal.
        look: see `Task.fit`; called once for every new loss.
    """
    seen: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        if look is not None and not math.isnan(loss) and seen[-1:] != [loss]:
            seen.append(loss)
            look(place * 10**6 + step, loss)
        progress(f"fit {name}", step, steps, "" if math.isnan(loss) else f"valid {loss:.4f}")

    return follow


def fit_candidates(
    candidates: Sequence[Any],
    nodes: Sequence[Mapping[str, Any]],
    fit: Callable[[Any, Follow], tuple[Any, TrainResult]],
    save: Callable[[Any, Mapping[str, Any], Path], dict[str, Any]],
    out: Path,
    facts: Mapping[str, Any],
    progress: Progress,
    look: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Fit every candidate and save them in the order of their loss on valid.

    Args:
        candidates: each has a `name`.
        nodes: their configuration.
        fit: fits one, following its training.
        save: writes one with its node into a directory; returns what the record shall say of it.
        out: the best goes into `base`, the others into `rivals`, the record into `training.json`.
        facts: further values of the record.
        progress: of the terminal.
        look: see `Task.fit`.

    Returns:
        The record: facts, candidates, chosen.
    """
    fitted: list[tuple[float, int, Any, TrainResult]] = []
    for i, candidate in enumerate(candidates):
        model, result = fit(candidate, following(i, candidate.name, progress, look))
        fitted.append((result.valid_loss, i, model, result))
    said: dict[str, dict[str, Any]] = {}
    fitted.sort(key=lambda f: f[:2])
    for place, (_, i, model, result) in enumerate(fitted):
        name = candidates[i].name
        said[name] = {
            "valid_loss": round(result.valid_loss, 6),
            "best_step": result.best_step,
            "steps": result.steps,
            "curve": [[step, round(loss, 6)] for step, loss in result.curve],
            **save(model, nodes[i], out / "base" if place == 0 else out / "rivals" / name),
        }
    chosen = candidates[fitted[0][1]].name
    record = {**facts, "candidates": {c.name: said[c.name] for c in candidates}, "chosen": chosen}
    write_json(out / "training.json", record)
    return record
