"""Data drift of test against train by Evidently, as one HTML page whose bytes depend on the data alone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from hallmark.files import write_text

# Evidently's own ids: version 7 UUIDs (a clock) and 32 hex digits. Other UUIDs in the page belong to its JavaScript.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|(?<=metric_)[0-9a-f]{32}")

# Named: left alone, Evidently mixes p-values (small columns: low is drift) with distances (large: high is drift).
_DRIFT = {"num_method": "wasserstein", "num_threshold": 0.1, "cat_method": "jensenshannon", "cat_threshold": 0.1}

MOST_ROWS = 100_000


def write_data_report(
    reference: pd.DataFrame, current: pd.DataFrame, numerical: list[str], categorical: list[str], path: Path
) -> dict[str, float]:
    """Write the report; columns that are empty in either table are left out.

    Args:
        reference: what the model learned from.
        current: what is compared with it.
        numerical: its numeric columns.
        categorical: its category columns.
        path: the HTML file.

    Returns:
        Column → drift score (a distance: 0 is none, over 0.1 counts as drift).
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import column_statistics
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    frames = [f if len(f) <= MOST_ROWS else f.iloc[:: len(f) // MOST_ROWS + 1] for f in (current, reference)]

    def there(columns: list[str]) -> list[str]:
        return [c for c in columns if all(f[c].notna().any() for f in frames)]

    numerical, categorical = there(numerical), there(categorical)
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    inputs = [Dataset.from_pandas(f[[*numerical, *categorical]], definition) for f in frames]
    # A column that never varies has no correlation: numpy would warn of every one.
    with (
        mock.patch.object(column_statistics.UniqueValueCountCalculation, "_all_unique_values", _sorted_values),
        mock.patch.object(column_statistics, "distribution", _drawn_once(column_statistics.distribution)),
        np.errstate(all="ignore"),
    ):
        run = Report([DataSummaryPreset(), DataDriftPreset(**_DRIFT)]).run(*inputs)
    page = run.get_html_str(as_iframe=False)
    seen: dict[str, str] = {}
    write_text(path, _ID.sub(lambda m: seen.setdefault(m[0], _stable(m[0], len(seen))), page))
    drift = (m for m in run.dict()["metrics"] if m["config"]["type"].endswith(":ValueDrift"))
    return {m["config"]["column"]: round(float(m["value"]), 6) for m in drift}


def _stable(found: str, index: int) -> str:
    return f"00000000-0000-4000-8000-{index:012x}" if "-" in found else f"{index:032x}"


def _drawn_once(draw: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Draw a column's distribution once: Evidently draws it for its minimum, mean, maximum and every other figure."""
    drawn: dict[str, list[Any]] = {}

    def distribution(title: str, current: Any, reference: Any) -> list[Any]:
        column = str(current.data.name)
        if column not in drawn:
            drawn[column] = draw(title, current, reference)
        return [widget.copy(update={"title": title}) for widget in drawn[column]]

    return distribution


def _sorted_values(calculation: Any, current: Any, reference: Any | None) -> dict[Any, None]:
    """Categories in sorted order: Evidently walks a set, whose order changes with PYTHONHASHSEED."""
    column = calculation.metric.column
    frames = [d.as_dataframe()[column] for d in (current, reference) if d is not None]
    return dict.fromkeys(sorted({v for f in frames for v in f.unique()}, key=str))
