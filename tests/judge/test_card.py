"""The model card is written for a reader: figures by group, the range of the data, no Python literals."""

import pandas as pd

from hallmark.contracts import Evaluation, Metric, Prepared, ReportLayout, Verdict
from hallmark.judge.bootstrap import summarise
from hallmark.judge.card import describe_data, metric_tables, model_card

METRICS = {"rmse": Metric("rmse", "mg/dL", "lower")}
LAYOUT = ReportLayout(("60",), "min", (("rmse", "60", "all"),), (), "subjects")


def evaluated() -> Evaluation:
    rows = [
        (f"p{i}", model, "rmse", "60", segment, value + i, 50)
        for i in range(3)
        for model, value in (("hallmark", 10.0), ("ridge", 12.0))
        for segment in ("all", "sex:female")
    ]
    columns = ["subject_id", "model", "metric", "horizon_or_split", "segment", "value", "n_examples"]
    scores = pd.DataFrame(rows, columns=columns)
    return Evaluation(scores, summarise(scores), ("ridge",))


def test_figures_stand_beside_the_best_baseline_and_by_group() -> None:
    text = metric_tables(evaluated(), METRICS, LAYOUT)
    assert "| rmse at 60 min | 11 mg/dL | 10–12 | 13 (ridge) |" in text
    assert "| sex: female | 11 mg/dL | 10–12 | 3 |" in text
    assert "p0" not in text


def test_data_are_described_with_their_range() -> None:
    times = pd.to_datetime(["2024-01-03", "2024-02-01"])
    rows = pd.DataFrame({"subject_id": ["a", "b"], "timestamp": times})
    said = describe_data(Prepared(rows, rows, rows), {"sets": ["one", "two"], "files": {"x.csv": "0a"}})
    assert said.splitlines() == [
        "- 2 rows of 2 subjects or sources",
        "- from 2024-01-03 to 2024-02-01",
        "- sets: one, two",
        "- files: x.csv 0a",
    ]
    in_ms = rows.assign(timestamp=times.astype("int64") // 10**3)  # pandas 3 counts microseconds
    assert "- from 2024-01-03 to 2024-02-01" in describe_data(Prepared(in_ms, rows, rows), {})


def test_a_card_has_every_section_and_shows_what_failed() -> None:
    verdicts = [Verdict("rmse", "failed", 9.0, 8.0, "", "worse")]
    card = model_card("m", "Forecasts.", "- 2 rows", "| a |\n", ["A note."], verdicts, ["Not for dosing."])
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Data",
        "## Figures",
        "## Gates",
        "## Limits",
    ]
    assert "- FAILED: rmse (worse)" in card
    assert "{" not in card
