"""The last word of a run on the terminal: figures, gates, version, where to look next."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from hallmark.contracts import Metric, Shown
from hallmark.errors import DataError
from hallmark.files import read_json
from hallmark.judge.gates import OURS


def show(bundle: Path, evaluation: Path, shown: Shown, metrics: Mapping[str, Metric]) -> None:
    """Print the tables.

    Args:
        bundle: of the last run.
        evaluation: its reports.
        shown: which figures.
        metrics: their units and directions.

    Raises:
        DataError: nothing was evaluated yet.
    """
    from rich.console import Console
    from rich.table import Table

    if not (evaluation / "verdicts.json").is_file():
        raise DataError(f"{evaluation} holds no evaluation: run `make repro`")
    summary = pd.read_csv(evaluation / "summary.csv", dtype={"at": str})
    name, segment = shown.headline[0]
    metric = metrics[name]
    figures = summary[(summary["metric"] == name) & (summary["segment"] == segment)]
    marks = [mark for mark in shown.marks if (figures["at"] == mark).any()]
    console = Console(width=None if Console().is_terminal else 110)
    words = [f"{name}{f' in {metric.unit}' if metric.unit else ''} on test", f"{metric.better} is better"]
    words += [segment.replace("_", " ")] if segment != "all" else []
    table = Table(title=f"{', '.join(words)} (95% bootstrap over {shown.drawn})", title_justify="left")
    table.add_column("model")
    for mark in marks:
        table.add_column(f"{mark} {shown.mark_unit}".strip(), justify="right")
    order = figures[figures["at"] == marks[0]].sort_values("mean", ascending=metric.better != "higher")["model"]
    for model in order:
        cells = []
        for mark in marks:
            row = figures[(figures["model"] == model) & (figures["at"] == mark)]
            cells.append("" if row.empty else _cell(*row[["mean", "low", "high", "drawn"]].iloc[0]))
        table.add_row(model, *cells, style="bold" if model == OURS else "")
    console.print(table)
    gates = Table(title="Gates", title_justify="left")
    for column in ("gate", "verdict", "why"):
        gates.add_column(column)
    verdicts = read_json(evaluation / "verdicts.json")
    for verdict in verdicts:
        mark = "[green]passed[/]" if verdict["passed"] else "[red]FAILED[/]"
        gates.add_row(verdict["gate"], mark, verdict["reason"])
    console.print(gates if verdicts else "no gates are set: nothing was judged")
    failed = [v for v in verdicts if not v["passed"]]
    if failed:
        console.print(f"[red]not packaged[/]: {len(failed)} gates failed; {bundle} is what was there before")
    elif (bundle / "hallmark.json").is_file():
        manifest = read_json(bundle / "hallmark.json")
        console.print(f"version  {manifest['task']} {manifest['version']} ({manifest['reason']})")
    console.print(
        f"report   {evaluation / 'report.html'}, data: {evaluation / 'data.html'}, rows: reports/validation/report.html"
    )
    console.print("service  make serve, then POST http://127.0.0.1:3000/predict")
    console.print("runs     make dashboard, http://127.0.0.1:8237")


def _cell(mean: float, low: float, high: float, drawn: int) -> str:
    large = abs(mean) >= 2
    middle = f"{mean:.1f}" if large else f"{mean:.3f}"
    return middle if drawn < 2 else f"{middle} ({low:.0f}–{high:.0f})" if large else f"{middle} ({low:.2f}–{high:.2f})"
