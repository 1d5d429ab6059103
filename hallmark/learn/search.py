"""Optuna hyperparameter search over any configuration key; resumable, with seeded trials, by one worker or by many.

The sampler of every trial is seeded by the study's seed and the number of the trial: a study that was killed and
resumed tries the same values as one that was not. Where `HALLMARK_TUNE__URL` names a PostgreSQL, workers on many
machines share a study; the trial of one that is lost is tried again by another.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hallmark.build import Count, configuration
from hallmark.errors import ConfigError

STUDY = "hallmark"
URL = "HALLMARK_TUNE__URL"
"""Environment variable: where workers share studies, such as `postgresql+psycopg://user@host/studies`."""
HEARTBEAT_S = 15  # a worker whose heart has not beaten for four times as long is lost


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


def open_study(config: SearchConfig, journal: Path, made_from: str = "") -> Any:
    """Open or create a study: in PostgreSQL where `HALLMARK_TUNE__URL` names one, else in a journal file.

    Args:
        config: settings of the search.
        journal: the file; its stem names the study.
        made_from: digest of the other parameters, on which losses depend.

    Raises:
        ConfigError: the study belongs to another search space or was made with other parameters, or the database
            cannot be reached.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    where, storage = _storage(journal)
    study = optuna.create_study(
        storage=storage,
        study_name=f"{STUDY}-{journal.stem}" if os.environ.get(URL) else STUDY,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=1),
        load_if_exists=True,
    )
    space = {key: [bounds.low, bounds.high, bounds.log, bounds.whole] for key, bounds in config.space.items()}
    if study.user_attrs.get("space", space) != space:
        raise ConfigError(f"{where} was made for another tune.space: choose a NAME, remove it, or restore the space")
    if study.user_attrs.get("made_from", made_from) != made_from:
        raise ConfigError(f"{where} was made with other parameters, so that losses cannot be compared: choose a NAME")
    study.set_user_attr("space", space)
    study.set_user_attr("made_from", made_from)
    return study


def _storage(journal: Path) -> tuple[str, Any]:
    """Open a storage; returns what messages call it, too."""
    from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.storages.journal import JournalFileBackend

    if not (url := os.environ.get(URL)):
        journal.parent.mkdir(parents=True, exist_ok=True)
        return str(journal), JournalStorage(JournalFileBackend(str(journal)))
    from sqlalchemy.exc import SQLAlchemyError

    where = f"the study {STUDY}-{journal.stem} in {URL}"
    if not url.startswith("postgresql+psycopg://"):
        raise ConfigError(f"{URL} must begin with postgresql+psycopg://: without it, the study is {journal}")
    try:
        with warnings.catch_warnings(action="ignore"):  # heartbeats are called experimental
            retry = RetryHeartbeatStaleTrialCallback()
            beats = {"heartbeat_interval": HEARTBEAT_S, "grace_period": 4 * HEARTBEAT_S}
            return where, RDBStorage(url, **beats, heartbeat_stale_trial_callback=retry)
    except (SQLAlchemyError, ValueError) as error:  # the message of neither is shown: it may hold the password
        raise ConfigError(
            f"{where} cannot be reached ({type(error).__name__}): check host, user and password"
        ) from None


def search(
    config: SearchConfig, study: Any, attempt: Callable[[Any, Mapping[str, float]], float], after: Callable[[Any], None]
) -> tuple[Mapping[str, float], float]:
    """Run the remaining trials of a study, beside other workers where they share it.

    Args:
        config: settings of the search.
        study: from `open_study`.
        attempt: returns the loss on valid (lower is better) of a trial and its values; may raise `Pruned`.
        after: called with every finished trial of this worker.

    Returns:
        The best values, and their loss.

    Raises:
        ConfigError: no trial was completed.
    """
    import optuna
    from optuna.trial import TrialState

    begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    shared = bool(os.environ.get(URL))
    if not shared:  # of a killed run: try their values again
        for interrupted in study.get_trials(states=(TrialState.RUNNING,)):
            study.enqueue_trial(interrupted.params, skip_if_exists=False)
            study.tell(interrupted.number, state=TrialState.FAIL)

    def objective(trial: Any) -> float:
        number = sum(t.number < trial.number for t in study.get_trials(deepcopy=False, states=begun))
        if number >= config.trials:
            raise _EnoughError
        seed = config.seed + (trial.number if shared else number)  # failed trials of others shift the second
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup)
        try:
            return attempt(trial, {key: _suggest(trial, key, range_) for key, range_ in config.space.items()})
        except Pruned as pruned:
            raise optuna.TrialPruned from pruned

    def told(_: Any, trial: Any) -> None:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            after(trial)

    while True:
        if shared:
            optuna.storages.fail_stale_trials(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if TrialState.WAITING in states or sum(state in begun for state in states) < config.trials:
            study.optimize(objective, n_trials=1, callbacks=[told], catch=(_EnoughError,))
        elif shared and TrialState.RUNNING in states:
            time.sleep(HEARTBEAT_S / 3)  # others compute: their result may be the best, or they may be lost
        else:
            break
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ConfigError("no trial was completed: raise tune.trials, or tune.startup, before which none is pruned")
    best = study.best_trial
    return dict(best.params), float(best.value)


class _EnoughError(Exception):
    """Another worker took the last trial at the same moment."""


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
