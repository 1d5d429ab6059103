"""Splits: by person and by time, with nothing leaking through."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hallmark.errors import DataError
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitConfig, split

CONFIG = SplitConfig(0.25, 0.7, 0.1, 60, 0, ("sex",))


def test_held_out_people_are_in_no_training_window(task: Any, prepared: Any) -> None:
    split_panel = task.split_panel(prepared)
    held = set(prepared.splits.loc[prepared.splits["group"] == HELD_OUT, "subject_id"])
    learned = {split_panel.panel.subjects[c] for c in split_panel.panel.subject[split_panel.origins("train", SEEN)]}
    assert held
    assert not held & learned


def test_no_training_target_reaches_beyond_train(task: Any, prepared: Any) -> None:
    split_panel = task.split_panel(prepared)
    origins = split_panel.origins("train", SEEN)
    target = split_panel.target(origins, "train")
    ends = split_panel.panel.minute[origins][:, None] + np.asarray(split_panel.panel.grid.horizons_minutes)
    limit = np.asarray([split_panel.minute_of("train_end", c) for c in split_panel.panel.subject[origins]])[:, None]
    assert np.isnan(target[ends >= limit]).all()
    assert (~np.isnan(target)).mean() > 0.8


def test_the_purge_gap_holds_no_origin(task: Any, prepared: Any) -> None:
    split_panel = task.split_panel(prepared)
    train, valid = split_panel.origins("train"), split_panel.origins("valid")
    for code in range(len(split_panel.panel.subjects)):
        last = split_panel.panel.minute[train[split_panel.panel.subject[train] == code]].max()
        first = split_panel.panel.minute[valid[split_panel.panel.subject[valid] == code]].min()
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
