"""The leakage check catches every leak that is planted, and counts what it looked at."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hallmark.contracts import Prepared
from hallmark.errors import LeakageError
from hallmark.families.forecasting.leakage import check_leakage
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, SplitPanel

VALUE = "glucose_mg_dl"


def check(task: Any, prepared: Prepared, split_panel: SplitPanel | None = None) -> dict[str, int]:
    return check_leakage(prepared, split_panel or task.split_panel(prepared), VALUE, task.split_config.purge_minutes)


def with_panel(split_panel: SplitPanel, **arrays: Any) -> SplitPanel:
    return dataclasses.replace(split_panel, panel=dataclasses.replace(split_panel.panel, **arrays))


def test_honest_splits_pass_and_are_counted(task: Any, prepared: Prepared) -> None:
    checked = check(task, prepared)
    assert checked["train_windows"] > 1000
    assert checked["values"] > 100_000
    held = int((prepared.splits["group"] == HELD_OUT).sum())
    assert checked["pairs_of_subjects"] == held * (len(prepared.splits) - held)


def test_one_person_under_two_names(task: Any, prepared: Prepared) -> None:
    held = prepared.splits.loc[prepared.splits["group"] == HELD_OUT, "subject_id"].iloc[0]
    seen = prepared.splits.loc[prepared.splits["group"] == SEEN, "subject_id"].iloc[0]
    twin = prepared.rows[prepared.rows["subject_id"] == seen].assign(subject_id=held)
    rows = pd.concat([prepared.rows[prepared.rows["subject_id"] != held], twin])
    with pytest.raises(LeakageError, match="they are the same subject"):
        check(task, dataclasses.replace(prepared, rows=rows))


SPLITS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no pause before test": (lambda s: s.assign(test_start=s["valid_end"]), "test_start lies 0 minutes after"),
    "test from within valid": (lambda s: s.assign(test_start=s["valid_start"]), "test_start lies -"),
    "valid before train ends": (lambda s: s.assign(valid_start=s["train_end"] - 5), "valid_start lies -5 minutes"),
    "nobody held out": (lambda s: s.assign(group=SEEN), "both seen and held_out are needed"),
    "a person twice": (lambda s: pd.concat([s, s.head(1)]), "one twice"),
    "a person missing": (lambda s: s.iloc[1:], "other subjects than the rows"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_splits_table_that_leaks(name: str, task: Any, prepared: Prepared) -> None:
    change, message = SPLITS[name]
    split_panel = task.split_panel(prepared)
    with pytest.raises(LeakageError, match=message):
        check(task, dataclasses.replace(prepared, splits=change(prepared.splits)), split_panel)


def test_a_held_out_person_in_train(task: Any, prepared: Prepared) -> None:
    class Careless(SplitPanel):
        def origins(self, split: str, group: str | None = None) -> Any:
            return super().origins(split)

    split_panel = task.split_panel(prepared)
    with pytest.raises(LeakageError, match="held-out subject in train"):
        check(task, prepared, Careless(split_panel.panel, split_panel.splits))


def test_windows_of_the_next_part(task: Any, prepared: Prepared) -> None:
    split_panel = task.split_panel(prepared)
    later = split_panel.splits.assign(train_end=split_panel.splits["train_end"] + 60)
    with pytest.raises(LeakageError, match="a window of train starts outside it"):
        check(task, prepared, SplitPanel(split_panel.panel, later))


def test_targets_that_reach_into_the_next_part(task: Any, prepared: Prepared) -> None:
    class Careless(SplitPanel):
        def target(self, origins: Any, split: str) -> Any:
            return self.panel.target(origins)

    split_panel = task.split_panel(prepared)
    with pytest.raises(LeakageError, match="a target of train lies in the next split"):
        check(task, prepared, Careless(split_panel.panel, split_panel.splits))


def test_interpolated_targets(task: Any, prepared: Prepared) -> None:
    split_panel = task.split_panel(prepared)
    thinned = dataclasses.replace(prepared, rows=prepared.rows.iloc[np.arange(len(prepared.rows)) % 7 != 3])
    with pytest.raises(LeakageError, match="a target of train is no reading"):
        check(task, thinned, with_panel(split_panel, values=task.split_panel(thinned).panel.filled))


def test_inputs_of_another_time(task: Any, prepared: Prepared) -> None:
    split_panel = task.split_panel(prepared)
    with pytest.raises(LeakageError, match="an input of train is no reading"):
        check(task, prepared, with_panel(split_panel, filled=np.roll(split_panel.panel.filled, -1)))


def test_windows_that_span_gaps(task: Any, prepared: Prepared) -> None:
    honest = prepared.rows["timestamp"].dt.hour != 3  # an hour is missing every day
    holed = dataclasses.replace(prepared, rows=prepared.rows[honest])
    split_panel = task.split_panel(prepared)
    bridged = with_panel(
        split_panel, values=np.where(split_panel.panel.minute // 60 % 24 == 3, np.nan, split_panel.panel.values)
    )
    with pytest.raises(LeakageError, match="spans a gap of 6"):
        check(task, holed, bridged)
