"""Assign rows or subjects to train, valid and test, and check for leakage."""

from pathlib import Path
from typing import Annotated, Any

from zenml import log_metadata

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.stages import prepare as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def split_rows(rows: FileRef, task: dict[str, Any], report: str) -> Annotated[FileRef, "splits"]:
    """Split the rows, check for leakage and return the splits table."""
    built, prepared = build(task, "task"), Path(rows.path).parent
    splits = stage.split_rows(built, prepared)
    log_metadata({"leakage_check": stage.check_leakage(built, prepared, Path(report))})
    return splits
