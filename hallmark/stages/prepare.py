"""Stage prepare: load, clean and split the rows, and check for leakage."""

from pathlib import Path

import pandas as pd

from hallmark.contracts import Clean, Prepared, Progress, Source, Task
from hallmark.errors import DataError
from hallmark.files import FileRef, write_json, write_text
from hallmark.read.validation import render_html

TABLES = ("rows", "subjects", "splits")


def clean_rows(source: Source, task: Task, out: Path, report: Path, progress: Progress) -> FileRef:
    """Load and clean a source; write what happened to every row to `report`, as JSON and HTML."""
    raw = source.load(progress)
    clean = task.clean(raw)
    out.mkdir(parents=True, exist_ok=True)
    clean.rows.to_parquet(out / "rows.parquet", index=False)
    clean.subjects.to_parquet(out / "subjects.parquet", index=False)
    write_json(out / "origin.json", dict(raw.origin))
    write_json(report / "validation.json", dict(clean.report))
    write_text(report / "report.html", render_html(clean.report, f"Validation of the data for {task.name}"))
    return FileRef.to(out / "rows.parquet", len(clean.rows))


def split_rows(task: Task, prepared: Path) -> FileRef:
    """Assign rows or subjects to train, valid and test, and write the splits table."""
    clean = Clean(pd.read_parquet(prepared / "rows.parquet"), pd.read_parquet(prepared / "subjects.parquet"), {})
    splits = task.split(clean)
    splits.to_parquet(prepared / "splits.parquet", index=False)
    return FileRef.to(prepared / "splits.parquet", len(splits))


def open_prepared(directory: Path) -> Prepared:
    """Read the tables that stage `prepare` wrote.

    Raises:
        DataError: a table is missing.
    """
    for name in TABLES:
        if not (directory / f"{name}.parquet").is_file():
            raise DataError(f"{directory}/{name}.parquet is missing: run `dvc repro prepare`")
    return Prepared(*(pd.read_parquet(directory / f"{name}.parquet") for name in TABLES))


def check_leakage(task: Task, prepared: Path, report: Path) -> dict[str, int]:
    """Check the splits for leakage and write counts of what was checked."""
    checked = task.check_leakage(open_prepared(prepared))
    write_json(report / "leakage.json", checked)
    return checked
