"""python -m benchmarks.plain: everything that `dvc repro` runs, as one script of library calls: no DVC, no ZenML."""

from pathlib import Path

import pipelines as paths
from benchmarks.chain import prepare_rows, train_model
from bentos.build import build_bento
from hallmark.build import build_experiment, read_params
from hallmark.progress import bars
from hallmark.stages import evaluate, package

PREPARED, MODEL, BUNDLE = Path(paths.PREPARED), Path(paths.MODEL), Path(paths.BUNDLE)
VALIDATION, EVALUATION = Path(paths.VALIDATION), Path(paths.EVALUATION)


def main() -> None:
    """Run every stage in this process."""
    params = read_params()
    built = build_experiment(params)
    task, learner, show = built["task"], built["learner"], bars()
    prepare_rows(built, PREPARED, VALIDATION, show)
    train_model(built, PREPARED, MODEL, show)
    gates, evaluator = built["evaluate"]["gates"], built["evaluate"]["evaluator"]
    evaluate.evaluate(task, learner, evaluator, PREPARED, MODEL, None, gates, EVALUATION, show)
    evaluate.enforce_gates(EVALUATION)
    lock, candidates = Path(paths.LOCK), built["model"]["candidates"]
    made = PREPARED, MODEL, EVALUATION
    package.package(task, learner, candidates, params, *made, lock, Path(paths.RELEASES), BUNDLE)
    if params["package"]["bento"]:
        build_bento(BUNDLE, lock, Path(".bentoml").resolve())


if __name__ == "__main__":
    main()
