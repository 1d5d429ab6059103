"""python -m runtime.experiments: compare experiments: a column each, their figures and the parameters that differ.

`dvc exp show` has a column for each parameter and file, far more than a terminal is wide. Here rows are the figures of
metrics.json (six at most) and the parameters that differ; lists of code and other files follow from these.
"""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from hallmark.errors import HallmarkError
from pipelines import EVALUATION

WIDTH = 160
CELL = 24  # characters of a value
COLUMNS = (WIDTH - 40) // (CELL + 3)
"""Experiments that fit beside the names of the rows: the workspace, the commit and the latest ones."""


def main() -> int:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    try:
        names, rows = compare(*read())
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = Table(title="Experiments" if len(names) > 2 else 'No experiment yet: make repro S="train.seed=1"')
    table.add_column("")
    for name in names:
        table.add_column(name, max_width=CELL, justify="right")
    for key, values in rows.items():
        table.add_row(key, *values)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    return 0


def read() -> tuple[list[dict[str, str]], list[str]]:
    """Ask DVC for all experiments; returns one record each, and the names of the figures.

    Raises:
        HallmarkError: DVC cannot read them.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--csv"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise HallmarkError(f"dvc exp show: {shown.stderr.strip().splitlines()[-1]}")
    metrics = Path(EVALUATION) / "metrics.json"
    figures = list(json.loads(metrics.read_text(encoding="utf-8"))) if metrics.is_file() else []
    return list(csv.DictReader(io.StringIO(shown.stdout))), figures


def compare(records: list[dict[str, str]], figures: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Arrange experiments as columns.

    Args:
        records: of `dvc exp show --csv`: Experiment, rev, typ, figures, parameters, files.
        figures: names of those that are always shown.

    Returns:
        The names of the columns; row → its values, figures first, then the parameters that differ.
    """
    chosen = records[:COLUMNS]
    named = [record["Experiment"] or record.get("rev") or "workspace" for record in chosen]
    fixed = {"Experiment", "rev", "typ", "Created", "parent", "State", "Executor"}
    keys = [key for key in (records[0] if records else {}) if key not in fixed and "/" not in key]
    parameters = [key for key in keys if key not in figures and Path(key).suffix not in (".json", ".lock", ".csv")]
    differ = [key for key in parameters if len({record[key] for record in chosen}) > 1]
    return named, {key: [_short(record.get(key, "")) for record in chosen] for key in (*figures, *differ)}


def _short(value: str) -> str:
    return value if len(value) <= CELL else f"{value[: CELL - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
