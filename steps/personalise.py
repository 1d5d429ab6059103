"""Fit what each subject's gate keeps."""

from pathlib import Path
from typing import Annotated, Any

from zenml import ArtifactConfig, step
from zenml.enums import ArtifactType

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import train as stage
from steps import references  # noqa: F401, registers FileRef


@step
def personalise(
    base: FileRef, task: dict[str, Any], learner: dict[str, Any], config: dict[str, Any], prepared: str
) -> Annotated[FileRef, ArtifactConfig(name="people", artifact_type=ArtifactType.MODEL)]:
    """The directory of everybody's adapters, beside the base."""
    built = build(task, "task"), build(learner, "learner")
    return stage.personalise(*built, Path(prepared), Path(base.path).parent, build(config, "personalise"), bars())
