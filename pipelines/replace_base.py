"""Pipeline replace_base: a base model that was trained again → comparison with the champion → deployment."""

from typing import Any

from zenml import pipeline

from steps.deploy_base import deploy_base


@pipeline(enable_cache=False, execution_mode="fail_fast")
def replace_base(operation: dict[str, Any], champion: str, bundle: str) -> None:
    """Let the new model serve if it is better on days that were held out of its training."""
    deploy_base(operation["retrain"], champion, bundle)
