"""Pipeline retrain: recorded answers and outcomes → decisions → adapters fitted again → comparison → deployment."""

from typing import Any

from zenml import pipeline

from steps.decide_retraining import decide_retraining
from steps.deploy_challenger import deploy_challenger
from steps.fit_challenger import fit_challenger


@pipeline(enable_cache=False, execution_mode="fail_fast")
def retrain(operation: dict[str, Any], bundle: str) -> None:
    """Fit adapters again where it is due, and never let a worse version serve."""
    decided = decide_retraining(operation["retrain"], bundle)
    deploy_challenger(fit_challenger(decided, bundle), operation, bundle)
