"""Fail where a gate failed."""

from pathlib import Path

from zenml import step

from hallmark.files import FileRef
from hallmark.stages import evaluate as stage
from steps import references  # noqa: F401, registers FileRef


@step
def enforce_gates(report: FileRef) -> int:
    """How many gates passed; raises with figure, bound and reason when one did not."""
    return stage.enforce_gates(Path(report.path))
