"""Fail the stage if a gate failed."""

from pathlib import Path

from hallmark.files import FileRef
from hallmark.stages import evaluate as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def enforce_gates(report: FileRef) -> int:
    """Return how many gates passed; raise an error with value, bound and reason if one failed."""
    return stage.enforce_gates(Path(report.path))
