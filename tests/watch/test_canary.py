"""The canary's evidence against numeric integration, and its error rates."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from benchmarks.operate_canary import RULE, first_day, simulate
from hallmark.watch.canary import _evidence, judge_canary


def rolled_back(seen: pd.DataFrame) -> bool:
    return judge_canary(seen, RULE).decision == "roll_back"


def test_evidence_is_the_ratio_of_likelihoods_averaged_over_effects() -> None:
    mean, error, effect = 0.12, 0.05, 0.1

    def weighted(true: float) -> float:
        return float(stats.norm.pdf(mean, true, error) * stats.norm.pdf(true, 0, effect))

    expected = integrate.quad(weighted, -2, 2, points=[0, mean])[0] / stats.norm.pdf(mean, 0, error)
    assert _evidence(mean, error, 10_000_000, effect) == pytest.approx(expected, rel=1e-4)
    assert _evidence(-mean, error, 20, effect) == 1.0
    assert _evidence(mean, error, 5, effect) < expected  # five subjects say less than many


def test_an_equal_challenger_stays_and_a_worse_one_goes_by_day_five() -> None:
    assert [first_day(simulate(seed, 0.0), rolled_back) for seed in range(40)] == [None] * 40
    days = [first_day(simulate(seed, 0.15), rolled_back) for seed in range(40)]
    assert sum(day is not None and day <= 5 for day in days) >= 36


def test_the_standard_error_counts_subjects_not_days() -> None:
    generator = np.random.default_rng(0)
    own = np.repeat(generator.normal(0, 1, 10), 50)
    champion = generator.normal(5, 1, 500)
    people = np.repeat([f"p{number}" for number in range(10)], 50)
    losses = pd.DataFrame({"subject_id": people, "champion": champion, "challenger": champion + own})
    result = judge_canary(losses, RULE)
    means = own[::50] / champion.std(ddof=1)
    assert result.standard_error == pytest.approx(means.std(ddof=1) / np.sqrt(10))
    assert result.difference == pytest.approx(means.mean())


def test_days_without_outcomes_count_for_neither_model() -> None:
    losses = simulate(1, 1.0)
    unknown = losses.assign(challenger=np.nan)
    result = judge_canary(unknown, RULE)
    assert (result.decision, result.pairs, result.evidence) == ("continue", 0, 1.0)
    assert "0 subject-days of 0 subjects have outcomes" in result.reason
    some = pd.concat([losses.head(200), unknown])
    assert judge_canary(some, RULE) == judge_canary(losses.head(200), RULE)
