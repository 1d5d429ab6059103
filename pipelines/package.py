"""Pipeline package: model that passed the gates → bundle, version, Bento."""

from typing import Any

from zenml import pipeline

from pipelines import BUNDLE, EVALUATION, LOCK, MODEL, PREPARED, RELEASES
from steps.build_bento import build_bento
from steps.make_bundle import make_bundle


@pipeline(enable_cache=False, execution_mode="fail_fast")
def package(params: dict[str, Any]) -> None:
    """Write the bundle with its hallmark and derive its version; build the service around it."""
    bundle = make_bundle(params, PREPARED, MODEL, EVALUATION, LOCK, RELEASES, BUNDLE)
    if params["package"]["bento"]:
        build_bento(bundle, LOCK)
