"""Pipeline tune: one trial of a hyperparameter search."""

from typing import Any

from zenml import pipeline

from steps.try_setting import try_setting


@pipeline(enable_cache=False, execution_mode="fail_fast")
def tune(params: dict[str, Any], setting: dict[str, float], prepared: str, journal: str, trial_id: int) -> None:
    """Train with one setting and report its loss on valid."""
    try_setting(params, setting, prepared, journal, trial_id)
