"""Fit the chosen adapters again, without the days that are held out."""

from pathlib import Path
from typing import Any

from zenml import step

from hallmark.retrain.challenge import fit_trial
from hallmark.retrain.start import open_champion


@step
def fit_challenger(decided: dict[str, Any], bundle: str) -> bool:
    """Return whether there is a challenger."""
    champion = open_champion(Path(bundle))
    return decided["chosen"] > 0 and fit_trial(champion, champion.directory)
