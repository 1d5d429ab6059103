"""The report says what is known and no more, and nothing in it is taken for markup."""

from pathlib import Path

import pandas as pd

from hallmark.contracts import Evaluation, Metric, Shown, Verdict
from hallmark.judge.bootstrap import summarise
from hallmark.judge.report import render, table_of

METRICS = {"rmse": Metric("rmse", "mg/dL", "lower"), "recall": Metric("recall", "", "higher")}
SHOWN = Shown(("60",), "min", (("rmse", "held_out"),), (("rmse", "held_out"),), "people")


def evaluation(people: int) -> Evaluation:
    rows = [
        (f"p{i}", model, "rmse", "60", "held_out", 10.0 + i, 50) for i in range(people) for model in ("hallmark", "<b>")
    ]
    scores = pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "n_examples"])
    return Evaluation(scores, summarise(scores), notes={"what <i>": {"ridge": "12 h & no more"}})


def test_one_person_has_no_interval() -> None:
    assert table_of(evaluation(1).summary, METRICS["rmse"], ["60"], "held_out").loc["hallmark", "60"] == "10"
    assert table_of(evaluation(3).summary, METRICS["rmse"], ["60"], "held_out").loc["hallmark", "60"] == "11 (10–12)"


def test_the_best_model_stands_first_whichever_way_is_better() -> None:
    rows = [("p", model, name, "60", "all", value, 1) for name in METRICS for model, value in (("a", 1.0), ("b", 2.0))]
    scores = pd.DataFrame(rows, columns=["subject_id", "model", "metric", "at", "segment", "value", "n_examples"])
    summary = summarise(scores)
    order = {name: list(table_of(summary, metric, ["60"], "all").index) for name, metric in METRICS.items()}
    assert order == {"rmse": ["a", "b"], "recall": ["b", "a"]}


def test_notes_are_lists_and_markup_is_text(tmp_path: Path) -> None:
    page = render("t <x>", evaluation(2), [], METRICS, SHOWN, tmp_path)
    assert "<li>what &lt;i&gt;: <ul><li>ridge: 12 h &amp; no more</li></ul></li>" in page
    assert "<td>&lt;b&gt;" in page
    assert "None are set." in page


def test_a_failed_gate_stands_out_with_its_reason(tmp_path: Path) -> None:
    verdict = Verdict("rmse@60 against ridge", "failed", 9.0, 8.0, "mg/dL", "-12.5% better, +0.0% needed")
    page = render("t", evaluation(2), [verdict], METRICS, SHOWN, tmp_path)
    assert "<span class=failed>failed</span><td>9 mg/dL<td>8<td class=why>-12.5% better" in page
