"""Window inputs: their columns have names, whatever the grid."""

import numpy as np
import pytest

from hallmark.families.forecasting.inputs import FINE, QUARTER, window_columns, window_inputs
from hallmark.families.forecasting.panel import TimeGrid, ValueScale

SCALE = ValueScale(center=140, spread=50, low=70, high=180)


def grid(recent: int, context: int, step: int = 5) -> TimeGrid:
    """A grid with one horizon."""
    return TimeGrid(step, recent, context, (step,), 3, 3 * step)


@pytest.mark.parametrize(("recent", "context", "step"), [(144, 576, 5), (72, 288, 5), (144, 300, 5), (48, 96, 60)])
def test_named_columns_are_where_their_readings_move_them(recent: int, context: int, step: int) -> None:
    """The oracle moves one reading at a time and looks which columns follow."""
    generator = np.random.default_rng(0)
    values = generator.normal(140, 30, (1, context)).astype(np.float32)
    minute, found = np.zeros(1, dtype=np.int64), grid(recent, context, step)
    before, columns = window_inputs(values, minute, found, SCALE)[0], window_columns(found)
    assert [c.start for c in columns.values()][1:] == [c.stop for c in columns.values()][:-1]
    assert list(columns.values())[-1].stop == len(before)

    def moved(place: int) -> set[str]:
        other = values.copy()
        other[0, place] += 25
        changed = np.flatnonzero(window_inputs(other, minute, found, SCALE)[0] != before)
        return {name for name, where in columns.items() for c in changed if where.start <= c < where.stop}

    assert "lags" in moved(context - FINE + 1)
    assert "lags" not in moved(context - FINE - QUARTER)
    assert "quarters" in moved(context - FINE - QUARTER)
    assert "quarters" not in moved(0)
    day = 24 * 60 // step
    if context > day + 2:  # the grid point after the one a day ago is the first of the coming hours as they were then
        assert "a day ago" in moved(context - day)
    assert columns["summaries"].stop - columns["summaries"].start == 15
    assert {"clock", "known"} & moved(context - 1) == set()
