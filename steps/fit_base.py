"""Fit the candidates and keep the best on valid."""

from pathlib import Path
from typing import Annotated, Any

from zenml import ArtifactConfig, log_metadata
from zenml.enums import ArtifactType

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import train as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def fit_base(
    task: dict[str, Any],
    learner: dict[str, Any],
    model: dict[str, Any],
    train: dict[str, Any],
    prepared: str,
    out: str,
) -> Annotated[FileRef, ArtifactConfig(name="base", artifact_type=ArtifactType.MODEL)]:
    """Fit the base model and return its directory."""
    built = build(task, "task"), build(learner, "learner"), build(model["candidates"], "model.candidates")
    base = stage.fit_base(*built, build(train, "train"), Path(prepared), Path(out), bars())
    log_metadata(stage.training_facts(Path(out)))
    return base
