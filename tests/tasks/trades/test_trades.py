"""The trades task: features see the past alone, at training and at serving alike."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from hallmark.build import build
from hallmark.contracts import Prepared, no_progress
from hallmark.errors import BundleError, DataError, LeakageError, SourceError
from hallmark.tasks.trades.features import Bounce, names_of, windows
from hallmark.tasks.trades.messages import DISCLAIMER
from hallmark.tasks.trades.predictor import load_model
from hallmark.tasks.trades.sources import TradesFile
from hallmark.tasks.trades.task import TradesTask
from tests.toys import SHARED, compose, prepare, train

TOY = ("experiment=trades", "data.trades=2500", "model.candidates.0.iterations=60")


def request_of(task: Any, rows: pd.DataFrame, end: int) -> Any:
    part = rows.iloc[max(0, end - task.memory + 1) : end + 1]
    columns = (part["timestamp"], part["price"], part["amount"])
    trades = [{"timestamp_ms": int(t), "price": float(p), "amount": float(a)} for t, p, a in zip(*columns, strict=True)]
    return task.request_type().model_validate({"trades": trades})


def test_features_are_what_they_say(task: Any, prepared: Prepared) -> None:
    rows = prepared.rows
    found = pd.DataFrame(task.examples(rows), columns=names_of(task.features))
    price, amount, time = rows["price"], rows["amount"], rows["timestamp"]
    change = np.sign(price.diff())
    tick = change.replace(0, np.nan).ffill(limit=task.memory - 2)
    late, low, high = slice(200, None), price.rolling(20).min(), price.rolling(20).max()
    expected = {
        "tick_0": tick,
        "tick_3": tick.shift(3),
        "return_5": 1e4 * np.log(price / price.shift(5)),
        "place_20": ((price - low) / (high - low)).fillna(0.5),
        "from_mean_10": 1e4 * (price / ((price * amount).rolling(10).sum() / amount.rolling(10).sum()) - 1),
        "amount_2": np.log1p(amount.shift(2)),
        "amount_over_mean_5": np.log1p(amount) - np.log1p(amount).rolling(5).mean(),
        "tick_amount": tick * np.log1p(amount),
        "seconds_since_3": np.log1p((time - time.shift(3)) / 1000),
        "same_instant": time.groupby(time).cumcount(),
        "hour_sin": np.sin(time % 86_400_000 / 86_400_000 * 2 * np.pi),
    }
    for name, column in expected.items():
        there = column[late].notna()
        assert there.mean() > 0.9, name
        np.testing.assert_allclose(found[name][late][there], column[late][there], rtol=1e-4, atol=2e-3, err_msg=name)


def test_the_last_rise_and_the_last_fall_are_remembered() -> None:
    price = np.array([10.0, 11.0, 11.0, 9.0, 9.0, 10.0])
    window = windows(price, np.ones(6), np.arange(6), [5, 3, 1], 6)
    up, down, spread = Bounce().columns(window)
    np.testing.assert_allclose(up[:2], [(10 / 11 - 1) * 1e4, (9 / 11 - 1) * 1e4])
    np.testing.assert_allclose(down[0], (10 / 9 - 1) * 1e4)
    np.testing.assert_allclose(spread[0], (11 / 9 - 1) * 1e4)
    assert np.isnan([up[2], down[1], down[2], spread[1]]).all()  # nothing had risen, or fallen, before


def test_training_rows_replayed_through_the_service_are_the_same(
    task: Any, learner: Any, prepared: Prepared, trained: Path
) -> None:
    predictor = learner.open(task, trained, "1.0.0", "d" * 64)
    rows = prepared.rows
    table = predictor.calibration.probabilities(
        predictor.model.trees.logits(task.examples(rows)[:, list(predictor.model.chosen)])
    )
    usable = task.usable(rows)
    replayed = answered = 0
    for end in range(0, len(rows), 7):
        [answer] = predictor.predict([request_of(task, rows, end)])
        if not usable[end]:
            assert "trades are given" in answer.reason or "s back" in answer.reason
            continue
        assert [p.probability for p in answer.probabilities] == [round(float(p), 6) for p in table[end]]
        replayed += 1
        answered += answer.status == "classified"
    assert replayed > 300
    assert answered > 200


class LaggedSide(TradesTask):
    """Knows who started the trade before: at serving nobody does."""

    def examples(self, rows: pd.DataFrame) -> Any:
        found = super().examples(rows)
        found[1:, 0] = (rows["label"] == "buy").to_numpy()[:-1]
        return found


class NextPrice(TradesTask):
    """Looks at the price that comes next."""

    def examples(self, rows: pd.DataFrame) -> Any:
        found = super().examples(rows)
        found[:-1, 6] = rows["price"].to_numpy()[1:]
        return found


@pytest.mark.parametrize(("leak", "feature"), [(LaggedSide, "tick_0"), (NextPrice, "tick_mean_3")])
def test_a_planted_feature_that_knows_too_much_is_caught(
    task: Any, prepared: Prepared, leak: Any, feature: str
) -> None:
    values = {f.name: getattr(task, f.name) for f in dataclasses.fields(TradesTask)}
    with pytest.raises(LeakageError, match=f"feature '{feature}' knows a side or what came later"):
        leak(**values).check_leakage(prepared)


def test_a_random_split_is_caught(task: Any, prepared: Prepared) -> None:
    assert task.check_leakage(prepared)["windows_checked"] > 0
    mixed = prepared.splits.assign(split=np.random.default_rng(0).permutation(prepared.splits["split"].to_numpy()))
    with pytest.raises(
        LeakageError, match=r"train ends -[\d.]+ s before valid begins, task\.split_config\.purge_s asks for 60"
    ):
        task.check_leakage(dataclasses.replace(prepared, splits=mixed))


def test_parts_follow_in_time_and_an_instant_stays_together(task: Any, prepared: Prepared) -> None:
    time, part = prepared.rows["timestamp"], prepared.splits["split"]
    spans = {name: (time[part == name].min(), time[part == name].max()) for name in ("train", "valid", "test")}
    assert spans["train"][1] + 60_000 < spans["valid"][0] <= spans["valid"][1] < spans["test"][0] - 60_000
    assert (part[part != "purged"].groupby(time).nunique() == 1).all()


def test_windows_stay_within_their_instrument(task: Any, prepared: Prepared) -> None:
    other = prepared.rows.assign(subject_id="OTHER", price=prepared.rows["price"] * 3)
    both = pd.concat([prepared.rows, other]).sort_values("timestamp", kind="stable").reset_index(drop=True)
    found = task.examples(both)[(both["subject_id"] != "OTHER").to_numpy()]
    np.testing.assert_array_equal(found, task.examples(prepared.rows))


def test_training_is_the_same_twice(
    params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    again = train(params, task, learner, prepared, tmp_path)
    for file in sorted(trained.rglob("*")):
        if file.is_file():
            assert (again / file.relative_to(trained)).read_bytes() == file.read_bytes(), file.name


def test_the_features_document_themselves(task: Any, trained: Path) -> None:
    text = (trained / "base" / "features.md").read_text()
    assert all(f"`{name}`" in text for name in names_of(task.features))
    assert "the tick rule" in text


def test_a_model_of_other_features_is_refused(task: Any, trained: Path) -> None:
    with pytest.raises(BundleError, match=r"other features than task\.features names"):
        load_model(trained / "base", task.features[1:], task.memory)


def test_an_answer_names_what_it_rests_on(task: Any, learner: Any, prepared: Prepared, trained: Path) -> None:
    predictor = learner.open(task, trained, "1.2.3", "d" * 64)
    [answer] = predictor.predict([request_of(task, prepared.rows, 500)])
    assert (answer.trades_used, answer.model_version, answer.disclaimer) == (64, "1.2.3", DISCLAIMER)
    longer = request_of(dataclasses.replace(task, memory=200), prepared.rows, 500)
    assert predictor.predict([longer]) == [answer]  # what lies further back is not looked at


def test_too_little_or_too_old_a_past_is_refused(task: Any, learner: Any, prepared: Prepared, trained: Path) -> None:
    predictor = learner.open(task, trained, "1.0.0", "d" * 64)
    few, late = request_of(task, prepared.rows, 5), request_of(task, prepared.rows, 100).model_dump()
    late["trades"][-1]["timestamp_ms"] += 4_000_000
    answers = predictor.predict([few, task.request_type().model_validate(late)])
    assert [a.status for a in answers] == ["abstained", "abstained"]
    assert answers[0].reason == "6 trades are given, 20 are needed"
    assert answers[1].reason.endswith("s back, at most 3600 are accepted")


@pytest.mark.parametrize(
    "change",
    [{"price": 0.0}, {"price": 1e300}, {"timestamp_ms": 1_600_000_000},
     {"price": float("nan")}, {"amount": float("inf")}, {"price": "1"}, {"timestamp_ms": 1.5},
     {"timestamp_ms": 10**18}, {"side": "buy"}],
)  # fmt: skip
def test_bad_trades_are_no_request(task: Any, change: dict[str, Any]) -> None:
    trade = {"timestamp_ms": 1_600_000_000_000, "price": 1.0, "amount": 1.0}
    with pytest.raises(ValidationError):
        task.request_type().model_validate({"trades": [{**trade, **change}]})


def test_trades_may_not_go_back_in_time(task: Any) -> None:
    trades = [{"timestamp_ms": t, "price": 1.0, "amount": 1.0} for t in (1_600_000_002_000, 1_600_000_001_000)]
    with pytest.raises(ValidationError, match="must not go back in time"):
        task.request_type().model_validate({"trades": trades})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": "buy"}, "no row has the label 'sell' of sell, buy: nothing to learn it from"),
        ({"side": "maybe"}, "a side other than sell, buy"),
        ({"price": np.inf}, "no number in price"),
        ({"amount": "lots"}, "no number in amount"),
        ({"price": -1.0}, "price not above zero"),
        ({"timestamp": 1_600_000_000}, "no count of milliseconds since 1970"),
    ],
)
def test_bad_rows_are_named(params: dict[str, Any], task: Any, change: dict[str, Any], message: str) -> None:
    raw = build(params["data"]).load()
    with pytest.raises(DataError, match=message):
        task.clean(dataclasses.replace(raw, rows=raw.rows.assign(**change)))


def test_a_missing_column_and_a_missing_file_are_named(params: dict[str, Any], task: Any, tmp_path: Path) -> None:
    raw = build(params["data"]).load()
    with pytest.raises(DataError, match="has no column 'side'"):
        task.clean(dataclasses.replace(raw, rows=raw.rows.drop(columns="side")))
    with pytest.raises(SourceError, match=r"trades\.feather is not there"):
        TradesFile(str(tmp_path / "trades.feather"), "A/B", {}).load()
    (tmp_path / "trades.xls").write_text("x")
    with pytest.raises(SourceError, match=r"is no \.feather, \.parquet, \.csv file"):
        TradesFile(str(tmp_path / "trades.xls"), "A/B", {}).load()
    (tmp_path / "trades.feather").write_text("x")
    with pytest.raises(SourceError, match=r"cannot be read as \.feather"):
        TradesFile(str(tmp_path / "trades.feather"), "A/B", {}).load()


def test_the_order_within_an_instant_is_the_exchanges(params: dict[str, Any], task: Any) -> None:
    raw = build(params["data"]).load()
    expected = task.clean(raw).rows
    newest_first = dataclasses.replace(raw, rows=raw.rows[::-1].reset_index(drop=True))
    pd.testing.assert_frame_equal(task.clean(newest_first).rows, expected)
    nameless = raw.rows.assign(id=None)
    pd.testing.assert_frame_equal(task.clean(dataclasses.replace(raw, rows=nameless)).rows, expected)
    with pytest.raises(DataError, match=r"the order within an instant is not known\. Sort the file as it was"):
        task.clean(dataclasses.replace(raw, rows=nameless[::-1].reset_index(drop=True)))


def test_columns_of_ours_and_of_theirs_at_once_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"timestamp": [1], "ts": [2]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SourceError, match=r"columns 'timestamp' and 'ts', data\.columns\.timestamp names the second"):
        TradesFile(str(tmp_path / "t.csv"), "A/B", {"timestamp": "ts"}).load()


def test_features_need_memory(task: Any) -> None:
    with pytest.raises(ValueError, match="a feature needs more than memory=30 trades"):
        dataclasses.replace(task, memory=30)
    with pytest.raises(ValueError, match="two features are named 'tick_0'"):
        dataclasses.replace(task, features=[*task.features, task.features[0]])


def test_evaluation_measures_every_gate(
    params: dict[str, Any], task: Any, learner: Any, prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    evaluator, gates = build(params["evaluate"]["evaluator"]), build(params["evaluate"]["gates"])
    found = evaluator.evaluate(task, learner, prepared, trained, trained, tmp_path, no_progress)
    verdicts = [gate.judge(found, evaluator.metrics(task, learner)) for gate in gates]
    assert not [v for v in verdicts if "was not measured" in v.reason]
    assert set(found.summary["model"]) == {"hallmark", "champion", "tick_rule", "logistic", "majority_class"}
    best = found.summary.query("segment == 'all' and metric == 'accuracy'").set_index("model")["mean"]
    assert best["hallmark"] == best["champion"] > best["tick_rule"]


@pytest.mark.real
def test_the_real_trades_reach_what_they_are_known_to_allow(tmp_path: Path) -> None:
    path = SHARED / "trades" / "XRP_ETH-trades.feather"
    params = compose("experiment=trades", "data=xrp_eth", f"data.path={path}")
    task, learner = build(params["task"]), build(params["learner"])
    prepared = prepare(params, task)
    task.check_leakage(prepared)
    trained = train(params, task, learner, prepared, tmp_path / "model")
    found = (
        build(params["evaluate"]["evaluator"])
        .evaluate(task, learner, prepared, trained, None, tmp_path, no_progress)
        .summary
    )
    ours = found.query("model == 'hallmark' and segment == 'all'").set_index("metric")["mean"]
    assert ours["accuracy"] >= 0.895
    assert ours["auc"] >= 0.955
