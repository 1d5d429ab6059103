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
from hallmark.families.forecasting.splits import HELD_OUT, SEEN, Parts

VALUE = "glucose_mg_dl"


def check(task: Any, prepared: Prepared, parts: Parts | None = None) -> dict[str, int]:
    return check_leakage(prepared, parts or task.parts(prepared), VALUE, task.split_config.purge_minutes)


def with_panel(parts: Parts, **arrays: Any) -> Parts:
    return dataclasses.replace(parts, panel=dataclasses.replace(parts.panel, **arrays))


def test_honest_splits_pass_and_are_counted(task: Any, prepared: Prepared) -> None:
    checked = check(task, prepared)
    assert checked["train_windows"] > 1000
    assert checked["values"] > 100_000
    held = int((prepared.splits["group"] == HELD_OUT).sum())
    assert checked["pairs_of_people"] == held * (len(prepared.splits) - held)


def test_one_person_under_two_names(task: Any, prepared: Prepared) -> None:
    held = prepared.splits.loc[prepared.splits["group"] == HELD_OUT, "subject_id"].iloc[0]
    seen = prepared.splits.loc[prepared.splits["group"] == SEEN, "subject_id"].iloc[0]
    twin = prepared.rows[prepared.rows["subject_id"] == seen].assign(subject_id=held)
    rows = pd.concat([prepared.rows[prepared.rows["subject_id"] != held], twin])
    with pytest.raises(LeakageError, match="they are one person"):
        check(task, dataclasses.replace(prepared, rows=rows))


SPLITS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no pause before test": (lambda s: s.assign(test_start=s["valid_end"]), "test_start lies 0 minutes after"),
    "test from within valid": (lambda s: s.assign(test_start=s["valid_start"]), "test_start lies -"),
    "valid before train ends": (lambda s: s.assign(valid_start=s["train_end"] - 5), "valid_start lies -5 minutes"),
    "nobody held out": (lambda s: s.assign(group=SEEN), "both seen and held_out are needed"),
    "a person twice": (lambda s: pd.concat([s, s.head(1)]), "one twice"),
    "a person missing": (lambda s: s.iloc[1:], "other people than the rows"),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_splits_table_that_leaks(name: str, task: Any, prepared: Prepared) -> None:
    change, message = SPLITS[name]
    parts = task.parts(prepared)
    with pytest.raises(LeakageError, match=message):
        check(task, dataclasses.replace(prepared, splits=change(prepared.splits)), parts)


def test_a_held_out_person_in_train(task: Any, prepared: Prepared) -> None:
    class Careless(Parts):
        def origins(self, part: str, group: str | None = None) -> Any:
            return super().origins(part)

    parts = task.parts(prepared)
    with pytest.raises(LeakageError, match="held-out subject in train"):
        check(task, prepared, Careless(parts.panel, parts.splits))


def test_windows_of_the_next_part(task: Any, prepared: Prepared) -> None:
    parts = task.parts(prepared)
    later = parts.splits.assign(train_end=parts.splits["train_end"] + 60)
    with pytest.raises(LeakageError, match="a window of train starts outside it"):
        check(task, prepared, Parts(parts.panel, later))


def test_targets_that_reach_into_the_next_part(task: Any, prepared: Prepared) -> None:
    class Careless(Parts):
        def target(self, origins: Any, part: str) -> Any:
            return self.panel.target(origins)

    parts = task.parts(prepared)
    with pytest.raises(LeakageError, match="a target of train lies in the next part"):
        check(task, prepared, Careless(parts.panel, parts.splits))


def test_interpolated_targets(task: Any, prepared: Prepared) -> None:
    parts = task.parts(prepared)
    thinned = dataclasses.replace(prepared, rows=prepared.rows.iloc[np.arange(len(prepared.rows)) % 7 != 3])
    with pytest.raises(LeakageError, match="a target of train is no reading"):
        check(task, thinned, with_panel(parts, values=task.parts(thinned).panel.filled))


def test_inputs_of_another_time(task: Any, prepared: Prepared) -> None:
    parts = task.parts(prepared)
    with pytest.raises(LeakageError, match="an input of train is no reading"):
        check(task, prepared, with_panel(parts, filled=np.roll(parts.panel.filled, -1)))


def test_windows_that_span_gaps(task: Any, prepared: Prepared) -> None:
    honest = prepared.rows["timestamp"].dt.hour != 3  # an hour is missing every day
    holed = dataclasses.replace(prepared, rows=prepared.rows[honest])
    parts = task.parts(prepared)
    bridged = with_panel(parts, values=np.where(parts.panel.minute // 60 % 24 == 3, np.nan, parts.panel.values))
    with pytest.raises(LeakageError, match="spans a gap of 6"):
        check(task, holed, bridged)
