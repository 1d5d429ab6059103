"""Run one trial of a hyperparameter study."""

from pathlib import Path
from typing import Annotated, Any

from zenml import log_metadata

from hallmark.build import build
from hallmark.learn.search import STUDY, Pruned, open_study, watch
from hallmark.progress import bars
from hallmark.stages import tune as stage
from steps.carried import step


@step
def try_setting(
    params: dict[str, Any], setting: dict[str, float], prepared: str, journal: str, trial_id: int
) -> Annotated[dict[str, Any], "trial"]:
    """Fit with one setting; return the loss on valid, or that the trial was pruned."""
    from optuna.trial import Trial

    study = open_study(build(params["tune"], "tune"), Path(journal), stage.made_from(params))
    evaluated = watch(Trial(study, trial_id))
    try:
        value = stage.try_setting(stage.with_setting(params, setting), Path(prepared), evaluated, bars())
        result: dict[str, Any] = {"study": STUDY, "setting": setting, "valid_loss": value, "state": "complete"}
    except Pruned:
        result = {"study": STUDY, "setting": setting, "state": "pruned"}
    log_metadata(result)
    return result
