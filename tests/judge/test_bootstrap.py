"""Differences between groups of subjects: what they are, and what they leave out."""

import pandas as pd
import pytest

from hallmark.judge.bootstrap import group_differences

COLUMNS = ["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]


def recalls(**groups: list[float]) -> pd.DataFrame:
    rows = [
        (f"{group}{i}", "hallmark", "recall", "30", f"sex:{group}", value, 50)
        for group, values in groups.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_the_largest_difference_of_two_groups_means() -> None:
    scores = recalls(female=[0.8] * 5, male=[0.6] * 5, other=[0.1] * 4)  # too few of the third
    [row] = group_differences(scores, "recall", "30", ["sex", "age_band"], "difference", 0).to_dict("records")
    assert (row["model"], row["metric"], row["segment"], row["n_units"]) == ("hallmark", "difference", "sex", 10)
    assert row["mean"] == pytest.approx(0.2)
    assert row["low"] == pytest.approx(0.2)


def test_its_interval_grows_with_the_spread_inside_the_groups() -> None:
    spread = group_differences(recalls(a=[0.0, 1.0] * 5, b=[0.2] * 10), "recall", "30", ["sex"], "d", 0).iloc[0]
    assert spread["low"] < spread["mean"] < spread["high"]
    assert spread["high"] - spread["low"] > 0.3


def test_one_group_has_no_difference() -> None:
    assert group_differences(recalls(female=[0.8] * 9), "recall", "30", ["sex"], "d", 0).empty
