"""The guard acts on what is surely too much, and hardly ever on what is not."""

import pytest
from scipy.stats import binom

from hallmark.watch.guard import GuardRule, Seen, judge

RULE = GuardRule(fewest_rows=20, failed_share=0.02, more_fallbacks=0.1, error_rate=0.001)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen(), ""),
        (Seen(1000, 0), ""),
        (Seen(19, 19), ""),  # too few to decide
        (Seen(20, 20), "20 of its 20 rows failed, which is surely more than 2%"),
        (Seen(100, 4), ""),
        (Seen(1000, 60), "60 of its 1000 rows failed"),
        (Seen(5, 0, wrong=1), "the witness found 1 of its answers to be wrong"),
    ],
)
def test_what_is_surely_too_much_is_told(seen: Seen, told: str) -> None:
    found = judge(seen, Seen(), RULE)
    assert found.startswith(told)
    assert bool(found) == bool(told)


@pytest.mark.parametrize("rows", [20, 100, 1000])
def test_a_version_that_fails_as_often_as_it_may_is_hardly_ever_told(rows: int) -> None:
    told = [failed for failed in range(rows + 1) if judge(Seen(rows, failed), Seen(), RULE)]
    assert sum(binom.pmf(failed, rows, RULE.failed_share) for failed in told) <= RULE.error_rate


@pytest.mark.parametrize(
    ("seen", "before", "is_told"),
    [
        (Seen(20, fallbacks=20), Seen(30), True),
        (Seen(20, fallbacks=20), Seen(), False),  # nothing to compare with
        (Seen(12, fallbacks=12), Seen(30), False),
        (Seen(50, failed=50), Seen(50, failed=50), False),  # the version before failed as much
        (Seen(50, failed=50), Seen(50), True),
        (Seen(100, fallbacks=30), Seen(100, fallbacks=30), False),
        (Seen(400, fallbacks=200), Seen(400, fallbacks=40), True),
    ],
)
def test_fallbacks_count_beside_those_of_the_version_before(seen: Seen, before: Seen, is_told: bool) -> None:
    assert bool(judge(seen, before, RULE)) == is_told
