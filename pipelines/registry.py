"""The ZenML model registry: one Model per task, one version per bundle, a stage for what is served."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from hallmark.prove.bundle import Hallmark, open_bundle
from pipelines.paths import BUNDLE

PRODUCTION = "production"


def register(response: Any, facts: dict[str, Any]) -> Hallmark:
    """Record the bundle's version with its metadata, and the run that made it."""
    from zenml import log_metadata
    from zenml.client import Client
    from zenml.exceptions import EntityExistsError

    hallmark, digest = open_bundle(Path(BUNDLE))
    client = Client()
    with suppress(EntityExistsError):
        client.create_model(name=hallmark.task, description=f"Hallmark bundles of the task {hallmark.task}")
    with suppress(EntityExistsError):  # the same content packaged again is the same version
        client.create_model_version(hallmark.task, name=hallmark.version, description=hallmark.reason)
    log_metadata(
        {
            "hallmark_sha256": digest,
            "digests": dict(hallmark.digests),
            "metrics": dict(hallmark.metrics),
            "gates_passed": sum(bool(v["passed"]) for v in hallmark.verdicts),
            "run": str(response.id),
            **facts,
        },
        model_name=hallmark.task,
        model_version=hallmark.version,
    )
    return hallmark


def promote(version: str, task: str) -> None:
    """Make a version the one that is served; the one before it is archived."""
    from zenml.client import Client

    Client().update_model_version(task, version, stage=PRODUCTION, force=True)
