"""Learn honest intervals."""

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
def calibrate(
    people: FileRef, task: dict[str, Any], config: dict[str, Any], prepared: str
) -> Annotated[FileRef, ArtifactConfig(name="calibration", artifact_type=ArtifactType.MODEL)]:
    """The directory of the intervals' offsets."""
    model = Path(people.path).parent
    return stage.calibrate(build(task, "task"), Path(prepared), model, build(config, "calibrate"), bars())
