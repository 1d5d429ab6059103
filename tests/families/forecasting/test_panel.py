"""The grid: windows are views, never span gaps, and targets are always real."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.errors import DataError
from hallmark.families.forecasting.panel import TimeGrid, build_panel

GRID = TimeGrid(5, 6, 12, (5, 10, 30), bridged_intervals=3, max_interval_minutes=16)


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
        first = last - GRID.recent_length + 1
        for before, after in pairwise(found):
            if first <= before and after <= last:
                assert after - before <= allowed(found, after)


def allowed(found: list[int], reading: int) -> int:
    """Steps that may lie before a reading: three of the sensor's own intervals, told by the last distances."""
    distances = [b - a for a, b in pairwise(found) if b <= reading][-48:]
    if len(distances) < 12:  # the first readings share the first estimate
        distances = [b - a for a, b in pairwise(found)][:12]
    own = statistics.median(distances) if len(distances) >= 12 else 1
    return max(1, math.ceil(3 * min(own, 16 / 5) - 0.1))


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


def slow(jitter: bool, count: int = 200) -> list[int]:
    """A sensor of 15 minutes, whose clock gains so that some steps become 20 minutes."""
    minutes = np.arange(count) * (15.2 if jitter else 15.0)
    return sorted(set(np.floor(minutes / 5 + 0.5).astype(int).tolist()))


@pytest.mark.parametrize("jitter", [False, True])
def test_a_gap_is_a_multiple_of_the_sensors_own_interval(jitter: bool) -> None:
    slots_ = slow(jitter)
    panel = build_panel(frame(slots_), "value", GRID)
    assert panel.interval_minutes.tolist() == [15]
    assert len(panel.origins) == len(slots_) - 2  # all but those before the first half hour
    lost = [s for i, s in enumerate(slots_) if i not in (50, 51)]  # two in a row: 45 minutes
    assert len(build_panel(frame(lost), "value", GRID).origins) == len(lost) - 2
    lost = [s for i, s in enumerate(slots_) if i not in (50, 51, 52, 53)]
    assert len(build_panel(frame(lost), "value", GRID).origins) < len(lost) - 2


def test_a_sensor_that_is_changed_takes_its_interval_along() -> None:
    fast, later = list(range(300)), [300 + s for s in slow(True)]
    panel = build_panel(frame([*fast, *later]), "value", GRID)
    assert panel.interval_minutes.tolist() == [5]
    new = panel.minute[panel.origins] // 5 - panel.minute[panel.subject >= 0][0] // 5
    assert np.isin(later[60:], new).all()


def test_a_record_without_a_rhythm_is_not_bridged() -> None:
    hourly = build_panel(frame(list(range(0, 2000, 12))), "value", GRID)
    assert not len(hourly.origins)


def test_a_request_tells_the_same_interval_as_the_record() -> None:
    found = slow(True, 400)
    whole = build_panel(frame(found), "value", GRID)
    part = build_panel(frame([s for s in found if s > found[-1] - 576]), "value", GRID)
    there = whole.filled[whole.subject >= 0][-500:]
    np.testing.assert_array_equal(there, part.filled[part.subject >= 0][-500:])


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
    with pytest.raises(ValueError, match=r"horizons_minutes|at least 1 item"):
        TimeGrid(5, 6, 12, bad, 3, 16)
