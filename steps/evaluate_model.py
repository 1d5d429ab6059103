"""Score on test and let the gates decide."""

from pathlib import Path
from typing import Annotated, Any

from zenml import log_metadata, step

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import evaluate as stage
from steps import references  # noqa: F401, registers FileRef


@step
def evaluate_model(
    task: dict[str, Any], evaluate: dict[str, Any], prepared: str, model: str, release: str, champion: str, out: str
) -> Annotated[FileRef, "report"]:
    """The report's directory; whether the gates passed is decided after it is stored."""
    gates = build(evaluate["gates"], "evaluate.gates")
    evaluator = build(evaluate["evaluator"], "evaluate.evaluator")
    rival = stage.find_champion(Path(release), Path(champion))
    stage.evaluate(build(task, "task"), evaluator, Path(prepared), Path(model), rival, gates, Path(out), bars())
    log_metadata(stage.headline_of(Path(out)))
    return FileRef.to(Path(out))
