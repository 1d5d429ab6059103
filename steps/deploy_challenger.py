"""Compare challenger and champion on the days that were held out, and let the challenger serve if it is better."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml import log_metadata, step

from hallmark.build import build
from hallmark.records.database import configured_url, open_database
from hallmark.retrain.challenge import challenge
from hallmark.retrain.deploy import clean, deploy
from hallmark.retrain.start import open_champion


@step
def deploy_challenger(fitted: bool, operation: dict[str, Any], bundle: str) -> str:
    """Return what came of it, one sentence."""
    if not fitted:
        clean(open_champion(Path(bundle)).directory)
        return "nothing was fitted again: `hallmark retrain --why` says why"
    database, champion = open_database(configured_url()), open_champion(Path(bundle))
    found = challenge(database, champion, champion.directory, build(operation["retrain"], "retrain"))
    figures = {"difference": found.difference, "bound": found.bound, "pairs": found.pairs, "subjects": found.subjects}
    log_metadata({"verdict": found.text} | {name: value for name, value in figures.items() if value is not None})
    rule = build(operation["monitor"], "monitor").adapters.rule
    return deploy(database, champion, champion.directory, found, rule, datetime.now(UTC))
