"""`hallmark predict`: answer a request file with the first bundle whose schema accepts it, and print the response."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hallmark.errors import BundleError, RequestError
from hallmark.model import Model, explain
from hallmark.prove.bundle import MANIFEST

ROWS = 12  # of a long list that are printed


def answer(request: Path, bundles: Sequence[Path]) -> BaseModel:
    """Answer one request with the first bundle whose task accepts it.

    Args:
        request: path of a JSON file.
        bundles: directories of bundles, tried in order.

    Returns:
        The task's response.

    Raises:
        RequestError: the file cannot be read, or no bundle's task accepts it.
        BundleError: no directory holds a bundle.
    """
    try:
        data = request.read_bytes()
    except OSError as error:
        raise RequestError(
            f"{request} cannot be read ({error.strerror}): give a JSON file, such as in examples/"
        ) from None
    refused: list[str] = []
    for bundle in bundles:
        if not (bundle / MANIFEST).is_file():
            continue
        model = _open(bundle)
        task = model.hallmark.task
        try:
            parsed = model.task.request_type().model_validate_json(data)
        except ValidationError as error:
            refused.append(f"is no request for {task}: {explain(error)} (an example: examples/{task}.json)")
            continue
        return model.predict([parsed])[0]
    if not refused:
        raise BundleError(f"{bundles[0]} is no bundle: it has no {MANIFEST}; run `make repro`")
    others = f"; nor for the bundles of {len(refused) - 1} other tasks" if len(refused) > 1 else ""
    raise RequestError(f"{request} {refused[0]}{others}")


_open = cache(Model)  # the requests of one command share an opened bundle


def show(request: Path, response: BaseModel) -> None:
    """Print a response: first its single values, then each list as a table."""
    from rich.table import Table

    from hallmark.judge.terminal import open_console

    console = open_console()
    values = response.model_dump(mode="json")
    console.print(f"[bold]{request}[/]", highlight=False)
    facts = Table.grid(padding=(0, 2))
    for name, value in values.items():
        if not isinstance(value, list) and value not in ("", None):
            facts.add_row(name, _cell(value))
    console.print(facts)
    for name, rows in values.items():
        if isinstance(rows, list) and rows:
            console.print(_table(name, rows))


def _table(name: str, rows: Sequence[Any]) -> Any:
    from rich.table import Table

    step = max(1, -(-len(rows) // ROWS))
    shown = [*rows[: len(rows) - 1 : step], rows[-1]]
    left_out = f", {len(shown)} of {len(rows)} shown: --json for all" if len(shown) < len(rows) else ""
    table = Table(title=f"{name}{left_out}", title_justify="left")
    if not isinstance(rows[0], Mapping):
        table.add_column(name)
        for row in shown:
            table.add_row(_cell(row))
        return table
    for column in rows[0]:
        table.add_column(column)
    for row in shown:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return "; ".join(" ".join(map(_cell, v.values())) if isinstance(v, Mapping) else _cell(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
