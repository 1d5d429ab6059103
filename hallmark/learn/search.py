"""Optuna hyperparameter search over any configuration key; resumable, with seeded trials.

The sampler of every trial is seeded by the study's seed and the number of the trial: a study that was killed and
resumed tries the same values as one that was not.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hallmark.build import Count, configuration
from hallmark.errors import ConfigError

STUDY = "hallmark"


@configuration
class Range:
    """Range of one hyperparameter.

    Attributes:
        low: smallest value.
        high: largest value.
        log: whether to sample on a logarithmic scale.
        whole: whether the value is an integer.
    """

    low: float
    high: float
    log: bool
    whole: bool

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"need low < high, and low > 0 on a logarithmic scale, got {self.low}…{self.high}")


@configuration
class SearchConfig:
    """Settings of a hyperparameter search.

    Attributes:
        trials: number of trials.
        seed: seed of the sampler.
        startup: number of first trials, which are sampled at random and never pruned.
        space: dotted key of the configuration → its range.
    """

    trials: Count
    seed: int
    startup: Annotated[int, Field(ge=0)]
    space: Annotated[Mapping[str, Range], Field(min_length=1)]


class Pruned(Exception):
    """Raised to stop a trial that the pruner rejects."""


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
    space = {key: [bounds.low, bounds.high, bounds.log, bounds.whole] for key, bounds in config.space.items()}
    if study.user_attrs.setdefault("space", space) != space:
        raise ConfigError(f"{storage} was made for another tune.space: remove it, or restore the space")
    study.set_user_attr("space", space)
    return study


def search(
    config: SearchConfig, study: Any, attempt: Callable[[Any, Mapping[str, float]], float], after: Callable[[Any], None]
) -> tuple[Mapping[str, float], float]:
    """Run the remaining trials of a study.

    Args:
        config: settings of the search.
        study: from `open_study`.
        attempt: returns the loss on valid (lower is better) of a trial and its values; may raise `Pruned`.
        after: called with every finished trial.

    Returns:
        The best values, and their loss.
    """
    import optuna
    from optuna.trial import TrialState

    for interrupted in study.get_trials(states=(TrialState.RUNNING,)):  # of a killed run: try their values again
        study.enqueue_trial(interrupted.params, skip_if_exists=False)
        study.tell(interrupted.number, state=TrialState.FAIL)
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    while len(study.get_trials(states=done)) < config.trials:
        number = len(study.get_trials(states=done))
        study.sampler = optuna.samplers.TPESampler(seed=config.seed + number, n_startup_trials=config.startup)
        trial = study.ask()
        values = {key: _suggest(trial, key, range_) for key, range_ in config.space.items()}
        try:
            study.tell(trial, attempt(trial, values))
        except Pruned:
            study.tell(trial, state=TrialState.PRUNED)
        after(study.trials[trial.number])
    best = study.best_trial
    return dict(best.params), float(best.value)


def watch(trial: Any) -> Callable[[int, float], None]:
    """Return a callback for every validation pass; it reports the loss to the trial and raises `Pruned`."""

    def after_evaluation(step: int, loss: float) -> None:
        if math.isnan(loss):
            return
        trial.report(loss, step)
        if trial.should_prune():
            raise Pruned

    return after_evaluation


def _suggest(trial: Any, key: str, range_: Range) -> float:
    if range_.whole:
        return int(trial.suggest_int(key, int(range_.low), int(range_.high), log=range_.log))
    return float(trial.suggest_float(key, range_.low, range_.high, log=range_.log))
