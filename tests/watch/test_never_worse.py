"""Bets on losses: what is expected of them without a difference, by counting every outcome; stops and returns."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from benchmarks.operate_never_worse import RULE
from hallmark.watch.never_worse import Day, Ledger, update

TESTS_ONLY = replace(RULE, budget=0.99)


def days(losses: list[tuple[float, float]], start: int = 0, covered: float | None = None) -> list[Day]:
    return [Day(start + number, adapter, base, covered) for number, (adapter, base) in enumerate(losses)]


def test_evidence_against_a_harmless_adapter_grows_by_one_a_day_on_average() -> None:
    """Averaged over all 2^9 ways in which an adapter can be better and worse, which are equally likely."""
    found = [
        update(Ledger(), days([(1.1, 1.0) if worse else (1.0, 1.1) for worse in outcome]), TESTS_ONLY)
        for outcome in product([False, True], repeat=9)
    ]
    assert np.mean([ledger.evidence["no_worse"] for ledger in found]) == pytest.approx(9)


def test_evidence_against_sufficient_coverage_grows_by_one_a_day_at_the_bound() -> None:
    miss = 1 - RULE.nominal_coverage + RULE.coverage_tolerance  # of 20 outcomes, 3 missed on average
    evidence, weights = [], []
    for outcome in product([0.0, 1.0], repeat=5):
        ledger = Ledger()
        for number, covered in enumerate(outcome):
            ledger = update(ledger, [Day(number, 1.0, 1.0, covered)], TESTS_ONLY)
        evidence.append(ledger.evidence["covers"])
        weights.append(np.prod([1 - miss if covered else miss for covered in outcome]))
    assert np.dot(evidence, weights) == pytest.approx(5)


def test_a_worse_adapter_is_stopped_and_a_better_one_is_not() -> None:
    worse = update(Ledger(), days([(1.3, 1.0)] * 60), TESTS_ONLY)
    assert worse.state == "stopped"
    assert worse.reason.startswith("worse than the base (e-value")
    better = update(Ledger(), days([(1.0, 1.1)] * 365), TESTS_ONLY)
    assert (better.state, better.reason) == ("serving", "")
    assert better.evidence["no_worse"] < 30


def test_an_adapter_that_was_good_for_months_is_stopped_as_fast_as_a_new_one() -> None:
    bad = days([(1.3, 1.0)] * 60)
    new = next(day.day for day in bad if update(Ledger(), bad[: day.day + 1], TESTS_ONLY).state == "stopped")
    good = update(Ledger(), days([(1.0, 1.1)] * 300), TESTS_ONLY)
    later = days([(1.3, 1.0)] * (new + 2), start=300)
    assert update(good, later, TESTS_ONLY).state == "stopped"


def test_the_budget_stops_what_no_test_has_noticed_yet() -> None:
    ledger = update(Ledger(), days([(1.5, 1.0)] * 4), RULE)
    assert (ledger.state, ledger.days) == ("stopped", 4)
    assert ledger.reason == "its losses beyond the base's passed 0.5% of a year's"
    assert ledger.excess == pytest.approx(2.0)


def test_intervals_that_cover_too_little_stop_an_adapter() -> None:
    assert update(Ledger(), days([(1.0, 1.0)] * 60, covered=0.9), RULE).state == "serving"
    ledger = update(Ledger(), days([(1.0, 1.0)] * 60, covered=0.3), RULE)
    assert ledger.reason.startswith("its intervals cover too little")


def test_a_stopped_adapter_returns_when_it_is_better_again() -> None:
    stopped = update(Ledger(), days([(1.3, 1.0)] * 60), TESTS_ONLY)
    assert stopped.state == "stopped"
    shadow = [Day(60 + number, 1.0, 1.2, served=False) for number in range(60)]
    assert update(stopped, [replace(day, adapter=1.2) for day in shadow], TESTS_ONLY).state == "stopped"
    back = update(stopped, shadow, TESTS_ONLY)
    assert back.state == "serving"
    assert back.reason.startswith("better than the base again")
    assert back.excess == stopped.excess  # what did not serve costs nothing and gains nothing


def test_a_day_that_is_added_twice_counts_once_and_a_loss_that_is_no_loss_is_refused() -> None:
    once = update(Ledger(), days([(1.0, 1.1)] * 5), RULE)
    again = update(once, days([(1.0, 1.1)] * 5), RULE)
    assert (again.days, again.excess) == (5, once.excess)
    np.testing.assert_array_equal(again.worse, once.worse)
    with pytest.raises(ValueError, match="losses of day 5 must be finite and at least 0: nan and 1"):
        update(once, [Day(5, float("nan"), 1.0)], RULE)
