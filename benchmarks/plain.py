"""python -m benchmarks.plain: everything that `dvc repro` runs, as one script of library calls: no DVC, no ZenML."""

from pathlib import Path

from bentos.build import build_bento
from hallmark.build import build_experiment, read_params
from hallmark.progress import bars
from hallmark.stages import evaluate, package, prepare, train
from runtime import paths

PREPARED, MODEL, BUNDLE = Path(paths.PREPARED), Path(paths.MODEL), Path(paths.BUNDLE)
VALIDATION, EVALUATION = Path(paths.VALIDATION), Path(paths.EVALUATION)


def main() -> None:
    """Run every stage in this process."""
    params = read_params()
    built = build_experiment(params)
    task, show = built["task"], bars()
    prepare.clean_rows(built["data"], task, PREPARED, VALIDATION, show)
    prepare.split_rows(task, PREPARED)
    prepare.check_leakage(task, PREPARED, VALIDATION)
    candidates = built["model"]["candidates"]
    train.fit_base(task, params["model"], candidates, built["train"], PREPARED, MODEL, show)
    train.personalise(task, PREPARED, MODEL, built["personalise"], show)
    train.calibrate(task, PREPARED, MODEL, built["calibrate"], show)
    gates, evaluator = built["evaluate"]["gates"], built["evaluate"]["evaluator"]
    evaluate.evaluate(task, evaluator, PREPARED, MODEL, None, gates, EVALUATION, show)
    evaluate.enforce_gates(EVALUATION)
    lock, releases = Path(paths.LOCK), Path(paths.RELEASES)
    package.package(task, params, PREPARED, MODEL, EVALUATION, lock, releases, BUNDLE)
    if params["package"]["bento"]:
        build_bento(BUNDLE, lock, Path(".bentoml").resolve())


if __name__ == "__main__":
    main()
