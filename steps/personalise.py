"""Fit the methods that the subjects' gates select."""

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
def personalise(
    base: FileRef, task: dict[str, Any], learner: dict[str, Any], config: dict[str, Any], prepared: str
) -> Annotated[FileRef, ArtifactConfig(name="subjects", artifact_type=ArtifactType.MODEL)]:
    """Fit the adapters of all subjects and return their directory, beside the base model."""
    built = build(task, "task"), build(learner, "learner")
    return stage.personalise(*built, Path(prepared), Path(base.path).parent, build(config, "personalise"), bars())
