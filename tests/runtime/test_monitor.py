"""`make monitor`'s command, whole: real answers in real records, a ZenML run, a page, and errors in one line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hallmark.evidence import answers_with_evidence
from hallmark.model import Model
from hallmark.records.database import open_database
from hallmark.records.rows import Asked, outcome_row, prediction_id, prediction_row
from hallmark.records.tables import outcomes, predictions
from tests.workspace import run


@pytest.fixture
def recorded(
    bundle: Path, requests_by_subject: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Records of answers and outcomes of two days, and the environment that names them."""
    file = tmp_path / "records.sqlite"
    monkeypatch.setenv("HALLMARK_RECORDS__URL", f"sqlite:///{file}")
    monkeypatch.setenv("HALLMARK_BUNDLE", str(bundle))
    model, database = Model(bundle), open_database(f"sqlite:///{file}")
    requests = [model.task.request_type().model_validate(request) for request in requests_by_subject.values()]
    for day in (2, 3):
        at = datetime.now(UTC) - timedelta(days=day)
        for request, (answer, evidence) in zip(
            requests, answers_with_evidence(model.predictor, requests, "0" * 64), strict=True
        ):
            asked = Asked(prediction_id("key:app", None, 0), "key:app", request.subject_id, at, request)
            row = prediction_row(asked, answer, evidence, model.hallmark, model.digest, "0" * 64, 12.0, 1, True)
            told = outcome_row(row, "key:app", "60", answer.forecast[11].median_mg_dl + 7, at + timedelta(hours=1))
            with database.writing() as connection:
                database.insert(connection, predictions, [row])
                database.insert(connection, outcomes, [told])
    database.close()  # else SQLite would mend the file by its log
    return file


def test_what_was_recorded_is_read_once_and_shown(
    workspace: Path, recorded: Path, requests_by_subject: dict[str, Any]
) -> None:
    done = run(workspace, "python", "-m", "pipelines", "monitor")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "page     reports/monitor/report.html"
    figures = (workspace / "reports" / "monitor" / "figures.csv").read_text().splitlines()
    assert len(figures) == 3
    assert ",7.0," in figures[1], "the error at 60 minutes"
    page = (workspace / "reports" / "monitor" / "report.html").read_text()
    assert f"<td>predictions read<td>{2 * len(requests_by_subject)}" in page
    assert not any(subject in page for subject in requests_by_subject)
    again = run(workspace, "python", "-m", "pipelines", "monitor", "monitor.slow_ms=1000")
    assert again.returncode == 0, again.stderr
    assert "<td>predictions read<td>0" in (workspace / "reports" / "monitor" / "report.html").read_text()
    code = (
        "from runtime import store; store.start(); from zenml.client import Client; import json\n"
        "runs = Client().list_pipeline_runs(pipeline='monitor', size=9, hydrate=True)\n"
        "print(json.dumps([[str(run.status), sorted(run.steps)] for run in runs]))"
    )
    told = run(workspace, "python", "-c", code)
    assert json.loads(told.stdout.splitlines()[-1]) == [["completed", ["tell_alarms", "watch_records"]]] * 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("monitor.settle_day=2", "did you mean monitor.settle_days?"),
        ("monitor.settle_days=0", "monitor.settle_days"),
        ("monitor.drift_severity=loud", "monitor.drift_severity"),
    ],
)
def test_a_rule_that_is_wrong_is_one_line(workspace: Path, recorded: Path, override: str, told: str) -> None:
    done = run(workspace, "python", "-m", "pipelines", "monitor", override)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert told in done.stderr


def test_records_that_cannot_be_read_are_one_line(workspace: Path, recorded: Path) -> None:
    recorded.write_bytes(b"this is no database, but has some length" * 50)
    done = run(workspace, "python", "-m", "pipelines", "monitor")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert "file is not a database" in done.stderr
    assert "HALLMARK_RECORDS__URL" in done.stderr
