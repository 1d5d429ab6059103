"""Train a base model that is due with `make repro`, and let it serve where it is better than the champion.

Where it serves, the repository keeps what was trained, so that adapters are fitted again from there. Otherwise
parameters and outputs are brought back from a copy, and bundle and report of the training are kept beside it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hallmark.errors import ConfigError, HallmarkError
from hallmark.files import read_json, recover, replacing
from hallmark.forget.bundles import refuse_erased
from hallmark.prove.bundle import MANIFEST, read_hallmark
from hallmark.records.database import Database
from hallmark.retrain import base_model
from hallmark.retrain.decide import watched
from hallmark.retrain.start import Champion, keep_own_state, open_champion
from pipelines import BUNDLE, EVALUATION
from runtime import experiment, facts, registry, store
from runtime.keep import OUTS, keep_bundle, rebuild_bento

ASIDE = Path(".work/before_base")
KEPT = (
    *(Path(out) for outs in OUTS.values() for out in outs),
    Path("reports/code"),
    Path("bundle.sig"),
    Path("dvc.lock"),
    experiment.PARAMS,
    experiment.LAST,
)
"""What a run changes."""


def train(database: Database, champion: Champion, operation: dict[str, Any], now: datetime) -> str:
    """Train the base model again; returns one sentence that says what came of it.

    Raises:
        ConfigError: the settings compose no experiment, one of another task, or there are no rows to train on.
        HallmarkError: the training failed; everything is as it was.
    """
    from hallmark.build import build
    from pipelines.replace_base import replace_base

    training, rule = build(operation["base"], "base"), build(operation["retrain"], "retrain")
    if reason := watched(champion, rule, now):
        return f"due, but {reason}"
    if at := base_model.next_try(database, champion, training, now):
        return f"due, but the last training was no better: the next begins on {at.date()} (base.again_days)"
    _check(training.settings, champion.hallmark.task)
    rows = base_model.write_observed(database, champion, training, rule, now)
    print(f"base     is trained again{f' on {rows:,} rows of recorded answers' if rows else ''}", file=sys.stderr)
    keep_own_state(champion)
    with brought_back(database, champion):
        earlier = _made_from()
        status = _repro(training.settings)
        if status:
            refused = [] if _made_from() in ("", earlier) else _refused_by()
            if not refused:
                settings = " ".join(training.settings) or "of params.yaml"
                raise HallmarkError(f"`make repro` with base.settings ({settings}) ended with {status}, see above")
            base_model.keep_trial(champion, None, Path(EVALUATION))
            return base_model.note_rejected(database, champion, f"the gate {refused[0]} refused it")
        response = store.run(replace_base, operation, str(champion.pointer), BUNDLE, facts=facts.collect(operation, {}))
        deployed = response.steps["deploy_base"].output.load()
        if not deployed["serves"]:
            base_model.keep_trial(champion, Path(BUNDLE), Path(EVALUATION))
            return str(deployed["text"])
    if read_hallmark(Path(BUNDLE))[0].verdicts:
        registry.keep_champion()
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


def _repro(settings: Sequence[str]) -> int:
    """Run `make repro`; Ctrl-C reaches it, too, and is raised when it has ended."""
    words = [word for setting in settings for word in ("-S", setting)]
    process = subprocess.Popen([sys.executable, "-m", "runtime.repro", *words])
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted
    return status


def _made_from() -> str:
    """Return what the report was made from; empty if there is none."""
    file = Path(EVALUATION) / "made_from.json"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _refused_by() -> list[str]:
    """Return the gates of the report that have failed."""
    file = Path(EVALUATION) / "verdicts.json"
    return [v["gate"] for v in read_json(file) if v["status"] == "failed"] if file.is_file() else []


@contextmanager
def brought_back(database: Database, champion: Champion) -> Iterator[None]:
    """Bring parameters and outputs back after the block, unless the bundle that it has made serves instead.

    The pointer decides, not whether the block fails: after a promotion, the audit log may still be away. What a killed
    run has left aside is brought back first.

    Raises:
        BundleError: what was brought back knows somebody who was erased meanwhile.
    """
    recover(ASIDE)
    if ASIDE.is_dir():
        _bring_back()
    with replacing(ASIDE) as fresh:
        for place in KEPT:
            _copy(place, fresh / place)
    try:
        yield
    finally:
        serves = open_champion(champion.pointer).digest
        made = read_hallmark(Path(BUNDLE))[1] if (Path(BUNDLE) / MANIFEST).is_file() else ""
        if serves == made and serves != champion.digest:
            _forget_aside()
        else:
            _bring_back()
            keep_bundle()
            rebuild_bento()
            if made:
                refuse_erased(database, Path(BUNDLE))


def _bring_back() -> None:
    """Put a copy of what was set aside in the place of what is there; the next run makes good a kill in between."""
    for place in KEPT:
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        _copy(ASIDE / place, place)
    _forget_aside()


def _forget_aside() -> None:
    gone = ASIDE.with_name(f"{ASIDE.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(ASIDE, gone)  # at once: half of a copy would be brought back
    shutil.rmtree(gone, ignore_errors=True)


def _copy(place: Path, to: Path) -> None:
    if place.is_dir():
        shutil.copytree(place, to, symlinks=True)
    elif place.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(place, to)
