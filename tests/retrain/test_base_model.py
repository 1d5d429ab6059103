"""A base model that was trained again: the rows it is trained on, the comparison, and what serves afterwards."""

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hallmark.build import build
from hallmark.errors import BundleError, ConfigError
from hallmark.prove.bundle import read_hallmark
from hallmark.prove.serving import ServedVersions
from hallmark.records import audit
from hallmark.retrain.base_model import (
    OBSERVED,
    Training,
    challenge_base,
    deploy_base,
    next_try,
    write_observed,
)
from hallmark.retrain.decide import cutoff
from hallmark.retrain.start import Champion, open_champion
from hallmark.watch.retraining import Challenged, RetrainRule
from runtime.compose import compose_operation
from tests.retrain.conftest import NOW
from tests.retrain.test_retrain import PEOPLE, TIMES, whatever
from tests.served import Service
from tests.toys import ROOT, another_version

BETTER = Challenged(True, "improved", "its loss is smaller", -0.1, -0.05, 9, 3)


def test_nothing_is_trained_unless_a_file_of_conf_base_is_chosen() -> None:
    assert compose_operation([]).get("base") is None
    training = build(compose_operation(["base=observed"]))["base"]
    assert training == Training(("data=table", f"data.path={OBSERVED}"), 28)
    assert build(compose_operation(["base=same_data", "base.again_days=7"]))["base"] == Training((), 7)
    with pytest.raises(ConfigError, match="observe is no option: did you mean observed"):
        compose_operation(["base=observe"])


def test_rows_of_people_do_not_enter_git() -> None:
    for file in (OBSERVED, OBSERVED.with_name(f".{OBSERVED.name}")):
        done = subprocess.run(["git", "check-ignore", "--quiet", str(file)], cwd=ROOT, check=False)
        assert done.returncode == 0, file


def test_the_days_that_are_held_out_are_not_trained_on(service: Service, champion: Champion, rule: RetrainRule) -> None:
    training = Training((f"data.path={OBSERVED}",), 28)
    OBSERVED.parent.mkdir(parents=True)
    OBSERVED.write_text("of before")
    with pytest.raises(ConfigError, match="no recorded answer of glucose holds rows to learn from: keep requests"):
        write_observed(service.database, champion, training, rule, NOW)
    assert not OBSERVED.exists(), "whose retention may have passed"
    service.answer(PEOPLE, TIMES, whatever)
    assert write_observed(service.database, champion, Training((), 28), rule, NOW) == 0
    count = write_observed(service.database, champion, training, rule, NOW)
    rows = pd.read_parquet(OBSERVED)
    assert len(rows) == count > 0
    assert set(rows["subject_id"]) == set(PEOPLE)
    last = cutoff(rule, NOW).replace(tzinfo=None)
    assert last - timedelta(hours=1) < rows["timestamp"].max() < last
    assert "known_at" not in rows


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_model_that_is_no_better_never_serves_and_the_next_training_waits(
    service: Service, champion: Champion, rule: RetrainRule, bundle: Path, tmp_path: Path
) -> None:
    service.answer(PEOPLE, TIMES, whatever)
    same = another_version(bundle, tmp_path / "same", "same")
    found = challenge_base(service.database, champion, same, rule, NOW)
    assert (found.deploys, found.why, found.difference) == (False, "no_improvement", 0.0)
    assert found.subjects == 3
    training = Training(settings=(), again_days=28)
    assert next_try(service.database, champion, training, NOW) is None
    deployed = deploy_base(service.database, champion, same, found)
    assert not deployed.serves
    assert deployed.text.startswith("the base model of glucose was trained again, and was not deployed: its loss is +0")
    assert open_champion(champion.pointer).digest == champion.digest
    [entry] = audit.entries(service.database, 1)
    assert (entry["action"], entry["object"]) == ("base_rejected", champion.trained)
    then = next_try(service.database, champion, training, entry["at"].astimezone())
    assert then is not None
    assert then - entry["at"].astimezone() == timedelta(days=28)
    assert next_try(service.database, champion, training, then) is None


def test_who_was_fitted_on_the_held_out_days_is_no_judge_if_enough_others_are(
    service: Service, champion: Champion, rule: RetrainRule, bundle: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    everybody = [f"sim-{number:03}" for number in range(6)]
    service.answer(everybody, TIMES, whatever)
    same = another_version(bundle, tmp_path / "same", "same")
    newest = {who: NOW.replace(tzinfo=None) - timedelta(days=9) for who in everybody}

    def subjects(fitted: int) -> int:
        known = {**newest, **dict.fromkeys(everybody[:fitted], NOW.replace(tzinfo=None))}
        monkeypatch.setattr(type(champion.learner), "known_until", lambda self, state: known)
        return challenge_base(service.database, champion, same, rule, NOW).subjects

    assert [subjects(fitted) for fitted in (0, 1, 2)] == [6, 5, 6]


def test_a_better_one_serves_and_a_rollback_meanwhile_wins(
    service: Service, champion: Champion, bundle: Path, tmp_path: Path
) -> None:
    better = another_version(bundle, tmp_path / "better", "better")
    assert deploy_base(service.database, champion, better, BETTER).text.endswith(": its loss is smaller")
    assert open_champion(champion.pointer).trained == read_hallmark(better)[1]
    versions = ServedVersions("glucose", tmp_path / "served")
    third = another_version(bundle, tmp_path / "third", "third")
    with pytest.raises(BundleError, match="serves meanwhile"):
        deploy_base(service.database, champion, third, BETTER)
    assert versions.digest() == read_hallmark(better)[1][:16]


def test_a_training_with_the_same_result_is_no_improvement(service: Service, champion: Champion) -> None:
    deployed = deploy_base(service.database, champion, Path("bundle"), BETTER)
    assert not deployed.serves
    assert deployed.text.endswith("the training had the same result as before")
