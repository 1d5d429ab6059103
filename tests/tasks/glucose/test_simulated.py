"""The simulator: realistic statistics, the same bytes for the same seed, cheap."""

import time

import numpy as np
import pytest

from hallmark.build import build
from hallmark.errors import ConfigError
from tests.toys import compose

NODE = compose()["data"]


@pytest.fixture(scope="module")
def cohort() -> object:
    return build(NODE).load()


def test_statistics_are_those_of_people_with_type_1_diabetes(cohort) -> None:  # type: ignore[no-untyped-def]
    glucose = cohort.rows["glucose"].to_numpy()
    assert 136 <= glucose.mean() <= 145
    assert 47 <= glucose.std() <= 50
    assert 0.785 <= ((glucose >= 70) & (glucose <= 180)).mean() <= 0.815
    assert 0.015 <= (glucose < 70).mean() <= 0.025


def test_persistence_errs_as_on_real_sensors(cohort) -> None:  # type: ignore[no-untyped-def]
    rows = cohort.rows.set_index(["subject_id", "timestamp"])["glucose"].unstack(0).resample("5min").first()
    values = rows.to_numpy()
    for steps, low, high in ((6, 21, 23), (12, 35, 38), (24, 53, 57)):
        error = values[steps:] - values[:-steps]
        assert low <= np.sqrt(np.nanmean(error**2)) <= high


def test_thirty_people_for_fourteen_days_cost_under_three_cpu_seconds() -> None:
    start = time.process_time()
    build({**NODE, "days": 14}).load()
    assert time.process_time() - start < 3


def test_the_same_seed_gives_the_same_bytes() -> None:
    node = {**NODE, "subjects": 3, "days": 2}
    one, two, other = (build({**node, "seed": s}).load().rows for s in (5, 5, 6))
    assert one.equals(two)
    assert not one["glucose"].equals(other["glucose"])


def test_a_lost_reading_is_a_missing_row_never_nan(cohort) -> None:  # type: ignore[no-untyped-def]
    assert cohort.rows["glucose"].notna().all()
    assert len(cohort.rows) < 30 * 42 * 288


def test_people_differ_lastingly(cohort) -> None:  # type: ignore[no-untyped-def]
    rows = cohort.rows.assign(half=cohort.rows["timestamp"].dt.day_of_year > 21, hour=cohort.rows["timestamp"].dt.hour)
    profile = rows.pivot_table(index=["subject_id", "hour"], columns="half", values="glucose")
    centred = profile - profile.groupby("subject_id").transform("mean")
    assert centred.corr().iloc[0, 1] > 0.5


@pytest.mark.parametrize(
    ("key", "value"), [("subjects", 0), ("days", 1.5), ("noise_sd", float("nan")), ("start", "soon")]
)
def test_settings_that_cannot_be_simulated_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        build({**NODE, key: value}, "data")
