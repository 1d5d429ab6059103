"""The drift alarm against a plain loop, on data without and with drift."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.operate_drift import QUIET, REFERENCE, RULE, cohort, ours
from hallmark.errors import DataError
from hallmark.watch.drift import Alarm, daily_figures, describe, find_alarms, freeze_reference

START = date(2026, 3, 1)
FEW = replace(RULE, repetitions=100)


def figures_of(values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> pd.DataFrame:
    days = pd.Index([START + timedelta(days=number) for number in range(len(values))], name="day")
    return pd.DataFrame(values, index=days, columns=[f"f{number}" for number in range(values.shape[1])])


def plain_cusum(values: list[float], allowance: float, threshold: float) -> list[int]:
    """The textbook's two sums, one day after the other."""
    high = low = 0.0
    alarms = []
    for number, value in enumerate(values):
        if not np.isnan(value):
            high, low = max(0.0, high + value - allowance), max(0.0, low - value - allowance)
        if max(high, low) > threshold:
            alarms.append(number)
            high = low = 0.0
    return alarms


def test_alarms_are_those_of_the_plain_sums() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(160, 3))
    values[100:, 0] += 2.0
    values[generator.random((160, 3)) < 0.1] = np.nan
    figures = figures_of(values)
    reference = freeze_reference(figures, FEW)
    found = find_alarms(figures, reference, FEW)
    for column, name in enumerate(figures):
        usual = values[:60, column]
        deviations = (values[60:, column] - np.nanmean(usual)) / np.nanstd(usual, ddof=1)
        expected = plain_cusum(list(deviations), FEW.allowance, reference.threshold)
        assert [(alarm.day - START).days - 60 for alarm in found if alarm.feature == name] == expected
    first = next(alarm for alarm in found if alarm.feature == "f0" and alarm.day >= START + timedelta(days=100))
    assert first.since >= START + timedelta(days=98)
    assert first.shift > 1


def test_a_month_without_drift_rarely_alarms_and_a_shift_is_found_within_three_days() -> None:
    cohorts = [ours(cohort(seed, 50)) for seed in range(1000, 1006)]
    quiet = sum(int(alarms[REFERENCE : REFERENCE + QUIET].sum()) for alarms in cohorts)
    assert quiet <= 6 * QUIET / 30  # one a month, over ten features
    assert all(alarms[REFERENCE + QUIET : REFERENCE + QUIET + 3].any(axis=0).all() for alarms in cohorts)


def test_a_lower_bound_of_false_alarms_gives_a_higher_threshold_and_a_seed_the_same_one() -> None:
    figures = figures_of(np.random.default_rng(0).normal(size=(60, 2)))
    often, seldom = (freeze_reference(figures, replace(FEW, false_alarms_a_month=a)).threshold for a in (1.0, 0.1))
    assert seldom > often
    assert freeze_reference(figures, replace(FEW, false_alarms_a_month=1.0)).threshold == often


def test_a_subject_with_many_readings_counts_as_one_and_days_without_readings_stay_unknown() -> None:
    rows = pd.DataFrame(
        {
            "subject_id": ["a"] * 9 + ["b", "a"],
            "day": [START] * 10 + [START + timedelta(days=2)],
            "x": [1.0] * 9 + [3.0, 5.0],
        }
    )
    figures = daily_figures(rows, ["x"])
    assert list(figures.index) == [START + timedelta(days=number) for number in range(3)]
    np.testing.assert_array_equal(figures["x"], [2.0, np.nan, 5.0])


def test_a_reference_that_says_nothing_is_refused() -> None:
    values = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(DataError, match="59 days of figures, reference_days=60"):
        freeze_reference(figures_of(values[:59]), FEW)
    with pytest.raises(DataError, match="'f1' never changes"):
        freeze_reference(figures_of(np.column_stack([values[:, 0], np.ones(60)])), FEW)
    values[:40, 0] = np.nan
    with pytest.raises(DataError, match="'f0' has values on 33% of"):
        freeze_reference(figures_of(values), FEW)


def test_an_alarm_says_what_since_when_and_how_much() -> None:
    text = describe(Alarm("mean glucose", START + timedelta(days=2), START, -2.25))
    assert text == ("mean glucose deviates by -2.2 standard deviations of the reference days since 2026-03-01 (3 days)")
