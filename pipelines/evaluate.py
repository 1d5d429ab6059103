"""Pipeline evaluate: model → scores, report, verdicts."""

from typing import Any

from zenml import pipeline

from pipelines import CHAMPIONS, EVALUATION, MODEL, PREPARED, RELEASES
from steps.enforce_gates import enforce_gates
from steps.evaluate_model import evaluate_model


@pipeline(enable_cache=False, execution_mode="fail_fast")
def evaluate(params: dict[str, Any]) -> None:
    """Score against baselines and champion on test; a failed gate fails the stage, after the report is stored."""
    built = params["task"], params["learner"], params["evaluate"]
    report = evaluate_model(*built, PREPARED, MODEL, RELEASES, CHAMPIONS, EVALUATION)
    enforce_gates(report)
