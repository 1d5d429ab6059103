"""One setting, tried: fit the candidates in a scratch directory and return the better loss on valid."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hallmark.build import build
from hallmark.contracts import Progress
from hallmark.stages.prepare import open_prepared


def try_setting(
    params: Mapping[str, Any], prepared: Path, look: Callable[[int, float], None], progress: Progress
) -> float:
    """Fit with some parameters; `look` sees every look at valid and may raise to stop."""
    task = build(params["task"], "task")
    candidates = build(params["model"]["candidates"], "model.candidates")
    scratch = Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        nodes = params["model"]["candidates"]
        train = build(params["train"], "train")
        record = task.fit(
            open_prepared(prepared), candidates, nodes, train, scratch / "out", scratch / "work", progress, look
        )
        return float(record["candidates"][record["chosen"]]["valid_loss"])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def with_setting(params: Mapping[str, Any], setting: Mapping[str, float]) -> dict[str, Any]:
    """Put values at dotted keys into a copy of the parameters."""
    import copy

    changed: dict[str, Any] = copy.deepcopy(dict(params))
    for key, value in setting.items():
        *path, last = key.split(".")
        node = changed
        for name in path:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value
    return changed
