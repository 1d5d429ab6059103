"""Print what serving needs and costs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hallmark.plan.serve import Load, Replica, ServingCost, per_thousand
from hallmark.plan.told import machine

if TYPE_CHECKING:
    from rich.console import Console

HOURS_A_MONTH = 730


def show_serving(
    console: "Console",
    cost: ServingCost,
    found: Sequence[Replica],
    load: Load | None,
    asked: float | None,
    usd_per_hour: float | None,
) -> None:
    """Print what serving needs, the machines that hold it, and what a thousand answers cost where it was measured."""
    from rich.table import Table

    table = Table(title="Memory of a replica, GB", title_justify="left")
    for column in ("weights", "one adapter", "adapters", "keys and values", "work", "in all"):
        table.add_column(column, justify="right")
    sizes = (cost.weights, cost.adapter, cost.adapters, cost.cache, cost.work, cost.peak)
    table.add_row(*(f"{size / 1e9:,.3f}" for size in sizes))
    console.print(table)
    fitting = [replica for replica in found if replica.fits]
    machines = Table(title="Machines that hold it, the cheapest first", title_justify="left")
    for column in ("machine", "USD an hour", "USD a month", "price read"):
        machines.add_column(column)
    for replica in fitting[:8]:
        price = replica.price
        month = f"{price.usd_per_hour * HOURS_A_MONTH:,.0f}"
        machines.add_row(machine(replica), f"{price.usd_per_hour:,.2f}", month, f"{price.read}")
    console.print(
        machines if fitting else "no machine with one GPU holds it: fewer adapters, a shorter context, or qlora"
    )
    show_load(console, load, asked, usd_per_hour)


def show_load(console: "Console", load: Load | None, asked: float | None, usd_per_hour: float | None) -> None:
    """Print what the service carries where it was measured, and what a thousand answers cost there."""
    if load is None:
        console.print("answers a second: not known, nothing was measured here (python -m benchmarks.service_load)")
        return
    console.print(
        f"measured on {load.machine}: {load.bundle} gives {load.per_second:.1f} answers a second to {load.clients} "
        f"clients, p95 {load.p95_ms:.1f} ms"
    )
    if asked is None:
        return
    count, usd = per_thousand(load, asked, usd_per_hour or 0.0)
    cost = "not known (--usd-per-hour)" if usd_per_hour is None else f"{usd:.4f} USD"
    console.print(f"{asked:g} requests a second: {count} replicas of it; 1,000 answers: {cost}")
