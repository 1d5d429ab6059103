"""Optuna hyperparameter search over any configuration key; resumable, with seeded trials.

Every trial's sampler is seeded by the study's seed and the trial's number, so a study that was killed and resumed
tries what one that was not would have tried.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError

STUDY = "hallmark"


@dataclass(frozen=True)
class Range:
    """Where a number may lie.

    Attributes:
        low: smallest value.
        high: largest value.
        log: sample its logarithm.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"need low < high, and low > 0 on a logarithmic scale, got {self.low}…{self.high}")


@dataclass(frozen=True)
class SearchConfig:
    """A search.

    Attributes:
        trials: how many settings are tried.
        seed: of the sampler.
        startup: trials drawn at random, and never pruned, before the sampler learns.
        space: dotted key of the configuration → where it may lie.
    """

    trials: int
    seed: int
    startup: int
    space: Mapping[str, Range]

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.space:
            raise ValueError(f"need trials >= 1 and a space, got {self.trials} trials over {len(self.space)} keys")


class Pruned(Exception):
    """A trial that is not worth finishing."""


def open_study(config: SearchConfig, storage: Path) -> Any:
    """Open or create the study in a journal file.

    Raises:
        ConfigError: the journal belongs to another search space.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(storage))),
        study_name=STUDY,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=1),
        load_if_exists=True,
    )
    space = {key: [r.low, r.high, r.log, r.whole] for key, r in config.space.items()}
    if study.user_attrs.setdefault("space", space) != space:
        raise ConfigError(f"{storage} was made for another tune.space: remove it, or restore the space")
    study.set_user_attr("space", space)
    return study


def search(
    config: SearchConfig, study: Any, attempt: Callable[[Any, Mapping[str, float]], float], after: Callable[[Any], None]
) -> tuple[Mapping[str, float], float]:
    """Run the trials that are left.

    Args:
        config: the search.
        study: from `open_study`.
        attempt: value of a setting on valid (lower is better); raises `Pruned`.
        after: called with every finished trial.

    Returns:
        The best setting and its value.
    """
    import optuna
    from optuna.trial import TrialState

    for dead in study.get_trials(states=(TrialState.RUNNING,)):  # left by a kill: tried again with the same values
        study.enqueue_trial(dead.params, skip_if_exists=False)
        study.tell(dead.number, state=TrialState.FAIL)
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    while len(study.get_trials(states=done)) < config.trials:
        number = len(study.get_trials(states=done))
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + number, n_startup_trials=config.startup)
        trial = study.ask()
        setting = {key: _suggest(trial, key, where) for key, where in config.space.items()}
        try:
            study.tell(trial, attempt(trial, setting))
        except Pruned:
            study.tell(trial, state=TrialState.PRUNED)
        after(study.trials[trial.number])
    best = study.best_trial
    return dict(best.params), float(best.value)


def watch(trial: Any) -> Callable[[int, float], None]:
    """Return what training calls after every look at valid: it reports the loss and prunes."""

    def look(step: int, loss: float) -> None:
        if math.isnan(loss):
            return
        trial.report(loss, step)
        if trial.should_prune():
            raise Pruned

    return look


def _suggest(trial: Any, key: str, where: Range) -> float:
    if where.whole:
        return int(trial.suggest_int(key, int(where.low), int(where.high), log=where.log))
    return float(trial.suggest_float(key, where.low, where.high, log=where.log))
