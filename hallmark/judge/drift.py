"""Data drift of test against train by Evidently, as one HTML page whose bytes depend only on the data."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from hallmark.files import write_text

# Ids that change with every run: UUIDs of version 7 (a clock) and 32 hex digits. Others belong to the JavaScript.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|(?<=metric_)[0-9a-f]{32}")

# Set explicitly: by default, Evidently mixes p-values (small tables: low is drift) and distances (high is drift).
_DRIFT = {"num_method": "wasserstein", "num_threshold": 0.1, "cat_method": "jensenshannon", "cat_threshold": 0.1}

MOST_ROWS = 100_000


def write_data_report(
    reference: pd.DataFrame, current: pd.DataFrame, numerical: list[str], categorical: list[str], path: Path
) -> dict[str, float]:
    """Write the data report; columns that are empty in either table are left out.

    Args:
        reference: rows of train.
        current: rows of test, which are compared with train.
        numerical: names of numeric columns.
        categorical: names of categorical columns.
        path: the HTML file.

    Returns:
        Column → drift score (a distance: 0 is none, over 0.1 counts as drift).
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import column_statistics
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    frames = [f if len(f) <= MOST_ROWS else f.iloc[:: len(f) // MOST_ROWS + 1] for f in (current, reference)]

    def not_empty(columns: list[str]) -> list[str]:
        return [column for column in columns if all(frame[column].notna().any() for frame in frames)]

    numerical, categorical = not_empty(numerical), not_empty(categorical)
    definition = DataDefinition(numerical_columns=numerical, categorical_columns=categorical)
    inputs = [Dataset.from_pandas(f[[*numerical, *categorical]], definition) for f in frames]
    # A constant column has no correlation: numpy would warn about each of them.
    with (
        mock.patch.object(column_statistics.UniqueValueCountCalculation, "_all_unique_values", _sorted_values),
        mock.patch.object(column_statistics, "distribution", _computed_once(column_statistics.distribution)),
        np.errstate(all="ignore"),
    ):
        run = Report([DataSummaryPreset(), DataDriftPreset(**_DRIFT)]).run(*inputs)
    page = run.get_html_str(as_iframe=False)
    stable_ids: dict[str, str] = {}
    write_text(path, _ID.sub(lambda m: stable_ids.setdefault(m[0], _stable_id(m[0], len(stable_ids))), page))
    drift = (m for m in run.dict()["metrics"] if m["config"]["type"].endswith(":ValueDrift"))
    return {m["config"]["column"]: round(float(m["value"]), 6) for m in drift}


def _stable_id(original: str, index: int) -> str:
    return f"00000000-0000-4000-8000-{index:012x}" if "-" in original else f"{index:032x}"


def _computed_once(compute: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Compute the distribution plot of each column once; Evidently repeats it for every statistic of the column."""
    cached: dict[str, list[Any]] = {}

    def distribution(title: str, current: Any, reference: Any) -> list[Any]:
        column = str(current.data.name)
        if column not in cached:
            cached[column] = compute(title, current, reference)
        return [widget.copy(update={"title": title}) for widget in cached[column]]

    return distribution


def _sorted_values(calculation: Any, current: Any, reference: Any | None) -> dict[Any, None]:
    """Return the categories in sorted order; Evidently iterates over a set, whose order depends on PYTHONHASHSEED."""
    column = calculation.metric.column
    frames = [dataset.as_dataframe()[column] for dataset in (current, reference) if dataset is not None]
    return dict.fromkeys(sorted({v for f in frames for v in f.unique()}, key=str))
