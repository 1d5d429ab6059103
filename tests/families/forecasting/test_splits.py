"""Splits: by person and by time, with nothing leaking through."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hallmark.errors import DataError
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitConfig, split

CONFIG = SplitConfig(0.25, 0.7, 0.1, 60, 0, ("sex",))


def test_held_out_people_are_in_no_training_window(task: Any, prepared: Any) -> None:
    parts = task.parts(prepared)
    held = set(prepared.splits.loc[prepared.splits["group"] == HELD_OUT, "subject_id"])
    learned = {parts.panel.subjects[c] for c in parts.panel.subject[parts.origins("train", SEEN)]}
    assert held
    assert not held & learned


def test_no_training_target_reaches_beyond_train(task: Any, prepared: Any) -> None:
    parts = task.parts(prepared)
    origins = parts.origins("train", SEEN)
    target = parts.target(origins, "train")
    ends = parts.panel.minute[origins][:, None] + np.asarray(parts.panel.grid.horizons_minutes)
    limit = np.asarray([parts.minute_of("train_end", c) for c in parts.panel.subject[origins]])[:, None]
    assert np.isnan(target[ends >= limit]).all()
    assert (~np.isnan(target)).mean() > 0.8


def test_the_purge_gap_holds_no_origin(task: Any, prepared: Any) -> None:
    parts = task.parts(prepared)
    train, valid = parts.origins("train"), parts.origins("valid")
    for code in range(len(parts.panel.subjects)):
        last = parts.panel.minute[train[parts.panel.subject[train] == code]].max()
        first = parts.panel.minute[valid[parts.panel.subject[valid] == code]].min()
        assert first - last >= task.split_config.purge_minutes


def test_every_stratum_gives_people() -> None:
    subjects = pd.DataFrame({"subject_id": [f"p{i}" for i in range(16)], "sex": ["f", "m"] * 8})
    times = pd.date_range("2024-01-01", periods=10, freq="D")
    rows = pd.concat([pd.DataFrame({"subject_id": s, "timestamp": times}) for s in subjects["subject_id"]])
    found = split(rows, subjects, CONFIG).merge(subjects, on="subject_id")
    assert found[found["group"] == HELD_OUT]["sex"].value_counts().to_dict() == {"f": 2, "m": 2}


def test_one_person_cannot_be_split() -> None:
    rows = pd.DataFrame({"subject_id": ["a"], "timestamp": [pd.Timestamp("2024-01-01")]})
    with pytest.raises(DataError, match="at least 2"):
        split(rows, pd.DataFrame({"subject_id": ["a"]}), CONFIG)


def test_shares_must_leave_a_test() -> None:
    with pytest.raises(ValueError, match="no test"):
        SplitConfig(0.2, 0.9, 0.1, 0, 0, ())
