"""Write the model and its hallmark into one directory."""

from pathlib import Path
from typing import Annotated, Any

from zenml import ArtifactConfig, log_metadata
from zenml.enums import ArtifactType

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.stages import package as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


@step
def make_bundle(
    params: dict[str, Any], prepared: str, model: str, report: str, lock: str, releases: str, out: str
) -> Annotated[FileRef, ArtifactConfig(name="bundle", artifact_type=ArtifactType.MODEL)]:
    """Write the bundle and return its directory."""
    task, learner = build(params["task"], "task"), build(params["learner"], "learner")
    candidates = build(params["model"]["candidates"], "model.candidates")
    form = build(params["package"]["form"], "package.form")
    inputs = Path(prepared), Path(model), Path(report)
    hallmark = stage.package(task, learner, candidates, params, *inputs, Path(lock), Path(releases), Path(out), form)
    log_metadata({"version": hallmark.version, "reason": hallmark.reason, "digests": dict(hallmark.digests)})
    return FileRef.to(Path(out))
