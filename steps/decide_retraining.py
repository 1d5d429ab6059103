"""Decide whose adapters are fitted again, and whether the base model is due."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml import log_metadata, step

from hallmark.build import build
from hallmark.records.database import configured_url, open_database
from hallmark.retrain.decide import decide_now, keep_decisions
from hallmark.retrain.start import open_champion


@step
def decide_retraining(retrain: dict[str, Any], bundle: str) -> dict[str, Any]:
    """Return how many subjects there are for every reason, and the decision about the base model."""
    database, champion = open_database(configured_url()), open_champion(Path(bundle))
    decided = decide_now(database, champion, build(retrain, "retrain"), datetime.now(UTC))
    keep_decisions(database, decided, champion.directory)
    counts = dict(sorted(Counter(decision.why for decision in decided.decisions).items()))
    log_metadata({"decisions": counts or "none", "base": decided.base.text})
    return {"decisions": counts, "chosen": len(decided.chosen), "base": decided.plain()["base"]}
