"""Stage evaluate: score a model on test, let the gates decide, write the report."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from hallmark.contracts import AnyLearner, Evaluator, Prepared, Progress, Shown, Task, Verdict
from hallmark.errors import BundleError
from hallmark.files import read_json, write_json, write_text
from hallmark.judge.drift import write_data_report
from hallmark.judge.gates import OURS, Gate, enforce, judge
from hallmark.judge.report import render
from hallmark.prove.bundle import open_bundle
from hallmark.prove.versions import released
from hallmark.stages.prepare import open_prepared


def evaluate(
    task: Task,
    learner: AnyLearner,
    evaluator: Evaluator,
    prepared: Path,
    model: Path,
    champion: Path | None,
    gates: Sequence[Gate],
    out: Path,
    progress: Progress,
) -> list[Verdict]:
    """Score on test, let the gates decide, and write scores, pictures and report into `out`.

    The report is written whether or not the gates pass; `enforce` fails the stage afterwards.
    """
    data = open_prepared(prepared)
    metrics = evaluator.metrics(task, learner)
    evaluation = evaluator.evaluate(task, learner, data, model, champion, out / "pictures", progress)
    drift = _data_report(task, data, out / "data.html")
    notes = {**evaluation.notes, "drift of test from train (distance, 0 is none)": drift}
    evaluation = replace(evaluation, notes=notes, drift=drift)
    verdicts = judge(gates, evaluation, metrics)
    shown = evaluator.shown
    (out / "pictures").mkdir(parents=True, exist_ok=True)  # an evaluation may have drawn none
    evaluation.scores.to_parquet(out / "scores.parquet", index=False)
    evaluation.summary.round(6).to_csv(out / "summary.csv", index=False)
    write_json(out / "verdicts.json", [_plain(v) for v in verdicts])
    write_json(out / "metrics.json", headline(evaluation.summary, shown))
    title = f"Hallmark report: {task.name}"
    page = render(title, evaluation, verdicts, metrics, shown, out / "pictures")
    write_text(out / "report.html", page)
    return verdicts


def _data_report(task: Task, data: Prepared, out: Path) -> dict[str, float]:
    """Write Evidently's report of test beside train; returns the drift of every column."""
    reference, current = task.data_for_report(data)
    numbers = [c for c in reference.columns if pd.api.types.is_numeric_dtype(reference[c])]
    return write_data_report(reference, current, numbers, [c for c in reference.columns if c not in numbers], out)


def find_champion(task: str, releases: Path, champions: Path) -> Path | None:
    """Return the directory of a task's released bundle, None before the first release.

    Raises:
        BundleError: the directory does not hold what was released.
    """
    before = released(releases, task)
    if before is None:
        return None
    champion = champions / task
    remedy = f"run `dvc pull {champion}`, or take {task!r} out of {releases} to compare with nobody"
    if not champion.is_dir():
        raise BundleError(f"{champion} is missing, {releases} names version {before['version']}: {remedy}")
    if open_bundle(champion)[1] != before["hallmark_sha256"]:
        raise BundleError(f"{champion} is not version {before['version']} that {releases} names: {remedy}")
    return champion


def headline(summary: pd.DataFrame, shown: Shown) -> dict[str, Any]:
    """Pick the figures that `dvc metrics diff` and `dvc exp show` list: ours, rounded."""
    found: dict[str, Any] = {}
    ours = summary[(summary["model"] == OURS) & summary["at"].isin(shown.marks)]
    for metric, segment in shown.headline:
        rows = ours[(ours["segment"] == segment) & (ours["metric"] == metric)]
        found[metric] = {str(at): round(float(v), 4) for at, v in zip(rows["at"], rows["mean"], strict=True)}
    return found


def headline_of(evaluation: Path) -> dict[str, Any]:
    """Read the headline figures, for the run's metadata."""
    found: dict[str, Any] = read_json(evaluation / "metrics.json")
    return found


def enforce_gates(evaluation: Path) -> int:
    """Fail when a gate failed; returns how many passed."""
    verdicts = [Verdict(**v) for v in read_json(evaluation / "verdicts.json")]
    enforce(verdicts)
    return sum(verdict.status == "passed" for verdict in verdicts)


def _plain(verdict: Verdict) -> dict[str, Any]:
    values = asdict(verdict)
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
