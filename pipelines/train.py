"""Pipeline train: splits → base model → adapters → calibration."""

from typing import Any

from zenml import pipeline

from pipelines import MODEL, PREPARED
from steps.calibrate import calibrate
from steps.fit_base import fit_base
from steps.personalise import personalise


@pipeline(enable_cache=False, execution_mode="fail_fast")
def train(params: dict[str, Any]) -> None:
    """Fit the base model; then, where configured, one adapter per subject and calibrated intervals or probabilities."""
    built = params["task"], params["learner"]
    model = fit_base(*built, params["model"], params["train"], PREPARED, MODEL)
    if params["personalise"] is not None:
        model = personalise(model, *built, params["personalise"], PREPARED)
    if params["calibrate"] is not None:
        calibrate(model, *built, params["calibrate"], PREPARED)
