"""Gates: direction belongs to the metric, missing figures fail, and every refusal says why."""

import pandas as pd
import pytest

from hallmark.contracts import Evaluation, Metric
from hallmark.errors import ConfigError, GateError
from hallmark.judge.bootstrap import summarise
from hallmark.judge.gates import (
    Beats,
    EachWithin,
    FairBetween,
    FastEnough,
    NoDrift,
    NotAbove,
    NotWorse,
    Within,
    enforce,
    judge,
)

METRICS = {
    "rmse": Metric("rmse", "mg/dL", "lower"),
    "recall": Metric("recall", "", "higher"),
    "coverage_90": Metric("coverage_90", "", "nearer", 0.9),
}


def evaluation(*rows: tuple[str, str, str, str, float, int], timings: tuple[float, ...] = ()) -> Evaluation:
    """Rows of (subject, model, metric, segment, value, windows) at 60."""
    scores = pd.DataFrame(
        [(s, m, metric, "60", segment, v, n) for s, m, metric, segment, v, n in rows],
        columns=["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"],
    )
    return Evaluation(scores, summarise(scores), ("ridge", "persistence"), timings_ms=timings)


def test_lower_is_better_for_errors_and_higher_for_recall() -> None:
    found = evaluation(
        ("a", "hallmark", "rmse", "all", 9.0, 1),
        ("a", "ridge", "rmse", "all", 10.0, 1),
        ("a", "hallmark", "recall", "all", 0.9, 1),
        ("a", "ridge", "recall", "all", 1.0, 1),
    )
    assert Beats("rmse", "ridge", 0.09, "all", horizon="60").judge(found, METRICS).status == "passed"
    assert Beats("rmse", "ridge", 0.11, "all", horizon="60").judge(found, METRICS).status == "failed"
    assert Beats("recall", "ridge", 0.0, "all", horizon="60").judge(found, METRICS).status == "failed"


def test_coverage_is_better_nearer_to_nominal() -> None:
    metric = METRICS["coverage_90"]
    assert metric.gain(0.88, 0.95) == pytest.approx(0.03)
    assert metric.gain(0.99, 0.95) == pytest.approx(-0.04)


def test_a_figure_that_was_not_measured_fails() -> None:
    found = evaluation(("a", "hallmark", "rmse", "all", 9.0, 1))
    for gate in (
        Beats("rmse", "ridge", 0.0, "all", horizon="60"),
        Within("coverage_90", 0.87, 0.93, "all", horizon="60"),
        EachWithin("coverage_90", 0.8, 1.0, "all", 1, horizon="60"),
        FastEnough(10),
    ):
        verdict = gate.judge(found, METRICS)
        assert verdict.status == "failed"
        assert "not measured" in verdict.reason


def test_no_champion_yet_is_skipped_where_that_is_allowed_and_says_so() -> None:
    found = evaluation(("a", "hallmark", "rmse", "all", 9.0, 1))
    verdict = Beats("rmse", "champion", -0.01, "all", may_skip=True, horizon="60").judge(found, METRICS)
    assert (verdict.status, verdict.reason) == ("skipped", "there is no champion yet")
    assert Beats("rmse", "champion", -0.01, "all", horizon="60").judge(found, METRICS).status == "failed"


def test_a_champion_without_this_figure_is_not_taken_for_none() -> None:
    found = evaluation(("a", "hallmark", "rmse", "all", 9.0, 1), ("a", "champion", "recall", "all", 0.5, 1))
    verdict = Beats("rmse", "champion", -0.01, "all", horizon="60").judge(found, METRICS)
    assert verdict.status == "failed"
    assert "rmse@60 of champion was not measured" in verdict.reason


def test_too_few_people_prove_nothing_either_way() -> None:
    gate = NotWorse("rmse", "ridge", 0.005, "all", min_subjects=5, may_skip=True, horizon="60")
    verdict = gate.judge(gains(0.2, 0.1), METRICS)
    assert (verdict.status, verdict.reason) == ("skipped", "2 subjects prove nothing, 5 are needed")
    strict = NotWorse("rmse", "ridge", 0.005, "all", min_subjects=5, horizon="60").judge(gains(0.2, 0.1), METRICS)
    assert strict.status == "failed"
    assert "may_skip: true on this gate of evaluate.gates" in strict.reason


def test_worse_than_persistence_fails_however_few_people_there_are() -> None:
    rows = [(f"p{i}", "hallmark", "rmse", "all", 57.7, 40) for i in range(2)]
    found = evaluation(*rows, *((f"p{i}", "persistence", "rmse", "all", 29.2, 40) for i in range(2)))
    gate = Beats("rmse", "persistence", 0.0, "all", may_skip=True, horizon="60")
    assert gate.judge(found, METRICS).status == "failed"


def test_nobody_with_enough_examples_says_how_many_there_are() -> None:
    found = evaluation(("a", "hallmark", "coverage_90", "all", 0.9, 120))
    verdict = EachWithin("coverage_90", 0.8, 1.0, "all", 300, may_skip=True, horizon="60").judge(found, METRICS)
    assert (verdict.status, verdict.reason) == ("skipped", "no subject has 300 test examples, the most is 120")


def test_a_figure_that_chance_moves_fails_only_when_its_whole_interval_lies_above() -> None:
    found = evaluation(*((f"p{i}", "hallmark", "recall", "all", v, 1) for i, v in enumerate((0.02, 0.3, 0.05))))
    assert NotAbove("recall", 0.1, "all", horizon="60").judge(found, METRICS).status == "passed"
    proven = evaluation(*((f"p{i}", "hallmark", "recall", "all", v, 1) for i, v in enumerate((0.2, 0.3, 0.25))))
    verdict = NotAbove("recall", 0.1, "all", horizon="60").judge(proven, METRICS)
    assert verdict.status == "failed"
    assert "failed when all of it lies above 0.1" in verdict.reason


def gains(*shares: float) -> Evaluation:
    rows = [(f"p{i}", "ridge", "rmse", "all", 10.0, 1) for i in range(len(shares))]
    return evaluation(*rows, *((f"p{i}", "hallmark", "rmse", "all", 10 - 10 * g, 1) for i, g in enumerate(shares)))


def test_not_worse_asks_for_proof_of_being_worse() -> None:
    gate = NotWorse("rmse", "ridge", 0.005, "all", 1, horizon="60")
    assert gate.judge(gains(0.02, 0.01), METRICS).status == "passed"
    by_chance = gate.judge(gains(-0.10, 0.06, -0.05, 0.05, -0.04), METRICS)
    assert by_chance.status == "passed"  # worse by 1.6% in the mean, but two of five people say otherwise
    proven = gate.judge(gains(-0.03, -0.02, -0.025, -0.03, -0.02), METRICS)
    assert proven.status == "failed"
    assert proven.reason.startswith("-2.5% better (-2.8%…-2.1%, 5 subjects), failed")
    assert gate.judge(gains(-0.02), METRICS).status == "failed"
    assert gate.judge(evaluation(("a", "hallmark", "rmse", "all", 9.0, 1)), METRICS).status == "failed"


def test_each_person_counts_and_nobody_is_named() -> None:
    found = evaluation(
        ("a", "hallmark", "coverage_90", "all", 0.9, 500),
        ("b", "hallmark", "coverage_90", "all", 0.7, 500),
        ("c", "hallmark", "coverage_90", "all", 0.1, 5),
    )
    verdict = EachWithin("coverage_90", 0.82, 0.98, "all", 100, horizon="60").judge(found, METRICS)
    assert verdict.status == "failed"
    assert verdict.figure == 0.7
    assert verdict.reason == "1 of 2 subjects outside"


def test_a_gap_between_groups_is_a_share_of_the_overall_mean() -> None:
    rows = [(f"f{i}", "hallmark", "rmse", s, 12.0, 1) for i in range(5) for s in ("all", "sex:female")]
    rows += [(f"m{i}", "hallmark", "rmse", s, 8.0, 1) for i in range(5) for s in ("all", "sex:male")]
    found = evaluation(*rows)
    verdict = FairBetween("rmse", "sex", 0.3, 5, horizon="60").judge(found, METRICS)
    assert verdict.status == "failed"
    assert verdict.figure == pytest.approx(0.4)
    assert FairBetween("rmse", "sex", 0.5, 5, horizon="60").judge(found, METRICS).status == "passed"


def test_a_gate_names_either_a_horizon_or_a_split() -> None:
    for places in ({}, {"horizon": "60", "split": "test"}):
        with pytest.raises(ValueError, match="name either horizon or split"):
            Beats("rmse", "ridge", 0.0, "all", **places)


def test_a_misspelt_segmentation_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="no segmentation 'sexx'; the task has sex"):
        FairBetween("rmse", "sexx", 0.3, 5, horizon="60").check(METRICS, ("sex",))


def test_slow_answers_fail() -> None:
    found = evaluation(("a", "hallmark", "rmse", "all", 9.0, 1), timings=(5.0,) * 90 + (50.0,) * 10)
    assert FastEnough(20).judge(found, METRICS).status == "failed"
    assert FastEnough(60).judge(found, METRICS).status == "passed"


def test_a_failed_gate_names_figure_unit_and_reason() -> None:
    found = evaluation(("a", "hallmark", "rmse", "all", 9.0, 1), ("a", "ridge", "rmse", "all", 8.0, 1))
    verdicts = judge([Beats("rmse", "ridge", 0.0, "all", horizon="60")], found, METRICS)
    with pytest.raises(GateError, match=r"rmse@60 against ridge: 9 mg/dL, -12\.5% better, \+0\.0% needed"):
        enforce(verdicts)


def test_an_unknown_metric_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="'rmes' is unknown"):
        Within("rmes", 0, 1, "all", horizon="60").check(METRICS, ())


def test_drift_of_the_data_is_judged_by_the_column_that_moved_furthest() -> None:
    evaluation = Evaluation(pd.DataFrame(), pd.DataFrame(), (), drift={"glucose": 0.04, "hour": 0.3})
    assert NoDrift(0.35).judge(evaluation, {}).status == "passed"
    verdict = NoDrift(0.1).judge(evaluation, {})
    assert (verdict.status, verdict.figure, verdict.bound) == ("failed", 0.3, 0.1)
    assert verdict.reason == "column 'hour' moved furthest of 2, by 0.3"
    nothing = Evaluation(pd.DataFrame(), pd.DataFrame(), ())
    assert NoDrift(0.1).judge(nothing, {}).status == "failed"  # never passed for lack of data
    assert NoDrift(0.1, may_skip=True).judge(nothing, {}).status == "skipped"


def test_a_misspelt_name_is_no_lack_of_data() -> None:
    rows = evaluation(("a", "hallmark", "rmse", "held_out", 9.0, 1), ("a", "ridge", "rmse", "held_out", 10.0, 1))
    for key, name, meant in (("against", "rigde", "ridge"), ("segment", "heldout", "held_out")):
        settings = {"against": "ridge", "segment": "held_out", "horizon": 60, key: name}
        verdict = Beats(metric="rmse", margin=0.0, may_skip=True, **settings).judge(rows, METRICS)
        assert verdict.status == "failed"
        assert f"{key} {name!r} is unknown, did you mean {meant!r}" in verdict.reason
