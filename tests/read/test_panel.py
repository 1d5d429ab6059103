"""The grid: windows are views, never span gaps, and targets are always real."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.errors import DataError
from hallmark.read.panel import Grid, build_panel

GRID = Grid(step_minutes=5, recent_length=6, context_length=12, horizons_minutes=(5, 10, 30))


def frame(slots: list[int], subject: str = "a") -> pd.DataFrame:
    """Readings at some grid slots; the value is the slot."""
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.asarray(slots) * 5, unit="min")
    return pd.DataFrame({"subject_id": subject, "timestamp": times, "value": np.asarray(slots, dtype=float)})


slots = st.sets(st.integers(0, 400), min_size=1, max_size=150).map(sorted)


@settings(max_examples=60, deadline=None)
@given(slots)
def test_no_recent_window_spans_a_gap(found: list[int]) -> None:
    panel = build_panel(frame(found), "value", GRID)
    for origin, context in zip(panel.origins, panel.context(panel.origins), strict=True):
        assert not np.isnan(context[-GRID.recent_length :]).any()
        last = round(float(panel.values[origin]))
        real = [s for s in found if last - GRID.recent_length + 1 <= s <= last]
        assert max(np.diff([*real]), default=1) <= 3  # 15 minutes


@settings(max_examples=60, deadline=None)
@given(slots)
def test_every_target_is_a_real_reading_at_its_own_time(found: list[int]) -> None:
    panel = build_panel(frame(found), "value", GRID)
    target = panel.target(panel.origins)
    for row, origin in zip(target, panel.origins, strict=True):
        for value, step in zip(row, GRID.steps, strict=True):
            then = round(float(panel.values[origin])) + int(step)
            assert (then in found and value == then) or (then not in found and np.isnan(value))


def test_a_gap_of_fifteen_minutes_is_interpolated_and_a_longer_one_is_not() -> None:
    panel = build_panel(frame([0, 1, 4, 8]), "value", GRID)
    inside = panel.filled[panel.subject >= 0]
    assert inside[:5].tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(inside[5:8]).all()
    assert panel.interpolated_share == pytest.approx(2 / 6)


def test_a_pause_of_a_year_costs_no_memory() -> None:
    year = 365 * 288
    panel = build_panel(frame([0, 1, 2, year, year + 1]), "value", GRID)
    assert len(panel.values) < 100


def test_no_window_reaches_into_a_neighbour() -> None:
    rows = pd.concat([frame(list(range(30)), "a"), frame(list(range(1000, 1030)), "b")])
    panel = build_panel(rows, "value", GRID)
    first_of_b = panel.origins[panel.subject[panel.origins] == 1][0]
    context = panel.context(np.asarray([first_of_b]))[0]
    assert np.nanmin(context) >= 1000


def test_memory_grows_with_readings_not_with_windows() -> None:
    panel = build_panel(frame(list(range(5000))), "value", GRID)
    held = sum(a.nbytes for a in (panel.values, panel.filled, panel.minute, panel.subject))
    assert held < 5000 * 20
    assert len(panel.origins) > 4900


def test_two_readings_on_one_grid_point_are_refused() -> None:
    rows = pd.concat([frame([0, 1]), frame([1])])
    with pytest.raises(DataError, match="validate first"):
        build_panel(rows, "value", GRID)


def test_no_readings_are_refused() -> None:
    with pytest.raises(DataError, match="no readings"):
        build_panel(frame([0]).iloc[:0], "value", GRID)


@pytest.mark.parametrize("bad", [(), (10, 5), (7,), (5, 5)])
def test_horizons_must_ascend_on_the_grid(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="horizons_minutes"):
        Grid(5, 6, 12, bad)
