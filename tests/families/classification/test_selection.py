"""Every way of choosing columns keeps what tells and drops what does not."""

from typing import Any

import numpy as np
import pytest

from hallmark.families.classification.selection import (
    ByCorrelation,
    ByImportance,
    ByL1,
    Everything,
    Recursive,
    standardised,
)


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Columns 0 and 2 tell, 1 repeats 0, 3 is constant, the others are noise; some values are missing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 8))
    x[:, 1] = x[:, 0] * 2 + 1
    x[:, 3] = 7
    y = (x[:, 0] - x[:, 2] + 0.3 * rng.normal(size=800) > 0).astype(int)
    x[rng.random(x.shape) < 0.02] = np.nan
    return x, y


def test_everything_is_everything(sample: tuple[np.ndarray, np.ndarray]) -> None:
    assert Everything().choose(*sample, 0) == list(range(8))


def test_of_twins_the_first_stays_and_constants_go(sample: tuple[np.ndarray, np.ndarray]) -> None:
    assert ByCorrelation(0.9).choose(*sample, 0) == [0, 2, 4, 5, 6, 7]
    assert ByCorrelation(1.0).choose(np.ones((5, 2)), np.arange(5), 0) == []


@pytest.mark.parametrize("way", [ByImportance(3), Recursive(3, 0.3), ByL1(0.05)])
def test_what_tells_is_kept(sample: tuple[np.ndarray, np.ndarray], way: Any) -> None:
    chosen = way.choose(*sample, 0)
    assert 2 in chosen
    assert {0, 1} & set(chosen)
    assert len(set(chosen) & {3, 4, 5, 6, 7}) <= 1
    assert chosen == sorted(chosen) == way.choose(*sample, 0)


def test_what_is_missing_becomes_the_mean() -> None:
    found = standardised(np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0], [0, 0]])
