"""Progress bars on a terminal, plain log lines elsewhere."""

import sys
import time

from hallmark.contracts import Progress

EVERY_SECONDS = 10.0  # between two lines of a log, at least


def bars() -> Progress:
    """Return a progress callback: live bars on a terminal, a line every ten seconds at most elsewhere."""
    return _live() if sys.stderr.isatty() else _lines()


def _live() -> Progress:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("  {task.description:<18}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    display = rich.Progress(*columns, console=Console(stderr=True))
    known: dict[str, rich.TaskID] = {}

    def show(what: str, done: int, total: int, note: str) -> None:
        if what not in known:
            display.start()
            known[what] = display.add_task(what, total=total, note=note)
        display.update(known[what], completed=done, total=total, note=note, visible=done < total)
        if display.finished:
            display.stop()

    return show


def _lines() -> Progress:
    last = time.monotonic()

    def show(what: str, done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_SECONDS:
            last = now
            print(f"  {what} {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)

    return show
