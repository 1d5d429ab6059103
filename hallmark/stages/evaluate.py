"""Stage evaluate: score a model on test, apply the gates, write the report."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.contracts import OURS, AnyEvaluator, AnyLearner, Prepared, Progress, ReportLayout, Task, Verdict
from hallmark.errors import BundleError
from hallmark.files import read_json, write_json, write_text
from hallmark.judge.card import metric_tables
from hallmark.judge.drift import write_data_report
from hallmark.judge.gates import Gate, enforce, find, judge
from hallmark.judge.report import learning_curves, render
from hallmark.prove.bundle import open_bundle
from hallmark.prove.versions import released
from hallmark.stages.prepare import open_prepared


def evaluate(
    task: Task,
    learner: AnyLearner,
    evaluator: AnyEvaluator,
    prepared: Path,
    model: Path,
    champion: Path | None,
    gates: Sequence[Gate],
    out: Path,
    progress: Progress,
) -> list[Verdict]:
    """Score a model on test, apply the gates, and write scores, pictures and report into `out`.

    The report is written whether or not the gates pass; `enforce` fails the stage afterwards.
    """
    data = open_prepared(prepared)
    metrics = evaluator.metrics(task, learner)
    evaluation = evaluator.evaluate(task, learner, data, model, champion, out / "pictures", progress)
    drift = _data_report(task, data, out / "data.html")
    pictures = {**evaluation.pictures, **learning_curves(model, out / "pictures")}
    notes = {**evaluation.notes, "drift of test from train (distance, 0 is none)": drift}
    evaluation = replace(evaluation, notes=notes, pictures=pictures, drift=drift)
    verdicts = judge(gates, evaluation, metrics)
    layout = evaluator.layout
    (out / "pictures").mkdir(parents=True, exist_ok=True)  # an evaluation may have written no pictures
    evaluation.scores.to_parquet(out / "scores.parquet", index=False)
    evaluation.summary.round(6).to_csv(out / "summary.csv", index=False)
    write_json(out / "verdicts.json", [_plain(v) for v in verdicts])
    write_json(out / "metrics.json", headline(evaluation.summary, layout))
    title = f"Hallmark report: {task.name}"
    page = render(title, evaluation, verdicts, metrics, layout, out / "pictures")
    write_text(out / "report.html", page)
    write_text(out / "figures.md", metric_tables(evaluation, metrics, layout))
    return verdicts


def _data_report(task: Task, data: Prepared, out: Path) -> dict[str, float]:
    """Write Evidently's report that compares test with train; return the drift of every column."""
    reference, current = task.data_for_report(data)
    numbers = [c for c in reference.columns if pd.api.types.is_numeric_dtype(reference[c])]
    return write_data_report(reference, current, numbers, [c for c in reference.columns if c not in numbers], out)


def find_champion(task: str, releases: Path, champions: Path) -> Path | None:
    """Return the directory of a task's released bundle, None before the first release.

    Raises:
        BundleError: the directory is missing, or does not hold the released bundle.
    """
    release = released(releases, task)
    if release is None:
        return None
    champion = champions / task
    remedy = f"run `dvc pull {champion}`, or take {task!r} out of {releases} to compare with no champion"
    if not champion.is_dir():
        raise BundleError(f"{champion} is missing, {releases} names version {release['version']}: {remedy}")
    if open_bundle(champion)[1] != release["hallmark_sha256"]:
        raise BundleError(f"{champion} is not version {release['version']} that {releases} names: {remedy}")
    return champion


def headline(summary: pd.DataFrame, layout: ReportLayout) -> dict[str, float]:
    """Select the metrics of the trained model that `dvc metrics diff` and `dvc exp show` list, rounded."""
    values = {}
    for metric, column, segment in layout.headline:
        value = find(summary, OURS, metric, column, segment)
        if value is not None:
            values[f"{metric}_{column}" if layout.column_unit or column != layout.columns[0] else metric] = round(
                value, 4
            )
    return values


def headline_of(evaluation: Path) -> dict[str, Any]:
    """Read the headline metrics, for the run's metadata."""
    metrics: dict[str, Any] = read_json(evaluation / "metrics.json")
    return metrics


def enforce_gates(evaluation: Path) -> int:
    """Raise GateError if a gate failed; return how many passed."""
    verdicts = [Verdict(**v) for v in read_json(evaluation / "verdicts.json")]
    enforce(verdicts)
    return sum(verdict.status == "passed" for verdict in verdicts)


def _plain(verdict: Verdict) -> dict[str, Any]:
    values = asdict(verdict)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
