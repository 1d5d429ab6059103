"""Personal context: the past and only the past, equal to what an independent oracle computes."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from hallmark.families.forecasting.history import build_history
from hallmark.families.forecasting.inputs import ridge_features
from hallmark.families.forecasting.panel import MINUTES_A_DAY, Integers


@pytest.fixture(scope="module")
def panel(task: Any, prepared: Any) -> Any:
    return task.split_panel(prepared).panel


@pytest.fixture(scope="module")
def history(task: Any, learner: Any, panel: Any) -> Any:
    return build_history(panel, learner.history, task.scale, lambda origins: nothing(panel, origins))


def nothing(panel: Any, origins: Integers) -> Any:
    """A population model that expects no change."""
    return np.zeros((len(origins), len(panel.grid.steps)), dtype=np.float32)


def test_a_scrambled_future_changes_no_row_of_the_past(task: Any, learner: Any, panel: Any, history: Any) -> None:
    middle = int(history.first_day.min()) + 8
    later = (panel.day >= middle) & ~np.isnan(panel.values)
    values = panel.values.copy()
    values[later] = np.random.default_rng(0).permutation(values[later])
    filled = np.where(later, values, panel.filled)
    other = dataclasses.replace(panel, values=values, filled=filled)
    changed = build_history(other, learner.history, task.scale, lambda origins: nothing(other, origins))
    for code in range(len(panel.subjects)):
        days = middle - int(history.first_day[code]) + 1
        rows = slice(int(history.first_row[code]), int(history.first_row[code]) + days)
        for name in ("statistics", "profile", "change", "weights", "other_weights", "residual"):
            np.testing.assert_allclose(getattr(history, name)[rows], getattr(changed, name)[rows], atol=1e-5)
    assert not np.allclose(history.statistics, changed.statistics)


def test_the_first_day_knows_nothing(history: Any) -> None:
    assert (history.statistics[history.first_row] == 0).all()
    assert (history.weights[history.first_row] == 0).all()


def test_the_online_ridge_is_a_ridge_on_the_windows_that_had_ended(
    task: Any, learner: Any, panel: Any, history: Any
) -> None:
    code, ahead = 0, 6
    day = int(history.first_day[code]) + ahead
    origins = panel.thinned(learner.history.ridge.stride, panel.origins[panel.subject[panel.origins] == code])
    ready = (panel.minute[origins] + learner.history.ridge.short_minutes) // MINUTES_A_DAY + 1
    past = origins[ready <= day]
    minute = panel.minute[past].astype(np.int64)
    x = ridge_features(panel.context(past), minute, panel.grid.recent_length, task.scale)
    h = panel.grid.index_of(60)
    y = panel.target(past)[:, h] - panel.values[past]
    there = ~np.isnan(y)
    y = np.clip(y, -learner.history.ridge.clip, learner.history.ridge.clip)
    penalty = learner.history.ridge.penalty / 3  # a young record
    share = len(y) / there.sum()
    gram = x.T.astype(float) @ x + penalty * np.eye(x.shape[1])
    expected = np.linalg.solve(gram, x[there].T.astype(float) @ y[there] * share)
    found = history.weights[history.first_row[code] + ahead][:, h]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    if there.all():
        oracle = Ridge(alpha=penalty, fit_intercept=False).fit(x.astype(float), y.astype(float))
        np.testing.assert_allclose(found, oracle.coef_, rtol=1e-3, atol=1e-3)


def test_statistics_are_those_of_the_last_days(task: Any, learner: Any, panel: Any, history: Any) -> None:
    code, ahead = 1, 5
    day = int(history.first_day[code]) + ahead
    past = (panel.subject == code) & (panel.day < day) & (panel.day >= day - learner.history.days)
    values = panel.values[past & ~np.isnan(panel.values)]
    found = history.statistics[history.first_row[code] + ahead]
    expected = [(values.mean() - task.scale.center) / task.scale.spread, values.std() / task.scale.spread]
    np.testing.assert_allclose(found[:2], expected, atol=1e-4)
    np.testing.assert_allclose(found[2], (values < task.scale.low).mean(), atol=1e-5)
    assert np.expm1(found[4]) == pytest.approx(ahead, abs=1e-4)


def test_the_rows_kept_for_serving_answer_as_the_whole(history: Any) -> None:
    kept = history.newest(2)
    today = int(history.first_day[2] + history.days[2] - 2)
    for day in (today, today + 1):
        whole = history.rows(np.asarray([2]), np.asarray([day]))[0]
        part = kept.rows(np.asarray([0]), np.asarray([day]))[0]
        np.testing.assert_array_equal(kept.weights[part], history.weights[whole])


def test_a_history_speaks_neither_before_it_was_known_nor_long_after(history: Any) -> None:
    kept = history.newest(2)
    today = int(kept.first_day[0])
    assert kept.knows(0, np.arange(today - 1, today + 7), 3).tolist() == [False, *[True] * 5, False, False]
