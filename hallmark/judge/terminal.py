"""Print metrics against baselines, gate verdicts and the model version in the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hallmark.contracts import Metric, Shown
from hallmark.errors import DataError
from hallmark.files import read_json
from hallmark.judge.gates import OURS

if TYPE_CHECKING:
    from rich.console import Console

MARKS = {"passed": "[green]passed[/]", "failed": "[red]FAILED[/]", "skipped": "[yellow]skipped[/]"}


def show_figures(evaluation: Path, shown: Shown, metrics: Mapping[str, Metric]) -> None:
    """Print ours beside the baselines, and the verdicts.

    Args:
        evaluation: the reports of the last run.
        shown: which figures.
        metrics: their units and directions.

    Raises:
        DataError: nothing was evaluated yet.
    """
    from rich.table import Table

    if not (evaluation / "verdicts.json").is_file():
        raise DataError(f"{evaluation} holds no evaluation: run `make repro`")
    summary = pd.read_csv(evaluation / "summary.csv", dtype={"at": str})
    name, segment = shown.headline[0]
    metric = metrics[name]
    figures = summary[(summary["metric"] == name) & (summary["segment"] == segment)]
    marks = [mark for mark in shown.marks if (figures["at"] == mark).any()]
    console = open_console()
    words = [f"{name}{f' in {metric.unit}' if metric.unit else ''} on test", f"{metric.better} is better"]
    words += [segment.replace("_", " ")] if segment != "all" else []
    table = Table(title=f"{', '.join(words)} (95% bootstrap over {shown.drawn})", title_justify="left")
    table.add_column("model")
    for mark in marks:
        table.add_column(f"{mark} {shown.mark_unit}".strip(), justify="right")
    first = figures[figures["at"] == marks[0]] if marks else figures
    for model in first.sort_values("mean", ascending=metric.better != "higher")["model"]:
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
        gates.add_row(verdict["gate"], MARKS[verdict["status"]], verdict["reason"])
    console.print(gates if verdicts else "no gates are set: nothing was judged")


def show_account(report: Mapping[str, Any]) -> None:
    """Print what cleaning did to the rows: every reason, with how many rows of how many subjects."""
    console = open_console(stderr=True)
    totals = ", ".join(f"{report[action]:,} {action}" for action in ("excluded", "dropped", "merged", "changed"))
    console.print(f"  {report['rows_read']:,} rows read, {report['rows_kept']:,} kept; {totals}", highlight=False)
    for entry in report["reasons"]:
        whose = f"{len(entry['subjects'])} subject{'s' * (len(entry['subjects']) != 1)}"
        console.print(f"    {entry['action']} {entry['rows']:,} rows of {whose}: {entry['reason']}", highlight=False)


def show_places(bundle: Path, evaluation: Path) -> None:
    """Print the version and where to look next."""
    console = open_console()
    failed = [v for v in read_json(evaluation / "verdicts.json") if v["status"] == "failed"]
    if failed:
        console.print(f"[red]not packaged[/]: {len(failed)} gates failed; {bundle} is what was there before")
    elif (bundle / "hallmark.json").is_file():
        manifest = read_json(bundle / "hallmark.json")
        console.print(f"version  {manifest['task']} {manifest['version']} ({manifest['reason']})")
    console.print(
        f"report   {evaluation / 'report.html'}, data: {evaluation / 'data.html'}, rows: reports/validation/report.html"
    )
    console.print("service  make serve")
    console.print("runs     make dashboard, http://127.0.0.1:8237")


def open_console(stderr: bool = False) -> "Console":
    """Open a terminal at its own width, and anything else at one that fits a page."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=110)


def _cell(mean: float, low: float, high: float, drawn: int) -> str:
    large = abs(mean) >= 2
    middle = f"{mean:.1f}" if large else f"{mean:.3f}"
    return middle if drawn < 2 else f"{middle} ({low:.0f}–{high:.0f})" if large else f"{middle} ({low:.2f}–{high:.2f})"
