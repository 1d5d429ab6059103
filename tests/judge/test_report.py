"""The report says what is known and no more, and nothing in it is taken for markup."""

from pathlib import Path

import pandas as pd

from hallmark.contracts import Evaluation, Metric, ReportLayout, Verdict
from hallmark.judge.bootstrap import summarise
from hallmark.judge.report import headline_sentence, render, table_of, verdict_line

METRICS = {"rmse": Metric("rmse", "mg/dL", "lower"), "recall": Metric("recall", "", "higher")}
LAYOUT = ReportLayout(("60",), "min", (("rmse", "60", "held_out"),), (("rmse", "held_out"),), "subjects")


def evaluation(subjects: int) -> Evaluation:
    rows = [
        (f"p{i}", model, "rmse", "60", "held_out", 10.0 + i, 50)
        for i in range(subjects)
        for model in ("hallmark", "<b>")
    ]
    scores = pd.DataFrame(
        rows, columns=["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]
    )
    return Evaluation(scores, summarise(scores), ("<b>",), notes={"what <i>": {"ridge": "12 h & no more"}})


def test_one_person_has_no_interval() -> None:
    assert table_of(evaluation(1).summary, METRICS["rmse"], ["60"], "held_out").loc["hallmark", "60"] == "10"
    assert table_of(evaluation(3).summary, METRICS["rmse"], ["60"], "held_out").loc["hallmark", "60"] == "11 (10–12)"


def test_the_best_model_stands_first_whichever_way_is_better() -> None:
    rows = [("p", model, name, "60", "all", value, 1) for name in METRICS for model, value in (("a", 1.0), ("b", 2.0))]
    scores = pd.DataFrame(
        rows, columns=["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]
    )
    summary = summarise(scores)
    order = {name: list(table_of(summary, metric, ["60"], "all").index) for name, metric in METRICS.items()}
    assert order == {"rmse": ["a", "b"], "recall": ["b", "a"]}


def test_notes_are_lists_and_markup_is_text(tmp_path: Path) -> None:
    page = render("t <x>", evaluation(2), [], METRICS, LAYOUT, tmp_path)
    assert "<li>what &lt;i&gt;: <ul><li>ridge: 12 h &amp; no more</li></ul></li>" in page
    assert "<td>&lt;b&gt;" in page
    assert "None are set." in page


def test_a_failed_gate_stands_out_with_its_reason(tmp_path: Path) -> None:
    verdict = Verdict("rmse@60 against ridge", "failed", 9.0, 8.0, "mg/dL", "-12.5% better, +0.0% needed")
    page = render("t", evaluation(2), [verdict], METRICS, LAYOUT, tmp_path)
    assert "<span class=failed>failed</span><td>9 mg/dL<td>8<td class=why>-12.5% better" in page


def test_the_page_opens_with_the_verdict_and_the_headline_figure(tmp_path: Path) -> None:
    passed = Verdict("a", "passed", 9.0, 8.0, "", "")
    page = render("t", evaluation(3), [passed], METRICS, LAYOUT, tmp_path)
    first = page[page.index("<h1>") : page.index("<h2")]
    assert "<p class='verdict passed'>Accepted: all 1 gates that could decide passed.</p>" in first
    assert "rmse at 60 min (held out): <b>11</b> mg/dL (10–12), 0.0% better than the best baseline, &lt;b&gt;" in first


def test_a_verdict_line_names_the_first_failed_gate_and_passes_nothing_that_nobody_judged() -> None:
    gates = [Verdict(name, status, None, None, "", "") for name, status in (("a", "passed"), ("b", "failed"))]
    assert verdict_line(gates) == ("failed", "Rejected: 1 of 2 gates failed, first b.")
    assert verdict_line([Verdict("a", "skipped", None, None, "", "")])[0] == "skipped"
    assert verdict_line([])[0] == "skipped"


def test_the_headline_compares_with_the_best_baseline_in_the_metrics_own_direction() -> None:
    models = {"hallmark": 0.8, "good": 0.9, "bad": 0.5, "better candidate": 0.99}
    rows = [("p", model, "recall", "60", "all", value, 1) for model, value in models.items()]
    columns = ["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]
    scores = pd.DataFrame(rows, columns=columns)
    layout = ReportLayout(("60",), "min", (("recall", "60", "all"),), (), "subjects")
    said = headline_sentence(Evaluation(scores, summarise(scores), ("bad", "good")), METRICS, layout)
    assert said == "recall at 60 min: <b>0.8</b>  , 11.1% worse than the best baseline, good: 0.9."


def test_the_page_loads_nothing_and_adapts_to_dark_and_to_paper(tmp_path: Path) -> None:
    page = render("t", evaluation(2), [], METRICS, LAYOUT, tmp_path)
    assert "http" not in page
    for rule in ("prefers-color-scheme:dark", "@media print", "position:sticky"):
        assert rule in page
