"""Print training runs beside their plans."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hallmark.plan.review import Compared

if TYPE_CHECKING:
    from rich.console import Console


def show_review(console: "Console", compared: Sequence[Compared]) -> None:
    """Print training runs beside their plans."""
    from rich.table import Table

    if not compared:
        console.print("no training run is on record here: run `make repro`")
        return
    table = Table(title="Planned → taken", title_justify="left")
    for column in ("ended", "network", "machine", "steps", "peak MB", "seconds", "TFLOP", "TFLOP/s", "kJ"):
        table.add_column(column, justify="right")
    for run in compared:
        table.add_row(
            run.at[:16],
            f"{run.task} {run.candidate}",
            run.machine,
            f"{run.steps:,}",
            _pair(run.bytes, 1e6),
            _pair(run.seconds, 1),
            _pair(run.flop, 1e12, 2),
            f"{run.tflops:.3f}",
            "not known" if run.joules is None else f"{run.joules / 1e3:.1f}",
        )
    console.print(table)


def _pair(pair: tuple[float | None, float], unit: float, digits: int = 0) -> str:
    planned, taken = pair
    if planned is None:
        return f"? → {taken / unit:,.{digits}f}"
    return f"{planned / unit:,.{digits}f} → {taken / unit:,.{digits}f}"
