"""The refresh_state: readings taken up night by night say what a history of all readings says."""

import dataclasses
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hallmark.errors import BundleError
from hallmark.families.forecasting import history as history_module
from hallmark.families.forecasting.base_fitting import population_forecast
from hallmark.families.forecasting.base_model import load_base
from hallmark.families.forecasting.history import History
from hallmark.families.forecasting.panel import build_panel
from hallmark.families.forecasting.refresh import (
    RefreshState,
    Update,
    days_kept,
    initial_state,
    load_state,
    save_state,
    update,
)

VALUE = "glucose_mg_dl"


@pytest.fixture(scope="module")
def assembler(trained: Path) -> Any:
    """The toy model's, with statistics of so few days that the refresh_state forgets within its 16."""
    found = load_base(trained / "base").assembler
    return dataclasses.replace(found, history=dataclasses.replace(found.history, days=5))


def begun(rows: pd.DataFrame, assembler: Any) -> tuple[History, RefreshState]:
    panel = build_panel(rows, VALUE, assembler.grid)
    return initial_state(panel, assembler, "b" * 64, "online_ridge", population_forecast(assembler, panel))


def taken(refresh_state: RefreshState, rows: pd.DataFrame, assembler: Any, at_once: int = 1) -> Update:
    return update(refresh_state, rows, VALUE, assembler, partial(population_forecast, assembler), at_once)


def same_bytes(found: Update, expected: Update) -> None:
    """Fail if a refresh differs from another one in any bit of its history or state."""
    pairs = [(found.history.tensors(), expected.history.tensors())]
    pairs += [(found.state.history_state.ridge.tensors(), expected.state.history_state.ridge.tensors())]
    for mine, theirs in pairs:
        assert {name: array.tobytes() for name, array in mine.items()} == {
            name: array.tobytes() for name, array in theirs.items()
        }


def agree(found: History, expected: History, subjects: int) -> None:
    for code in range(subjects):
        mine, theirs = found.newest(code), expected.newest(code)
        for field in dataclasses.fields(History):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=f"{field.name} of {code}")


def test_readings_added_day_by_day_give_the_same_history(prepared: Any, assembler: Any) -> None:
    rows = prepared.rows
    whole, last = begun(rows, assembler)
    assert whole.weights.any()
    names = sorted(rows["subject_id"].unique())
    end = rows["timestamp"].max()
    # The second person joins in the middle; days end at midnight, at noon and in the small hours.
    late = rows["subject_id"] == names[1]
    cuts = [end - pd.Timedelta(days=days) for days in (9.3, 6.0, 5.9, 3.0, 0.7, 0.0)]
    time = rows["timestamp"]
    _, refresh_state = begun(rows[(time <= cuts[0]) & ~late], assembler)
    joined = readings = 0
    for low, high in pairwise(cuts):
        since = (time > low) | (late & (high == cuts[2]))
        new = since & (time <= high) & ~(late & (high < cuts[2]))
        result = taken(refresh_state, rows[new], assembler)
        refresh_state = result.state
        joined, readings = joined + result.counts["joined"], readings + result.counts["readings"]
    assert joined == 1
    assert readings == len(rows) - len(rows[(time <= cuts[0]) & ~late])
    assert refresh_state.subjects == tuple(names)
    agree(result.history, whole, len(names))
    np.testing.assert_allclose(refresh_state.history_state.ridge.gram, last.history_state.ridge.gram, rtol=1e-9)
    np.testing.assert_array_equal(refresh_state.history_state.seen, last.history_state.seen)
    pd.testing.assert_frame_equal(refresh_state.readings, last.readings)


def test_the_same_readings_again_change_nothing(prepared: Any, assembler: Any) -> None:
    rows = prepared.rows
    history, refresh_state = begun(rows, assembler)
    again = taken(refresh_state, rows, assembler)
    first = refresh_state.readings["timestamp"].min().normalize()
    assert again.counts["readings"] == 0
    assert again.counts["known"] == len(refresh_state.readings)
    assert again.counts["late"] == len(rows) - len(refresh_state.readings)
    assert (rows["timestamp"] < first).any()
    agree(again.history, history, len(refresh_state.subjects))
    np.testing.assert_array_equal(again.state.history_state.ridge.gram, refresh_state.history_state.ridge.gram)


def test_processes_refresh_to_the_bytes_of_a_loop(
    prepared: Any, assembler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "TOGETHER", 1)
    rows = prepared.rows
    old = rows["timestamp"] < rows["timestamp"].max() - pd.Timedelta(days=3)
    _, refresh_state = begun(rows[old], assembler)
    same_bytes(taken(refresh_state, rows[~old], assembler, 2), taken(refresh_state, rows[~old], assembler))


def test_a_state_keeps_only_the_days_that_are_needed(prepared: Any, assembler: Any) -> None:
    _, refresh_state = begun(prepared.rows, assembler)
    kept = days_kept(assembler.grid, assembler.history.days)
    span = refresh_state.readings.groupby("subject_id")["timestamp"].agg(lambda t: t.max().normalize() - t.min())
    assert span.max() <= pd.Timedelta(days=kept)
    assert (refresh_state.history_state.seen > 0).all()
    days = prepared.rows.groupby("subject_id")["timestamp"].agg(lambda t: t.dt.normalize().nunique())
    still = refresh_state.readings.groupby("subject_id")["timestamp"].agg(lambda t: t.dt.normalize().nunique())
    assert (days.to_numpy() == still.to_numpy() + refresh_state.history_state.seen).all()


def test_a_state_is_stored_and_bound_to_its_base(prepared: Any, assembler: Any, tmp_path: Path) -> None:
    _, refresh_state = begun(prepared.rows, assembler)
    save_state(tmp_path / "refresh_state", refresh_state, "p" * 64)
    back = load_state(tmp_path / "refresh_state", assembler, "b" * 64, "p" * 64)
    for name, array in refresh_state.history_state.ridge.tensors().items():
        np.testing.assert_array_equal(array, back.history_state.ridge.tensors()[name], err_msg=name)
    pd.testing.assert_frame_equal(back.readings, refresh_state.readings)
    assert (back.subjects, back.default_method) == (refresh_state.subjects, "online_ridge")
    with pytest.raises(BundleError, match=r"belongs to base model bbbbbbbbbbbb, this is cccccccccccc: take the state"):
        load_state(tmp_path / "refresh_state", assembler, "c" * 64, "p" * 64)
    with pytest.raises(BundleError, match=r"is of another refresh than the adapters in the bundle"):
        load_state(tmp_path / "refresh_state", assembler, "b" * 64, "q" * 64)
    file = tmp_path / "refresh_state" / "ridge.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"ridge.safetensors was changed after it was written"):
        load_state(tmp_path / "refresh_state", assembler, "b" * 64, "p" * 64)
    with pytest.raises(BundleError, match=r"cannot be loaded .*`dvc repro train` writes a new one"):
        load_state(tmp_path / "nowhere", assembler, "b" * 64, "p" * 64)


def test_a_day_that_comes_after_a_later_one_counts_and_is_named(prepared: Any, assembler: Any) -> None:
    rows = prepared.rows
    end = rows["timestamp"].max()
    newer = rows["timestamp"] >= end.normalize()
    late = (rows["timestamp"] >= end.normalize() - pd.Timedelta(days=1)) & ~newer
    whole, _ = begun(rows, assembler)
    _, refresh_state = begun(rows[~newer & ~late], assembler)
    first = taken(refresh_state, rows[newer], assembler)
    second = taken(first.state, rows[late], assembler)
    assert second.counts["readings"] == second.counts["not_fitted"] == int(late.sum())
    assert second.counts["late"] == 0
    for code in range(len(refresh_state.subjects)):
        np.testing.assert_allclose(second.history.newest(code).statistics, whole.newest(code).statistics, atol=1e-4)


def test_one_wrong_date_ends_nobodys_history(prepared: Any, assembler: Any) -> None:
    rows = prepared.rows
    history, refresh_state = begun(rows, assembler)
    wrong = rows.tail(1).assign(timestamp=rows["timestamp"].max() + pd.Timedelta(days=300))
    result = taken(refresh_state, wrong, assembler)
    assert (result.counts["readings"], result.counts["outliers"]) == (0, 1)
    agree(result.history, history, len(refresh_state.subjects))
    # After a real pause a day of readings is a day of readings.
    back = rows[rows["timestamp"] > rows["timestamp"].max() - pd.Timedelta(hours=20)]
    result = taken(refresh_state, back.assign(timestamp=back["timestamp"] + pd.Timedelta(days=300)), assembler)
    assert (result.counts["readings"], result.counts["outliers"]) == (len(back), 0)
