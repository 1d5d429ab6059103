"""Scores of forecasts against plain numpy."""

import numpy as np
import pandas as pd
import pytest

from hallmark.families.forecasting.panel import TimeGrid
from hallmark.families.forecasting.scores import score_events, score_points, score_quantiles
from hallmark.judge.bootstrap import interval, summarise

GRID = TimeGrid(5, 6, 12, (5, 10, 60, 120), 3, 16)
LEVELS = (0.05, 0.5, 0.95)


def test_path_pools_every_step_and_marks_do_not() -> None:
    mean = np.zeros((2, 4), dtype=np.float32)
    target = np.asarray([[1, 2, 3, 10], [1, 2, np.nan, 10]], dtype=np.float32)
    found = {(m, at): value for m, at, value, _ in score_points(mean, target, GRID, (60, 120), 60)}
    assert found["rmse", "60"] == 3
    assert found["rmse", "120"] == 10
    assert found["rmse", "path-60"] == pytest.approx(np.sqrt((1 + 4 + 9 + 1 + 4) / 5))
    assert found["mae", "path-60"] == pytest.approx((1 + 2 + 3 + 1 + 2) / 5)


def test_coverage_width_and_pinball_are_their_definitions() -> None:
    generator = np.random.default_rng(0)
    q = np.sort(generator.normal(size=(200, 4, 3)), axis=-1).astype(np.float32)
    y = generator.normal(size=(200, 4)).astype(np.float32)
    y[5] = np.nan
    found = {(m, at): value for m, at, value, _ in score_quantiles(q, y, LEVELS, GRID, (60,))}
    there = ~np.isnan(y[:, 2])
    inside = (y[:, 2] >= q[:, 2, 0]) & (y[:, 2] <= q[:, 2, 2])
    assert found["coverage_90", "60"] == pytest.approx(inside[there].mean())
    assert found["width_90", "60"] == pytest.approx((q[:, 2, 2] - q[:, 2, 0])[there].mean(), rel=1e-5)
    error = y[there, 2][:, None] - q[there, 2]
    level = np.asarray(LEVELS)
    assert found["pinball", "60"] == pytest.approx(np.maximum(level * error, (level - 1) * error).mean(), rel=1e-5)


def test_an_event_that_never_happened_has_no_recall() -> None:
    said, was = np.asarray([True, False, True]), np.asarray([False, False, False])
    rows = score_events({"hypo": said}, {"hypo": was}, np.ones(3, dtype=bool), "30")
    assert [(m, v) for m, _, v, _ in rows] == [("hypo_precision", 0.0)]


def test_every_person_counts_once() -> None:
    rows = [("a", "m", "rmse", "60", "all", 1.0, 1000), ("b", "m", "rmse", "60", "all", 3.0, 1)]
    columns = ["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]
    assert summarise(pd.DataFrame(rows, columns=columns))["mean"].iloc[0] == 2.0


def test_the_bootstrap_interval_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
