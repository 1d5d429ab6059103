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
    task: dict[str, Any],
    learner: dict[str, Any],
    evaluate: dict[str, Any],
    prepared: str,
    model: str,
    releases: str,
    champions: str,
    out: str,
) -> Annotated[FileRef, "report"]:
    """The report's directory; whether the gates passed is decided after it is stored."""
    gates = build(evaluate["gates"], "evaluate.gates")
    evaluator = build(evaluate["evaluator"], "evaluate.evaluator")
    built, learned = build(task, "task"), build(learner, "learner")
    champion = stage.find_champion(built.name, Path(releases), Path(champions))
    stage.evaluate(built, learned, evaluator, Path(prepared), Path(model), champion, gates, Path(out), bars())
    log_metadata(stage.headline_of(Path(out)))
    return FileRef.to(Path(out))
