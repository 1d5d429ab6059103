"""Score on test and apply the gates."""

from pathlib import Path
from typing import Annotated, Any

from zenml import log_metadata

from hallmark.build import build
from hallmark.files import FileRef
from hallmark.progress import bars
from hallmark.stages import evaluate as stage
from steps import references  # noqa: F401, registers FileRef
from steps.carried import step


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
    """Write the report and return its directory; the next step, `enforce_gates`, fails if a gate failed."""
    gates = build(evaluate["gates"], "evaluate.gates")
    evaluator = build(evaluate["evaluator"], "evaluate.evaluator")
    built_task, built_learner = build(task, "task"), build(learner, "learner")
    champion = stage.find_champion(built_task.name, Path(releases), Path(champions))
    stage.evaluate(
        built_task, built_learner, evaluator, Path(prepared), Path(model), champion, gates, Path(out), bars()
    )
    log_metadata(stage.headline_of(Path(out)))
    return FileRef.to(Path(out))
