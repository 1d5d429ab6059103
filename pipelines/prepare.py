"""Pipeline prepare: raw rows → clean rows → splits."""

from typing import Any

from zenml import pipeline

from pipelines import PREPARED, VALIDATION
from steps.clean_rows import clean_rows
from steps.split_rows import split_rows


@pipeline(enable_cache=False, execution_mode="fail_fast")
def prepare(params: dict[str, Any]) -> None:
    """Load, validate and clean the rows, then split them and check for leakage."""
    rows, _ = clean_rows(params["data"], params["task"], PREPARED, VALIDATION)
    split_rows(rows, params["task"], VALIDATION)
