"""Show the account of cleaning in the dashboard."""

from pathlib import Path
from typing import Annotated

from zenml import step

from hallmark.files import FileRef
from steps import references  # noqa: F401, registers FileRef


@step
def show_validation(rows: FileRef, report: str) -> Annotated[FileRef, "validation"]:
    """A reference to the validation report, which the dashboard shows."""
    return FileRef.to(Path(report), rows.rows)
