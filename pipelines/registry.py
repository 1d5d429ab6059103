"""The ZenML model registry: one Model per task, one version per bundle, a stage for what is served."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hallmark.errors import HallmarkError
from hallmark.prove.bundle import Hallmark, open_bundle
from hallmark.stages.package import promote as make_champion
from pipelines import store
from pipelines.paths import BUNDLE, CHAMPION, RELEASE

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


def promote(bundle: Path, release: Path, champion: Path) -> Hallmark:
    """Make a bundle the champion, here and in the registry; the version before it is archived."""
    from zenml.client import Client

    hallmark = make_champion(bundle, release, champion)
    Client().update_model_version(hallmark.task, hallmark.version, stage=PRODUCTION, force=True)
    return hallmark


def main() -> int:
    """python -m pipelines.registry: promote the bundle."""
    try:
        store.start()
        hallmark = promote(Path(BUNDLE), Path(RELEASE), Path(CHAMPION))
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{hallmark.task} {hallmark.version} is the champion, stage {PRODUCTION}: later models are held against it")
    print(f"  dvc add {CHAMPION} && git add {CHAMPION}.dvc {RELEASE}   # so that others have it too")
    return 0


if __name__ == "__main__":
    sys.exit(main())
