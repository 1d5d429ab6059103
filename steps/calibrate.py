"""Calibrate probabilities or intervals on valid."""

from pathlib import Path
from typing import Annotated, Any

from zenml import ArtifactConfig
from zenml.enums import ArtifactType

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import train as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def calibrate(
    model: FileRef, task: dict[str, Any], learner: dict[str, Any], config: dict[str, Any], prepared: str
) -> Annotated[FileRef, ArtifactConfig(name="calibration", artifact_type=ArtifactType.MODEL)]:
    """Fit the calibration and return its directory inside the model's directory."""
    built = build(task, "task"), build(learner, "learner")
    return stage.calibrate(*built, Path(prepared), Path(model.path).parent, build(config, "calibrate"), bars())
