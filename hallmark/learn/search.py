"""Optuna hyperparameter search over any configuration key; resumable, with seeded trials, by one worker or by many.

The sampler of every trial is seeded by the study's seed and the number of the trial: a study that was killed and
resumed tries the same values as one that was not. Where `HALLMARK_TUNE__URL` names a PostgreSQL, workers on many
machines share a study; the trial of one that is lost is tried again by another.
"""

import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from hallmark.build import Count, configuration
from hallmark.errors import ConfigError

STUDY = "hallmark"
URL = "HALLMARK_TUNE__URL"
"""Environment variable: where workers share studies, such as `postgresql+psycopg://user@host/studies`."""
HEARTBEAT_S = 15  # a worker whose heart has not beaten for four times as long is lost
OPENING = 1_953_852_773  # key of PostgreSQL's advisory lock under which tables and studies are made


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
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"{STUDY}-{journal.stem}" if os.environ.get(URL) else STUDY
    where = _named(name) if os.environ.get(URL) else str(journal)
    with _reaching(where, StorageInternalError, SQLAlchemyError, ValueError), _alone():
        study = optuna.create_study(
            storage=_storage(journal),
            study_name=name,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=config.startup, n_warmup_steps=1),
            load_if_exists=True,
        )
        space = {key: [bounds.low, bounds.high, bounds.log, bounds.whole] for key, bounds in config.space.items()}
        if study.user_attrs.get("space", space) != space:
            raise ConfigError(
                f"{where} was made for another tune.space: choose a NAME, remove it, or restore the space"
            )
        if study.user_attrs.get("made_from", made_from) != made_from:
            raise ConfigError(
                f"{where} was made with other parameters, so that losses cannot be compared: choose a NAME"
            )
        study.set_user_attr("space", space)
        study.set_user_attr("made_from", made_from)
    return study


def _storage(journal: Path) -> Any:
    from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.storages.journal import JournalFileBackend

    if not (url := os.environ.get(URL)):
        journal.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(journal)))
    retry = _quietly(RetryHeartbeatStaleTrialCallback)
    beats = {"heartbeat_interval": HEARTBEAT_S, "grace_period": 4 * HEARTBEAT_S}
    return _quietly(
        RDBStorage, url, engine_kwargs={"pool_pre_ping": True}, heartbeat_stale_trial_callback=retry, **beats
    )


def _named(name: str) -> str:
    return f"the study {name} in {URL}"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one worker at a time make what is not there yet: Optuna's tables, the study, what it was made from."""
    if not (url := os.environ.get(URL)):
        yield
        return
    import sqlalchemy as sa

    if not url.startswith("postgresql+psycopg://"):
        raise ConfigError(f"{URL} must begin with postgresql+psycopg://: without it, the study is a file")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({OPENING})")
        yield


@contextmanager
def _reaching(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of the database into one line, without their messages, which may hold the password."""
    try:
        yield
    except errors as error:
        reason = type(error.__cause__ or error).__name__
        raise ConfigError(
            f"{where} cannot be reached ({reason}): check host, user and password; ended trials are kept there, and"
            " the same command goes on"
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
        ConfigError: no trial was completed, or the database of the study was lost.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.trial import TrialState
    from sqlalchemy.exc import SQLAlchemyError

    begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    shared = bool(os.environ.get(URL))

    def compute(trial: Any) -> tuple[Any, float | None]:
        number = sum(t.number < trial.number for t in study.get_trials(deepcopy=False, states=begun))
        if number >= config.trials:  # another worker took the last one at the same moment
            return TrialState.FAIL, None
        seed = config.seed + (trial.number if shared else number)  # failed trials of others shift the second
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup)
        try:
            loss = attempt(trial, {key: _suggest(trial, key, range_) for key, range_ in config.space.items()})
            return (TrialState.PRUNED, None) if math.isnan(loss) else (TrialState.COMPLETE, loss)
        except Pruned:
            return TrialState.PRUNED, None
        except BaseException:
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise

    with _reaching(_named(study.study_name), StorageInternalError, SQLAlchemyError):
        if not shared:  # of a killed run: try their values again
            for interrupted in study.get_trials(states=(TrialState.RUNNING,)):
                study.enqueue_trial(interrupted.params, skip_if_exists=False)
                study.tell(interrupted.number, state=TrialState.FAIL)
        while True:
            if shared:
                _beat_for_the_lost(study)
                _quietly(optuna.storages.fail_stale_trials, study)
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
            if TrialState.WAITING in states or sum(state in begun for state in states) < config.trials:
                trial = _quietly(study.ask)
                with _beating(study, trial):
                    state, loss = compute(trial)
                # Given up while it computed (its heart stopped with the database), another worker tries its values:
                told = study.tell(trial, loss, state=state, skip_if_finished=True)
                if told.state in (TrialState.COMPLETE, TrialState.PRUNED):
                    after(told)
            elif shared and TrialState.RUNNING in states:
                time.sleep(HEARTBEAT_S / 3)  # others compute: their result may be the best, or they may be lost
            else:
                break
        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise ConfigError(
                "no trial was completed: none had a loss on valid, or all were pruned: raise tune.startup or .trials"
            )
        best = study.best_trial
    return dict(best.params), float(best.value)


def _quietly(call: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):  # heartbeats are called experimental
        return call(*inputs, **options)


def _beat_for_the_lost(study: Any) -> None:
    """Beat once for trials whose worker has not: if it was lost before, they become stale like those of all others."""
    import sqlalchemy as sa
    from optuna.exceptions import StorageInternalError

    silent = sa.text(
        "select trial_id from trials join studies using (study_id) where study_name = :name and state = 'RUNNING' "
        "and trial_id not in (select trial_id from trial_heartbeats)"
    )
    with sa.create_engine(os.environ[URL], poolclass=sa.NullPool).connect() as connection:
        trials = connection.execute(silent, {"name": study.study_name}).scalars().all()
    for trial_id in trials:
        with suppress(StorageInternalError):  # its worker beats at the same moment
            study._storage.record_heartbeat(trial_id)


@contextmanager
def _beating(study: Any, trial: Any) -> Iterator[None]:
    """Tell a shared study that this worker computes a trial; a beat that does not arrive is followed by the next."""
    if not os.environ.get(URL):
        yield
        return
    from optuna.exceptions import StorageInternalError

    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(StorageInternalError):
                study._storage.record_heartbeat(trial._trial_id)
            if ended.wait(HEARTBEAT_S):
                return

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


def watch(trial: Any) -> Callable[[int, float], None]:
    """Return a callback for every validation pass; it reports the loss to the trial and raises `Pruned`."""
    from optuna.exceptions import StorageInternalError

    def after_evaluation(step: int, loss: float) -> None:
        if math.isnan(loss):
            return
        with _reaching(_named(trial.study.study_name), StorageInternalError):
            trial.report(loss, step)
            hopeless = trial.should_prune()
        if hopeless:
            raise Pruned

    return after_evaluation


def _suggest(trial: Any, key: str, range_: Range) -> float:
    if range_.whole:
        return int(trial.suggest_int(key, int(range_.low), int(range_.high), log=range_.log))
    return float(trial.suggest_float(key, range_.low, range_.high, log=range_.log))
