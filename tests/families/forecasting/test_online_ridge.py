"""The linear adapter: a day added to the state is the same as everything from the start."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hallmark.families.forecasting.history import build_history
from hallmark.families.forecasting.online_ridge import OnlineRidge, TrainingWindows, training_windows
from hallmark.families.forecasting.panel import Integers, build_panel


@pytest.fixture(scope="module")
def windows(task: Any, learner: Any, prepared: Any) -> tuple[Any, TrainingWindows]:
    panel = task.split_panel(prepared).panel
    return panel, training_windows(panel, panel.origins, learner.history.ridge, task.scale, lambda o: nothing(panel, o))


def nothing(panel: Any, origins: Integers) -> Any:
    return np.zeros((len(origins), len(panel.grid.steps)), dtype=np.float32)


def not_fitted(learner: Any, panel: Any, found: TrainingWindows) -> OnlineRidge:
    return OnlineRidge(learner.history.ridge, panel.grid, len(panel.subjects), found.x.shape[1])


def teach(state: OnlineRidge, found: TrainingWindows, day: int) -> None:
    """One midnight for everybody."""
    first = np.full(state.subjects, day)
    assert list(state.replay(found, first, np.ones_like(first))) == [0]


def same(one: OnlineRidge, other: OnlineRidge) -> None:
    for name, array in one.tensors().items():
        np.testing.assert_array_equal(array, other.tensors()[name], err_msg=name)


def test_a_day_added_to_a_stored_state_is_as_if_it_had_always_been_there(
    task: Any, learner: Any, prepared: Any, windows: tuple[Any, TrainingWindows], tmp_path: Any
) -> None:
    panel, found = windows
    days = np.unique(found.day)
    whole = not_fitted(learner, panel, found)
    for day in days[:9]:
        teach(whole, found, int(day))
    yesterday = not_fitted(learner, panel, found)
    for day in days[:8]:
        teach(yesterday, found, int(day))
    save_file(yesterday.tensors(), str(tmp_path / "state.safetensors"))
    today = not_fitted(learner, panel, found)
    today.restore(load_file(str(tmp_path / "state.safetensors")))
    # What came with the day: a panel of the last days alone, not older than a window's context and horizon.
    since = (prepared.rows["timestamp"].to_numpy().astype("datetime64[D]").astype(int)) >= days[8] - 5
    recent = build_panel(prepared.rows[since], "glucose_mg_dl", task.grid)
    fresh = training_windows(recent, recent.origins, learner.history.ridge, task.scale, lambda o: nothing(recent, o))
    assert len(fresh.subject) < len(found.subject)
    teach(today, fresh, int(days[8]))
    same(whole, today)
    assert not np.array_equal(yesterday.weights, today.weights)


def test_a_subject_learns_the_same_whoever_else_is_there(task: Any, learner: Any, prepared: Any) -> None:
    def taught_by(rows: Any) -> Any:
        panel = build_panel(rows, "glucose_mg_dl", task.grid)
        found = build_history(panel, learner.history, task.scale, lambda o: nothing(panel, o))
        code = panel.subjects.index(names[1])
        return found.weights[found.first_row[code] : found.first_row[code] + found.days[code]]

    names = sorted(prepared.rows["subject_id"].unique())
    both = prepared.rows[prepared.rows["subject_id"].isin(names[:2])]
    alone = both[both["subject_id"] == names[1]]
    shorter = both.drop(index=both.index[both["subject_id"] == names[0]][0])
    expected = taught_by(alone)
    assert expected.any()
    for rows in (both, shorter):
        np.testing.assert_allclose(taught_by(rows), expected, rtol=1e-4, atol=1e-5)


def test_a_midnight_is_fitted_once(task: Any, learner: Any, windows: tuple[Any, TrainingWindows]) -> None:
    panel, found = windows
    state, day = not_fitted(learner, panel, found), int(found.day.min())
    teach(state, found, day)
    before = {name: array.copy() for name, array in state.tensors().items()}
    teach(state, found, day)
    for name, array in state.tensors().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert state.windows.any()


def test_a_subject_without_further_days_is_fitted_no_further(
    task: Any, learner: Any, windows: tuple[Any, TrainingWindows]
) -> None:
    panel, found = windows
    first = np.full(len(panel.subjects), int(found.day.min()))
    days = np.full(len(panel.subjects), 6)
    days[0] = 4
    state = not_fitted(learner, panel, found)
    assert list(state.replay(found, first, days)) == list(range(6))
    other = not_fitted(learner, panel, found)
    list(other.replay(found, first, np.full_like(days, 4)))
    np.testing.assert_array_equal(state.gram[0], other.gram[0])
    assert not np.array_equal(state.gram[1], other.gram[1])
    assert state.last_day.tolist() == (first + days - 1).tolist()


def test_room_for_more_changes_no_subject(task: Any, learner: Any, windows: tuple[Any, TrainingWindows]) -> None:
    panel, found = windows
    state = not_fitted(learner, panel, found)
    teach(state, found, int(found.day.min()))
    places = np.arange(state.subjects) + 1
    grown = state.with_more_subjects(places, state.subjects + 2)
    for name, array in grown.tensors().items():
        np.testing.assert_array_equal(array[places], state.tensors()[name], err_msg=name)
    assert grown.last_day[[0, -1]].tolist() == [-1, -1]
    assert not grown.gram[[0, -1]].any()


def test_subjects_fitted_together_get_what_each_gets_alone(
    task: Any, learner: Any, windows: tuple[Any, TrainingWindows]
) -> None:
    panel, found = windows
    together = not_fitted(learner, panel, found)
    for day in np.unique(found.day)[:9]:
        teach(together, found, int(day))
    mine = found.subject == 1
    own = TrainingWindows(np.zeros(mine.sum(), dtype=np.int64), found.day[mine], found.x[mine], found.y[mine])
    alone = OnlineRidge(learner.history.ridge, panel.grid, 1, found.x.shape[1])
    for day in np.unique(found.day)[:9]:
        teach(alone, own, int(day))
    np.testing.assert_allclose(together.weights[1], alone.weights[0], rtol=1e-5, atol=1e-6)
    assert np.abs(alone.weights).max() > 0


def test_unknown_targets_change_nothing(task: Any, learner: Any, windows: tuple[Any, TrainingWindows]) -> None:
    panel, found = windows
    blind = dataclasses.replace(found, y=np.full_like(found.y, np.nan))
    state = not_fitted(learner, panel, blind)
    for day in np.unique(found.day)[:6]:
        teach(state, blind, int(day))
    assert not state.weights.any()
    assert not state.residual(task.scale).any()


def test_a_state_of_other_settings_is_refused(task: Any, learner: Any, windows: tuple[Any, TrainingWindows]) -> None:
    panel, found = windows
    state = not_fitted(learner, panel, found)
    other = OnlineRidge(learner.history.ridge, panel.grid, len(panel.subjects) + 1, found.x.shape[1])
    with pytest.raises(ValueError, match=r"state gram has shape .* these settings take"):
        state.restore(other.tensors())
