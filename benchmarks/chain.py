"""The stages of the main job as two calls of the library, for measurements that need neither DVC nor ZenML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.contracts import Progress, no_progress
from hallmark.stages import prepare, train


def prepare_rows(
    built: Mapping[str, Any], prepared: Path, report: Path, progress: Progress = no_progress
) -> dict[str, int]:
    """Load, clean, split and check; returns what the leakage check counted.

    Args:
        built: a composition, as `build_experiment` makes it.
        prepared: where the tables go.
        report: where the account of cleaning goes.
        progress: of the terminal.
    """
    prepare.clean_rows(built["data"], built["task"], prepared, report, progress)
    prepare.split_rows(built["task"], prepared)
    return prepare.check_leakage(built["task"], prepared, report)


def fit_base(built: Mapping[str, Any], prepared: Path, model: Path, progress: Progress = no_progress) -> None:
    """Fit the candidates."""
    candidates, settings = built["model"]["candidates"], built["train"]
    train.fit_base(built["task"], built["learner"], candidates, settings, prepared, model, progress)


def personalise(built: Mapping[str, Any], prepared: Path, model: Path, progress: Progress = no_progress) -> None:
    """Fit adapters, where the composition asks for them."""
    if (config := built["personalise"]) is not None:
        train.personalise(built["task"], built["learner"], prepared, model, config, progress)


def calibrate(built: Mapping[str, Any], prepared: Path, model: Path, progress: Progress = no_progress) -> None:
    """Calibrate, where the composition asks for it."""
    if (config := built["calibrate"]) is not None:
        train.calibrate(built["task"], built["learner"], prepared, model, config, progress)


def train_model(built: Mapping[str, Any], prepared: Path, model: Path, progress: Progress = no_progress) -> None:
    """Fit, personalise and calibrate."""
    for step in (fit_base, personalise, calibrate):
        step(built, prepared, model, progress)
