"""Train a base model that is due with `make repro`, and let it serve where it is better than the champion.

Where it serves, the repository keeps what was trained, so that adapters are fitted again from there. Otherwise
parameters and outputs are brought back, and the report of the training is kept beside its bundle.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError, HallmarkError
from hallmark.files import replacing, write_text
from hallmark.prove.bundle import MANIFEST, read_hallmark
from hallmark.records.database import Database
from hallmark.retrain import base
from hallmark.retrain.challenge import TRIAL
from hallmark.retrain.start import Champion, open_champion
from pipelines import BUNDLE, EVALUATION
from runtime import experiment, facts, store
from runtime.keep import keep_bundle

WRITTEN = (experiment.PARAMS, experiment.LAST, Path("dvc.lock"), Path(EVALUATION) / "metrics.json")
"""Files that a run changes and that are no outputs in DVC's cache."""


def train(database: Database, champion: Champion, operation: dict[str, Any], now: datetime) -> str:
    """Train the base model again; returns one sentence that says what came of it.

    Raises:
        ConfigError: the settings compose no experiment, or one of another task.
        HallmarkError: the training failed, or a gate refused its model; everything is as it was.
    """
    from hallmark.build import build
    from pipelines.replace_base import replace_base

    training, rule = build(operation["base"], "base"), build(operation["retrain"], "retrain")
    if at := base.next_try(database, champion, training, now):
        return f"due, but the last training was no better: the next begins on {at.date()} (base.again_days)"
    _check(training.settings, champion.hallmark.task)
    rows = base.write_observed(database, champion, rule, now)
    print(f"base     is trained again{f' on {rows:,} rows of recorded answers' if rows else ''}", file=sys.stderr)
    earlier = _made_from()
    with brought_back(champion):
        words = [word for setting in training.settings for word in ("-S", setting)]
        done = subprocess.run([sys.executable, "-m", "runtime.repro", *words], check=False)
        if done.returncode:
            shutil.rmtree(champion.directory / TRIAL, ignore_errors=True)
            _keep_report(champion, earlier)
            settings = " ".join(training.settings) or "of params.yaml"
            raise HallmarkError(f"`make repro` with base.settings ({settings}) ended with {done.returncode}, see above")
        response = store.run(replace_base, operation, str(champion.pointer), BUNDLE, facts=facts.collect(operation, {}))
        deployed = response.steps["deploy_base"].output.load()
        if not deployed["serves"]:
            _keep_report(champion, earlier)
    return str(deployed["text"])


def _check(settings: Sequence[str], task: str) -> None:
    """Check that the settings compose an experiment of a task, before anything is changed.

    Raises:
        ConfigError: they do not.
    """
    from hallmark.build import read_params
    from runtime.compose import compose

    file = experiment.PARAMS
    with tempfile.TemporaryDirectory() as scratch:
        if settings:
            compose(file := Path(scratch) / "params.yaml", list(settings))
        trained = read_params(file)["task"]["name"]
    if trained != task:
        raise ConfigError(f"base.settings train a model of {trained}, but {task} serves: add experiment={task}")


def _made_from() -> str:
    """Return what the report was made from; empty if there is none."""
    file = Path(EVALUATION) / "made_from.json"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _keep_report(champion: Champion, earlier: str) -> None:
    """Keep the report of a model that does not serve, if the training came so far."""
    if (made_from := _made_from()) and made_from != earlier:
        with replacing(champion.directory / TRIAL / "evaluation") as fresh:
            shutil.copytree(EVALUATION, fresh, dirs_exist_ok=True)


@contextmanager
def brought_back(champion: Champion) -> Iterator[None]:
    """Bring parameters and outputs back after the block, unless the bundle that it has made serves instead.

    The pointer decides, not whether the block fails: after a promotion, the audit log may still be away.
    """
    before = {file: file.read_text(encoding="utf-8") for file in WRITTEN if file.is_file()}
    try:
        yield
    finally:
        serves = open_champion(champion.pointer).digest
        made = read_hallmark(Path(BUNDLE))[1] if (Path(BUNDLE) / MANIFEST).is_file() else ""
        if serves != made or serves == champion.digest:
            _bring_back(before)


def _bring_back(before: Mapping[Path, str]) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    for file in WRITTEN:
        if file in before:
            write_text(file, before[file])
        else:
            file.unlink(missing_ok=True)
    try:
        with Repo() as repo:
            repo.checkout(force=True, allow_missing=True)
    except DvcException as error:
        print(f"warning: outputs could not be brought back ({error}): run `dvc checkout`", file=sys.stderr)
    keep_bundle()
