"""Progress bars on a terminal, plain log lines elsewhere."""

import sys
import time

from hallmark.contracts import Progress

EVERY_SECONDS = 15.0


def bars() -> Progress:
    """Return a progress callback: live bars on a terminal, a line every few seconds elsewhere."""
    return _live() if sys.stderr.isatty() else _lines()


def _live() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    display = Progress(*columns, console=Console(stderr=True))
    known: dict[str, TaskID] = {}

    def show(what: str, done: int, total: int, note: str) -> None:
        if what not in known:
            display.start()
            known[what] = display.add_task(what, total=total, note=note)
        display.update(known[what], completed=done, total=total, note=note)
        if display.finished:
            display.stop()

    return show


def _lines() -> Progress:
    last = 0.0

    def show(what: str, done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total > 1 or now - last > EVERY_SECONDS:
            last = now
            print(f"  {what} {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)

    return show
