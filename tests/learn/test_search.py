"""The search: seeded, resumed where it stopped, pruned, and loud about another space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hallmark.errors import ConfigError
from hallmark.learn.search import Pruned, Range, SearchConfig, open_study, search, watch


def config(trials: int, high: float = 4.0) -> SearchConfig:
    return SearchConfig(trials, 0, 2, {"x": Range(-4.0, high, False, False), "n": Range(1, 8, False, True)})


def bowl(trial: Any, setting: Mapping[str, float]) -> float:
    return (setting["x"] - 1) ** 2 + (setting["n"] - 3) ** 2


def settings(journal: Path, trials: int) -> list[dict[str, float]]:
    study = open_study(config(trials), journal)
    search(config(trials), study, bowl, lambda trial: None)
    return [t.params for t in study.trials]


def test_a_resumed_study_tries_what_a_whole_one_tries(tmp_path: Path) -> None:
    whole = settings(tmp_path / "a.journal", 8)
    settings(tmp_path / "b.journal", 3)
    assert settings(tmp_path / "b.journal", 8) == whole
    assert len({tuple(sorted(s.items())) for s in whole}) == 8


def test_a_trial_that_a_kill_left_is_tried_again(tmp_path: Path) -> None:
    whole = settings(tmp_path / "a.journal", 5)
    study = open_study(config(5), tmp_path / "b.journal")

    def dies(trial: Any, setting: Mapping[str, float]) -> float:
        if trial.number == 2:
            raise KeyboardInterrupt
        return bowl(trial, setting)

    with pytest.raises(KeyboardInterrupt):
        search(config(5), study, dies, lambda trial: None)
    settings(tmp_path / "b.journal", 5)
    complete = [t.params for t in open_study(config(5), tmp_path / "b.journal").trials if t.state.name == "COMPLETE"]
    assert complete == whole


def test_whole_numbers_stay_whole_and_the_best_is_returned(tmp_path: Path) -> None:
    study = open_study(config(12), tmp_path / "j")
    best, value = search(config(12), study, bowl, lambda trial: None)
    assert isinstance(best["n"], int)
    assert value == min(t.value for t in study.trials)


def test_a_hopeless_trial_is_pruned(tmp_path: Path) -> None:
    study = open_study(config(5), tmp_path / "j")

    def attempt(trial: Any, setting: Mapping[str, float]) -> float:
        look = watch(trial)
        for step in range(1, 6):
            look(step, 1.0 if trial.number < 4 else 99.0)
        return 1.0 if trial.number < 4 else 99.0

    search(config(5), study, attempt, lambda trial: None)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4 + ["PRUNED"]


def test_another_space_is_refused(tmp_path: Path) -> None:
    open_study(config(2), tmp_path / "j")
    with pytest.raises(ConfigError, match=r"another tune\.space"):
        open_study(config(2, high=9.0), tmp_path / "j")


def test_watch_raises_nothing_on_unknown_losses(tmp_path: Path) -> None:
    study = open_study(config(2), tmp_path / "j")
    watch(study.ask())(1, float("nan"))
    assert issubclass(Pruned, Exception)
