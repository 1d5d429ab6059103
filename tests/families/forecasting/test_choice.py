"""A subject's choice between two methods: days are what is counted, and chance does not convince."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hallmark.families.forecasting.choice import compare

DAYS = np.repeat(np.arange(10), 20)


def test_a_steady_gain_convinces_and_a_lucky_day_does_not() -> None:
    before = np.ones(200, dtype=np.float32)
    steady = compare(before, before * 0.95, DAYS)
    assert abs(steady.gain - 0.05) < 1e-6
    assert steady.error < 1e-6
    assert steady.exceeds(0.01, 2.0)
    lucky = compare(before, np.where(DAYS == 3, 0.5, 1.0).astype(np.float32), DAYS)
    assert abs(lucky.gain - steady.gain) < 1e-6
    assert not lucky.exceeds(0.01, 1.5)


def test_many_windows_of_one_day_are_one_day() -> None:
    before = np.ones(500, dtype=np.float32)
    assert not compare(before, before * 0.5, np.zeros(500)).exceeds(0.0, 0.1)


def test_chance_rarely_convinces() -> None:
    generator = np.random.default_rng(0)
    share = []
    for _ in range(400):
        noise = generator.normal(size=10)[DAYS] * 0.05 + generator.normal(size=200) * 0.05
        share.append(compare(np.ones(200, dtype=np.float32), (1 + noise).astype(np.float32), DAYS).exceeds(0.0, 2.0))
    assert np.mean(share) < 0.08


def test_no_error_at_all_is_no_gain() -> None:
    nothing = np.zeros(4, dtype=np.float32)
    assert not compare(nothing, nothing, np.arange(4)).exceeds(0.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 100), st.floats(0.1, 2))
def test_the_unit_of_the_errors_does_not_matter(unit: float, change: float) -> None:
    generator = np.random.default_rng(1)
    before, after = generator.uniform(0.5, 1, 200), change * generator.uniform(0.5, 1, 200)
    one, other = compare(before, after, DAYS), compare(before * unit, after * unit, DAYS)
    np.testing.assert_allclose([one.gain, one.error], [other.gain, other.error], rtol=1e-6)
