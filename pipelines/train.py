"""Splits → base → adapters → intervals."""

from typing import Any

from zenml import pipeline

from pipelines.paths import MODEL, PREPARED
from steps.calibrate import calibrate
from steps.fit_base import fit_base
from steps.personalise import personalise


@pipeline(enable_cache=False, execution_mode="fail_fast")
def train(params: dict[str, Any]) -> None:
    """Fit the base model, then one adapter a subject where its gate keeps one, then honest intervals."""
    base = fit_base(params["task"], params["model"], params["train"], PREPARED, MODEL)
    people = personalise(base, params["task"], params["personalise"], PREPARED)
    calibrate(people, params["task"], params["calibrate"], PREPARED)
