"""Compare a bundle that was trained again with the champion, and let it serve if it is better."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml import log_metadata, step

from hallmark.build import build
from hallmark.records.database import configured_url, open_database
from hallmark.retrain import base_model
from hallmark.retrain.start import open_champion


@step
def deploy_base(retrain: dict[str, Any], champion: str, bundle: str) -> dict[str, Any]:
    """Return what came of it."""
    database, serving = open_database(configured_url()), open_champion(Path(champion))
    rule, now = build(retrain, "retrain"), datetime.now(UTC)
    found = base_model.challenge_base(database, serving, Path(bundle), rule, now)
    log_metadata({"verdict": found.text})
    return asdict(base_model.deploy_base(database, serving, Path(bundle), found))
