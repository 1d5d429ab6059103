"""Unusual stretches come as rarely by chance as is said, what is there is found, and no sentence is a medical one."""

from datetime import datetime

import numpy as np
import pytest

from hallmark.families.forecasting.insight import FEWEST_DAYS, PAST_DAYS, insights, patterns, unusual_stretches
from hallmark.wording import clinical_statements

FIRST = np.datetime64("2026-03-02T00:00")
A_DAY = 288


def series(days: int, seed: int, level: float = 0.0, hours: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, np.ndarray]:
    """Days with noise that lasts for hours, and a level that is added in some hours of every day."""
    rng = np.random.default_rng(seed)
    times = FIRST + np.arange(days * A_DAY) * np.timedelta64(5, "m")
    noise = np.repeat(rng.normal(0, 20, days * 8), A_DAY // 8) + rng.normal(0, 8, days * A_DAY)
    hour = (np.arange(days * A_DAY) % A_DAY) // 12
    return times, 140 + noise + level * ((hour >= hours[0]) & (hour < hours[1]))


def test_unusual_days_come_by_chance_as_often_as_is_said() -> None:
    found, judged = 0, 0
    for seed in range(30):
        times, values = series(60, seed)
        found += sum(s.kind == "unusual" for s in unusual_stretches(times, values, "mg/dL"))
        judged += 60 - FEWEST_DAYS
    expected = 30 * sum(1 / (min(day, PAST_DAYS) + 1) for day in range(FEWEST_DAYS, 60))
    assert abs(found - expected) < 3 * np.sqrt(expected), (found, expected, judged)


def test_a_strange_afternoon_is_found_and_named() -> None:
    times, values = series(40, 1)
    strange = (times >= np.datetime64("2026-04-08T15:00")) & (times < np.datetime64("2026-04-08T18:00"))
    values[strange] += 160
    [insight] = [i for i in unusual_stretches(times, values, "mg/dL") if i.first.date().isoformat() == "2026-04-08"]
    assert insight.first == datetime(2026, 4, 8, 15)
    assert insight.text.startswith("From 15:00 to 18:00 on 2026-04-08 readings were 1")
    assert " mg/dL higher than is usual at this time: the strangest stretch of 29 days." in insight.text
    assert insight.chance == 1 / 29


def test_patterns_without_any_are_as_rare_as_is_said() -> None:
    subjects = [patterns(*series(45, seed), "mg/dL") for seed in range(200)]
    assert np.mean([bool(found) for found in subjects]) <= 0.05


def test_a_pattern_is_told_with_the_days_that_confirm_it() -> None:
    found = patterns(*series(45, 3, level=60, hours=(8, 10)), "mg/dL")
    told = next(insight for insight in found if insight.text.startswith("Between 08:00 and 10:00"))
    assert "mg/dL higher than in most other hours of the day: on 15 of 15 days" in told.text
    assert told.last == datetime(2026, 4, 16)


def test_one_peak_is_one_pattern() -> None:
    """The hours without it do not differ from each other, although all of them are lower than it."""
    hours = [insight.text[:23] for seed in range(30) for insight in patterns(*series(60, seed, 60, (8, 10)), "mg/dL")]
    assert hours.count("Between 08:00 and 10:00") == 30
    assert len(hours) <= 33


def test_a_pattern_that_has_ended_is_not_told() -> None:
    times, values = series(45, 4, level=60, hours=(8, 10))
    later = times >= np.datetime64("2026-04-01")
    values[later] = series(45, 5)[1][later]
    assert not [i for i in patterns(times, values, "mg/dL") if i.text.startswith("Between 08:00")]


@pytest.mark.parametrize("days", [0, 1, FEWEST_DAYS])
def test_too_short_a_past_shows_nothing(days: int) -> None:
    times, values = series(days, 0, 60, (8, 10))
    assert insights(times, values, "mg/dL") == []


def test_gaps_are_no_findings() -> None:
    times, values = series(40, 6)
    kept = np.random.default_rng(0).random(len(times)) < 0.6
    kept &= ~((times >= np.datetime64("2026-03-20")) & (times < np.datetime64("2026-03-24")))
    for insight in insights(times[kept], values[kept], "mg/dL"):
        assert not datetime(2026, 3, 20) <= insight.first < datetime(2026, 3, 24) or insight.kind == "pattern"


def test_no_sentence_is_a_diagnosis_advice_or_triage() -> None:
    for seed in range(20):
        for insight in insights(*series(45, seed, level=-50, hours=(2, 6)), "mg/dL"):
            assert clinical_statements(insight.text) == [], insight.text
