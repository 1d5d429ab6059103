"""Conformal intervals: nominal coverage on exchangeable data, shrunk for short histories, always in order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.families.forecasting.intervals import (
    CalibrateConfig,
    conformal_quantiles,
    conformity_scores,
    daily_offsets,
    pairs,
    widen,
)
from hallmark.families.forecasting.panel import TimeGrid

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
GRID = TimeGrid(5, 6, 12, (15, 30), 3, 16)


def test_levels_pair_symmetrically_widest_first() -> None:
    assert [(low, high, round(nominal, 3)) for low, high, nominal in pairs(LEVELS)] == [
        (0, 6, 0.9),
        (1, 5, 0.8),
        (2, 4, 0.5),
    ]


def test_offsets_bring_too_narrow_intervals_to_nominal_coverage() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=(8000, 2)).astype(np.float32)
    narrow = 0.6 * np.asarray([-1.645, -1.282, -0.674, 0, 0.674, 1.282, 1.645], dtype=np.float32)
    q = np.broadcast_to(narrow, (8000, 2, 7)).copy()
    offset = conformal_quantiles(conformity_scores(q[:4000], y[:4000], LEVELS), LEVELS)
    wide = widen(q[4000:], np.broadcast_to(offset, (4000, *offset.shape)), LEVELS)
    for low, high, nominal in pairs(LEVELS):
        inside = (y[4000:] >= wide[..., low]) & (y[4000:] <= wide[..., high])
        assert abs(inside.mean() - nominal) < 0.02


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.45, 3), min_size=3, max_size=3))
def test_widened_quantiles_never_cross(values: list[float]) -> None:
    generator = np.random.default_rng(1)
    q = np.sort(generator.normal(size=(50, 2, 7)), axis=-1).astype(np.float32)
    offset = np.broadcast_to(np.asarray(values, dtype=np.float32)[None, :, None], (50, 3, 2))
    assert (np.diff(widen(q, offset, LEVELS), axis=-1) >= 0).all()


def test_a_person_without_scores_gets_the_populations_offset() -> None:
    population = np.full((3, 2), 0.25, dtype=np.float32)
    config = CalibrateConfig(pseudo_count=30, stride=3, half_life_days=4, n_jobs=1)
    none = np.empty((0, 3, 2), dtype=np.float32)
    found = daily_offsets(none, np.empty((0, 2), dtype=np.int64), np.arange(3), population, GRID, config, LEVELS)
    np.testing.assert_array_equal(found, np.broadcast_to(population, (3, 3, 2)))


def test_a_day_uses_only_scores_that_were_known_before_it() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=(400, 3, 2)).astype(np.float32)
    ready = np.repeat(np.arange(1, 5), 100)[:, None].repeat(2, axis=1)
    population = np.zeros((3, 2), dtype=np.float32)
    config = CalibrateConfig(pseudo_count=30, stride=3, half_life_days=4, n_jobs=1)
    before = daily_offsets(values, ready, np.arange(1, 5), population, GRID, config, LEVELS)
    changed = values.copy()
    changed[200:] += 100
    after = daily_offsets(changed, ready, np.arange(1, 5), population, GRID, config, LEVELS)
    np.testing.assert_array_equal(before[:2], after[:2])
    assert not np.allclose(before[2:], after[2:])
