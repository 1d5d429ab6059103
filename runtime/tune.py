"""python -m runtime.tune NAME: search tune.space, one ZenML run per trial; write the best to conf/tuned/NAME.yaml."""

from hallmark import kernels

kernels.pin()

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hallmark.build import build, build_experiment, read_params
from hallmark.errors import DataError, HallmarkError
from hallmark.files import write_text
from hallmark.learn.search import Pruned, open_study, search
from hallmark.stages.tune import made_from
from pipelines import PREPARED
from runtime import store


def main(name: str) -> None:
    """Run the remaining trials of the study, then write the best setting."""
    params = read_params()
    build_experiment(params)
    if not (store.ROOT / PREPARED / "splits.parquet").is_file():
        raise DataError(f"{PREPARED} is not there: run `dvc repro prepare` first")
    store.start()
    from pipelines.tune import tune
    from runtime import facts

    journal = Path(".work/tune") / f"{name}.journal"
    run_facts = facts.collect(params, {})  # a study is no stage of DVC and has no dependencies there

    def attempt(trial: Any, setting: Mapping[str, float]) -> float:
        inputs = (params, dict(setting), PREPARED, str(journal), trial._trial_id)
        response = store.run(tune, *inputs, facts={**run_facts, "trial": trial.number})
        result = response.steps["try_setting"].outputs["trial"][0].load()
        if result["state"] == "pruned":
            raise Pruned
        return float(result["valid_loss"])

    def after(trial: Any) -> None:
        value = "pruned" if trial.state.name == "PRUNED" else f"valid {trial.value:.4f}"
        print(f"trial {trial.number}: {value} {_line(trial.params)}", file=sys.stderr, flush=True)

    config = build(params["tune"], "tune")
    best, value = search(config, open_study(config, journal, made_from(params)), attempt, after)
    out = Path("conf/tuned") / f"{name}.yaml"
    write_text(out, _override(name, best, value))
    print(f"best: valid {value:.4f} {_line(best)}\nwritten to {out}; use it with")
    print(f"  make params OVERRIDES=tuned={name}   (or dvc exp run -S tuned={name})")


def _line(setting: Mapping[str, float]) -> str:
    return " ".join(f"{key}={value:.4g}" for key, value in setting.items())


def _override(name: str, best: Mapping[str, float], value: float) -> str:
    import yaml

    tree: dict[str, Any] = {}
    for key, number in best.items():
        *path, last = key.split(".")
        node = tree
        for section in path:
            node = node.setdefault(section, {})
        node[last] = float(f"{number:.6g}")
    text: str = yaml.safe_dump(tree)
    return f"# @package _global_\n# Winner of `make tune NAME={name}`: valid loss {value:.6f}.\n{text}"


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "best")
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
