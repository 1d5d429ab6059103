"""Configuration: everything composes, builds, and says what is wrong when it does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hallmark.build import build, build_experiment, dump, targets
from hallmark.errors import ConfigError
from runtime.compose import compose as write_params
from tests.toys import ROOT, compose

GROUPS = ("data", "learner", "model", "train", "personalise", "calibrate", "evaluate", "package", "tune")


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / "conf" / group).glob("*.yaml") if not p.stem.startswith("_"))


def test_params_yaml_is_the_composition(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", [])
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text(), "run `make params`"


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes_and_builds(name: str) -> None:
    assert build_experiment(compose(f"experiment={name}"))["task"].name


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_every_option_composes_and_builds(group: str, option: str) -> None:
    assert build(compose(f"{group}={option}"))["task"].name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task=sentiment",), r"task: SentimentTask does not belong to ForecastLearner, which takes ForecastTask"),
        (("experiment=sentiment", "learner=trees"), r"task: SentimentTask does not belong to TradesLearner"),
        (
            ("experiment=sentiment", "train=quick"),
            r"train: NoTrainer does not belong to SentimentLearner, which takes Train",
        ),
        (
            ("experiment=sentiment", "model=boosted_trees"),
            r"model\.candidates\[0\]: HistGradientBoosting does not belong to SentimentLearner",
        ),
        (("experiment=sentiment", "calibrate=per_person"), r"calibrate: CalibrateConfig does not belong to Sentiment"),
        (("experiment=sentiment", "personalise=gated"), r"personalise: PersonaliseConfig .* which takes null"),
        (("experiment=trades", "model=encoder"), r"candidates\[0\]: .* HistGradientBoosting or LightGBM"),
        (("experiment=trades", "train=standard"), r"train: TrainConfig does not belong to TradesLearner"),
        (("experiment=trades", "evaluate=sentiment"), r"task: TradesTask does not belong to SentimentEvaluation"),
        (
            ("evaluate=sentiment",),
            r"task: GlucoseTask does not belong to SentimentEvaluation",
        ),
        (("evaluate=trades",), r"task: GlucoseTask does not belong to ClassEvaluation, which takes ClassTask"),
        (("model=encoder",), r"candidates\[0\]: EncoderConfig .* ResidualMLPConfig or PatchTSTBodyConfig or Ensemble"),
        (("train=quick",), r"train: NoTrainer does not belong to ForecastLearner, which takes TrainConfig"),
        (("calibrate=temperature",), r"calibrate: TemperatureConfig does not belong to ForecastLearner"),
        (("model.candidates=[]",), r"model\.candidates is empty: choose a model"),
    ],
)
def test_a_part_of_another_task_is_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_experiment(compose(*overrides))


@pytest.mark.parametrize("experiment", [(), ("experiment=cv",), ("experiment=sentiment",), ("experiment=text",),
                                        ("experiment=trades", "selection@learner.selection=by_l1")])  # fmt: skip
def test_dump_is_the_inverse_of_build(experiment: tuple[str, ...]) -> None:
    built = build(compose(*experiment))
    written = json.loads(json.dumps(dump(built)))  # as a bundle keeps it
    assert build(written) == built
    assert dump(build(written)) == written
    assert written["train"] == compose(*experiment)["train"]


@pytest.mark.parametrize("task", ["cv", "glucose", "sentiment", "text", "trades"])
def test_building_a_task_imports_no_training_code(task: str) -> None:
    code = (
        "import json, sys; from hallmark.build import build; build(json.load(sys.stdin), 'task');"
        "heavy = ('hallmark.learn', 'torch', 'transformers', 'sklearn');"
        "print(*(name for name in sys.modules if name.startswith(heavy)))"
    )
    node = compose(f"task={task}")["task"]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(node), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_only_the_library_is_built_from_configuration() -> None:
    assert all(name.startswith("hallmark.") for name in targets(compose()))
    with pytest.raises(ConfigError, match=r"only hallmark\.\* may be built"):
        build({"_target_": "os.system", "command": "true"}, "data")


def test_a_misspelt_key_is_named_with_its_neighbour() -> None:
    params = compose()
    params["train"]["lerning_rate"] = 1
    with pytest.raises(
        ConfigError, match=r"train\.lerning_rate is not a setting of TrainConfig: did you mean learning_rate"
    ):
        build(params)


@pytest.mark.parametrize(
    "target",
    [
        "hallmark.files.write_text",
        "hallmark.families.forecasting.base_model.load_base",
        "hallmark.errors.HallmarkError",
    ],
)
def test_no_function_can_be_called_from_configuration(target: str) -> None:
    with pytest.raises(ConfigError, match="no configuration class"):
        build({"_target_": target, "path": "x"}, "task")


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "abc"), ("patience", 1.5), ("precision", "maybe"), ("budget_tflop", -1)]
)
def test_a_value_of_a_wrong_type_or_range_is_named(key: str, value: object) -> None:
    params = compose()
    params["train"][key] = value
    with pytest.raises(ConfigError, match=key):
        build(params)


def test_a_missing_key_is_named() -> None:
    params = compose()
    del params["learner"]["history"]["ridge"]["penalty"]
    with pytest.raises(ConfigError, match=r"learner\.history\.ridge\.penalty is missing"):
        build(params)


def test_a_refused_value_is_named_with_its_key() -> None:
    params = compose()
    params["learner"]["forecast"]["history_dropout"] = 3
    with pytest.raises(ConfigError, match=r"learner\.forecast\.history_dropout=3: must be less than or equal to 1"):
        build(params)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.evaluator.horizons_minutes=[30,33]", r"evaluate\.evaluator: horizons_minutes has no 33"),
        ("evaluate.evaluator.event_minutes=32", r"has no 32: add it to task\.grid\.horizons_minutes"),
        ("evaluate.gates.0.metric=rsme", r"evaluate\.gates: metric 'rsme' is unknown"),
        ("evaluate.gates.11.by=sexx", r"there is no segmentation 'sexx'"),
    ],
)
def test_what_evaluation_cannot_measure_is_known_before_anything_runs(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_params(tmp_path / "params.yaml", [override])


def test_presets_go_with_any_data(tmp_path: Path) -> None:
    for option in ("table", "azt1d"):
        write_params(tmp_path / "params.yaml", ["experiment=toy", f"data={option}"])


def test_an_unknown_override_leaves_params_as_they_were(tmp_path: Path) -> None:
    out = tmp_path / "params.yaml"
    out.write_text("before")
    for override, told in (
        ("data=nope", r"data/nope is no option: known are .*azt1d"),
        ("data=azt1", r"data/azt1 is no option: did you mean azt1d\?"),
        ("train.sead=1", r"^train\.sead is no key of the configuration: did you mean train\.seed\?$"),
        ("trian.seed=1", r"trian\.seed is no key .* did you mean train\.seed\?"),
        ("experiment=typo", "experiment/typo is no option"),
        ("data.path=[", "does not compose"),
    ):
        with pytest.raises(ConfigError, match=told):
            write_params(out, [override])
    assert out.read_text() == "before"


def test_no_secret_can_reach_params() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert "oc.env" not in file.read_text(), file
        assert "${hydra:" not in file.read_text(), file


def test_names_are_those_of_the_constructors() -> None:
    """The YAML is the constructor call: a default hidden in code that the YAML also has would be a second truth."""
    node: Any = yaml.safe_load((ROOT / "conf" / "train" / "standard.yaml").read_text())
    import dataclasses

    from hallmark.learn.trainer import TrainConfig

    assert {f.name for f in dataclasses.fields(TrainConfig)} == set(node) - {"_target_"}


@pytest.mark.parametrize("group", ["personalise", "calibrate"])
def test_null_takes_a_group_away(group: str, tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml", [f"{group}=null"])
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())[group] is None
