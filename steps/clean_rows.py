"""Load the source and clean it."""

from pathlib import Path
from typing import Annotated, Any

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import prepare as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def clean_rows(
    data: dict[str, Any], task: dict[str, Any], out: str, report: str
) -> tuple[Annotated[FileRef, "rows"], Annotated[FileRef, "validation"]]:
    """Return the clean rows, and the report of all other rows, which the dashboard shows."""
    rows = stage.clean_rows(build(data, "data"), build(task, "task"), Path(out), Path(report), bars())
    return rows, FileRef.to(Path(report), rows.rows)
