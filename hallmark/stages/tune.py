"""Stage tune: objective of one hyperparameter trial; returns the best loss on valid."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import build
from hallmark.contracts import Progress
from hallmark.learn.candidates import Evaluated, fit_candidates
from hallmark.prove.provenance import digest_of
from hallmark.stages.prepare import open_prepared


def try_setting(params: Mapping[str, Any], prepared: Path, evaluated: Evaluated, progress: Progress) -> float:
    """Fit with the given parameters; `evaluated` receives every loss on valid and may raise to stop."""
    task, learner = build(params["task"], "task"), build(params["learner"], "learner")
    candidates = build(params["model"]["candidates"], "model.candidates")
    train, rows = build(params["train"], "train"), open_prepared(prepared)
    scratch = Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        directories = (scratch / "out", scratch / "work")
        record = fit_candidates(learner, task, rows, candidates, train, *directories, progress, evaluated)
        return float(record["candidates"][record["chosen"]]["valid_loss"])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def made_from(params: Mapping[str, Any]) -> str:
    """Return a digest of what the losses of a study depend on, but for the keys that it searches."""
    fixed = with_setting(params, dict.fromkeys(params["tune"]["space"], 0.0))
    return digest_of([fixed[section] for section in ("data", "task", "learner", "model", "train")])


def with_setting(params: Mapping[str, Any], setting: Mapping[str, float]) -> dict[str, Any]:
    """Return a copy of the parameters with values set at dotted keys."""
    import copy

    changed: dict[str, Any] = copy.deepcopy(dict(params))
    for key, value in setting.items():
        *path, last = key.split(".")
        node = changed
        for name in path:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value
    return changed
