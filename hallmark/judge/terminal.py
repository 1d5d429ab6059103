"""Print metrics against baselines, gate verdicts and the model version in the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hallmark.contracts import OURS, Metric, ReportLayout
from hallmark.errors import DataError
from hallmark.files import read_json

if TYPE_CHECKING:
    from rich.console import Console

STATUS_LABELS = {"passed": "[green]passed[/]", "failed": "[red]FAILED[/]", "skipped": "[yellow]skipped[/]"}


def show_figures(evaluation: Path, layout: ReportLayout, metrics: Mapping[str, Metric]) -> None:
    """Print our model beside the baselines, and the verdicts of the gates.

    Args:
        evaluation: report directory of the last evaluation.
        layout: selects the metric, segment and columns.
        metrics: units and directions, by name.

    Raises:
        DataError: there is no evaluation yet.
    """
    from rich.table import Table

    if not (evaluation / "verdicts.json").is_file():
        raise DataError(f"{evaluation} holds no evaluation: run `make repro`")
    summary = pd.read_csv(evaluation / "summary.csv", dtype={"horizon_or_split": str})
    name, _, segment = layout.headline[0]
    metric = metrics[name]
    figures = summary[(summary["metric"] == name) & (summary["segment"] == segment)]
    columns = [column for column in layout.columns if (figures["horizon_or_split"] == column).any()]
    console = open_console()
    words = [f"{name}{f' in {metric.unit}' if metric.unit else ''} on test", f"{metric.better} is better"]
    words += [segment.replace("_", " ")] if segment != "all" else []
    table = Table(title=f"{', '.join(words)} (95% bootstrap over {layout.resampling_unit})", title_justify="left")
    table.add_column("model")
    for column in columns:
        table.add_column(f"{column} {layout.column_unit}".strip(), justify="right")
    ordering = figures[figures["horizon_or_split"] == columns[0]] if columns else figures
    for model in ordering.sort_values("mean", ascending=metric.better != "higher")["model"]:
        cells = []
        for column in columns:
            row = figures[(figures["model"] == model) & (figures["horizon_or_split"] == column)]
            cells.append("" if row.empty else _cell(*row[["mean", "low", "high", "n_units"]].iloc[0]))
        table.add_row(model, *cells, style="bold" if model == OURS else "")
    console.print(table)
    gates = Table(title="Gates", title_justify="left")
    for column in ("gate", "verdict", "why"):
        gates.add_column(column)
    verdicts = read_json(evaluation / "verdicts.json")
    for verdict in verdicts:
        gates.add_row(verdict["gate"], STATUS_LABELS[verdict["status"]], verdict["reason"])
    console.print(gates if verdicts else "no gates are set: nothing was judged")


def show_cleaning(report: Mapping[str, Any]) -> None:
    """Print the cleaning report: every reason, with its number of rows and subjects."""
    console = open_console(stderr=True)
    totals = ", ".join(f"{report[action]:,} {action}" for action in ("excluded", "dropped", "merged", "changed"))
    console.print(f"  {report['rows_read']:,} rows read, {report['rows_kept']:,} kept; {totals}", highlight=False)
    for entry in report["reasons"]:
        subjects = f"{len(entry['subjects'])} subject{'s' * (len(entry['subjects']) != 1)}"
        console.print(f"    {entry['action']} {entry['rows']:,} rows of {subjects}: {entry['reason']}", highlight=False)


def show_outputs(bundle: Path, evaluation: Path) -> None:
    """Print the version, and where to find the report, the service and the runs."""
    console = open_console()
    failed = [v for v in read_json(evaluation / "verdicts.json") if v["status"] == "failed"]
    if failed:
        console.print(f"[red]not packaged[/]: {len(failed)} gates failed; {bundle} is unchanged")
    elif (bundle / "hallmark.json").is_file():
        manifest = read_json(bundle / "hallmark.json")
        console.print(f"version  {manifest['task']} {manifest['version']} ({manifest['reason']})")
    console.print(f"report   {evaluation / 'report.html'}")
    console.print(f"data     {evaluation / 'data.html'}, cleaning: reports/validation/report.html")
    console.print("service  make serve")
    console.print("runs     make dashboard, http://127.0.0.1:8237")


def open_console(stderr: bool = False) -> "Console":
    """Return a console: a terminal with its own width, any other output with 110 columns."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=110)


def _cell(mean: float, low: float, high: float, n_units: int) -> str:
    large = abs(mean) >= 2
    value = f"{mean:.1f}" if large else f"{mean:.3f}"
    return value if n_units < 2 else f"{value} ({low:.0f}–{high:.0f})" if large else f"{value} ({low:.2f}–{high:.2f})"
