"""Evaluation: every model on the same windows, figures that an independent calculation confirms."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import r2_score

from hallmark.build import build
from hallmark.contracts import Evaluation, no_progress
from hallmark.judge.report import render


@pytest.fixture(scope="module")
def evaluator(params: dict[str, Any]) -> Any:
    return build(params["evaluate"]["evaluator"])


@pytest.fixture(scope="module")
def bars() -> list[tuple[str, int, int]]:
    """What the evaluation told of its progress: which bar, how much is done, of how much."""
    return []


@pytest.fixture(scope="module")
def evaluation(
    evaluator: Any,
    task: Any,
    learner: Any,
    prepared: Any,
    trained: Path,
    bars: list[tuple[str, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Evaluation:
    out = tmp_path_factory.mktemp("pictures")
    with_trees = dataclasses.replace(evaluator, trees=True)
    found = with_trees.evaluate(
        task, learner, prepared, trained, None, out, lambda bar, done, total, _: bars.append((bar, done, total))
    )
    assert isinstance(found, Evaluation)
    assert all((out / name).stat().st_size > 5000 for name in found.pictures)
    return found


def test_every_baseline_and_candidate_is_scored(evaluation: Evaluation) -> None:
    assert set(evaluation.scores["model"]) >= {
        "hallmark",
        "no_personal",
        "persistence",
        "damped_linear",
        "profile",
        "ridge",
        "lightgbm_12h",
        "lightgbm_all",
        "residual_mlp",
        "patchtst",
        "ensemble",
    } - {_chosen(evaluation)}


def _chosen(evaluation: Evaluation) -> str:
    candidates: dict[str, float] = evaluation.notes["loss on valid"]
    return min(candidates, key=lambda name: candidates[name])


def test_persistence_is_what_numpy_says_it_is(evaluation: Evaluation, evaluator: Any, task: Any, prepared: Any) -> None:
    split_panel = task.split_panel(prepared)
    origins = split_panel.origins("test")[:: evaluator.stride]
    mine = origins[split_panel.panel.subject[origins] == 2]
    error = split_panel.panel.values[mine + 12] - split_panel.panel.values[mine]
    s = evaluation.scores
    row = s[
        (s["model"] == "persistence")
        & (s["metric"] == "rmse")
        & (s["horizon_or_split"] == "60")
        & (s["segment"] == "all")
    ]
    value = row.loc[row["subject_id"] == split_panel.panel.subjects[2], "value"].item()
    assert value == pytest.approx(np.sqrt(np.nanmean(error.astype(float) ** 2)), rel=1e-5)


def test_trees_answer_at_marks_only_and_claim_no_path(evaluation: Evaluation) -> None:
    s = evaluation.scores
    assert set(s.loc[(s["model"] == "lightgbm_all") & (s["metric"] == "rmse"), "horizon_or_split"]) == {
        "30",
        "60",
        "120",
        "240",
        "1440",
    }
    assert "path-60" in set(s.loc[s["model"] == "hallmark", "horizon_or_split"])


def test_trees_fit_one_model_a_horizon_that_is_shown_and_tell_of_each(
    evaluation: Evaluation, evaluator: Any, bars: list[tuple[str, int, int]]
) -> None:
    shown = len(evaluator.horizons_minutes)
    for name in ("lightgbm_12h", "lightgbm_all"):
        assert [(done, total) for bar, done, total in bars if bar == f"fit {name}"] == [
            (done, shown) for done in range(shown + 1)
        ]


def test_every_metric_has_a_unit_and_a_direction(
    evaluation: Evaluation, evaluator: Any, task: Any, learner: Any
) -> None:
    metrics = evaluator.metrics(task, learner)
    assert set(evaluation.scores["metric"]) <= set(metrics)
    assert metrics["rmse"].unit == "mg/dL"
    assert metrics["coverage_90"].goal == pytest.approx(0.9)
    assert metrics["hypo_recall"].better == "higher"


def test_people_belong_to_their_segments(evaluation: Evaluation) -> None:
    segments = set(evaluation.summary["segment"])
    assert {"all", "seen", "held_out", "range:in", "time:night"} <= segments
    assert any(s.startswith("sex:") for s in segments)


def test_shares_lie_between_zero_and_one(evaluation: Evaluation, evaluator: Any, task: Any, learner: Any) -> None:
    shares = [n for n, m in evaluator.metrics(task, learner).items() if m.unit == "" and n != "r2"]
    s = evaluation.scores
    assert s.loc[s["metric"].isin(shares), "value"].between(0, 1).all()
    assert (s.loc[s["metric"] == "r2", "value"] < 1).all()


def test_a_person_without_test_windows_does_not_stop_it(
    evaluator: Any, task: Any, learner: Any, prepared: Any, trained: Path, tmp_path: Path
) -> None:
    late = prepared.splits.assign(test_start=prepared.splits["test_start"].where(prepared.splits.index != 0, 10**9))
    found = evaluator.evaluate(
        task, learner, dataclasses.replace(prepared, splits=late), trained, None, tmp_path, no_progress
    )
    assert found.notes["test"].endswith(f"of {len(prepared.subjects) - 1} subjects")


def test_the_report_is_one_page_with_its_pictures_inside(
    evaluation: Evaluation, evaluator: Any, task: Any, learner: Any, tmp_path: Path
) -> None:
    from hallmark.judge.pictures import draw_gains

    for name in evaluation.pictures:
        draw_gains(tmp_path / name, evaluation.scores["value"].head(5), "x")
    page = render("t", evaluation, [], evaluator.metrics(task, learner), evaluator.layout, tmp_path)
    assert page.count("data:image/png;base64,") == len(evaluation.pictures)
    assert "Other figures: 30 min" in page
    assert "http" not in page


def test_r2_is_what_scikit_learn_says_it_is(
    evaluation: Evaluation, evaluator: Any, task: Any, learner: Any, prepared: Any, trained: Path
) -> None:
    split_panel = task.split_panel(prepared)
    origins = split_panel.origins("test")[:: evaluator.stride]
    mine = origins[split_panel.panel.subject[origins] == 2]
    target = split_panel.target(mine, "test")[:, task.grid.index_of(60)]
    known = ~np.isnan(target)
    last = split_panel.panel.values[mine]
    s = evaluation.scores
    of_persistence = (s["model"] == "persistence") & (s["metric"] == "r2") & (s["horizon_or_split"] == "60")
    row = s[of_persistence & (s["segment"] == "all") & (s["subject_id"] == split_panel.panel.subjects[2])]
    assert row["value"].item() == pytest.approx(r2_score(target[known], last[known]), rel=1e-5)


def test_the_blocks_of_inputs_are_ranked_by_what_shuffling_them_costs(
    evaluator: Any, task: Any, learner: Any, prepared: Any, trained: Path
) -> None:
    split_panel = task.split_panel(prepared)
    predictor = learner.open_for_test(task, trained, split_panel)
    origins = split_panel.origins("test")[:: evaluator.stride]
    found = evaluator._importance(task, predictor, split_panel, origins)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert {"lags", "clock", "own past", "online ridge"} <= set(found)
    assert next(iter(found)) in ("lags", "summaries")  # the last two hours matter most at an hour
    assert found == evaluator._importance(task, predictor, split_panel, origins)


def test_baselines_are_named_and_pictures_are_of_the_model(evaluation: Evaluation) -> None:
    baselines = {"persistence", "damped_linear", "profile", "ridge", "lightgbm_12h", "lightgbm_all"}
    assert set(evaluation.baselines) == baselines
    assert {"residuals.png", "importance.png", "fans.png"} <= set(evaluation.pictures)
