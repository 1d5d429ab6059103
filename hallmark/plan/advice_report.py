"""Make the advice about an experiment, and print it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hallmark.errors import ConfigError
from hallmark.plan.advice import Advice, Compared, Option, advise, compare, read_advice
from hallmark.plan.plan import Offer, old_prices
from hallmark.plan.prices import OLD_DAYS, read_gpus, read_prices
from hallmark.plan.report import LAUNCHED, SMALL, on_gpu
from hallmark.plan.runs import PlannedRun
from hallmark.plan.told import hours, machine, plain, usd

if TYPE_CHECKING:
    from rich.console import Console

CHOSEN = ("train.distributed", "train.processes", "train.nodes")
FOUR_BIT = (
    "memory of weights in four bits was compared with bitsandbytes on a CPU, not on a GPU; times leave out that they "
    "are made whole for every product"
)


def make_advice(
    compose: Callable[[Sequence[str]], Mapping[str, Any]],
    settings: Sequence[str],
    model: Path | None,
    deadline: float | None,
    budget: float | None,
    planned: Callable[[Option], None],
) -> tuple[Advice, Compared]:
    """Compare configurations of an experiment, as conf/plan/advice.yaml lists them.

    Args:
        compose: returns the experiment that settings make.
        settings: of the experiment.
        model: see `make_plan`.
        deadline: see `make_plan`.
        budget: see `make_plan`.
        planned: called with every configuration when it is planned.

    Raises:
        ConfigError: the experiment cannot be composed, a setting is one that is compared, or the tables of conf/plan
            are wrong.
    """
    if fixed := [setting for setting in settings if setting.lstrip("+").startswith(CHOSEN)]:
        raise ConfigError(f"-S {fixed[0]}: the advice compares how many processes train, and how: leave it out")
    known, compared = read_gpus(), read_advice()
    prices, base = read_prices(known=known), compose(settings)
    adapts = any(hasattr(candidate, "strategy") for candidate in base["model"]["candidates"])

    def plan(more: Sequence[str]) -> tuple[Sequence[PlannedRun], bool]:
        _, traced, single = on_gpu(compose([*settings, *more]), model)
        return traced, single

    options = []
    for option in compare(plan, compared, adapts, prices, known):
        options.append(option)
        planned(option)
    return advise(options, compared, deadline, budget), compared


def show_advice(
    console: "Console", advice: Advice, compared: Compared, settings: Sequence[str], model: Path | None, today: date
) -> None:
    """Print what was compared, what is advised, and the command that takes it up."""
    from rich.table import Table

    table = Table(title="Configurations, each with its cheapest machine that fits", title_justify="left")
    for column in ("settings", "GB a GPU", "machine", "time", "USD"):
        table.add_column(column)
    for option in advice.options:
        if not option.offers and not option.refused:  # no machine has so many GPUs
            continue
        fitting = [offer for offer in option.offers if offer.fits]
        needs = f"{option.offers[0].needs_gb:,.1f}" if option.offers else ""
        if option.refused or not fitting:
            table.add_row(_told(option), needs, option.refused or "no machine holds it", "", "")
            continue
        table.add_row(_told(option), needs, machine(fitting[0]), hours(fitting[0]), usd(fitting[0]))
    console.print(table)
    kinds = Table(title="Platforms, each with its cheapest pair that fits", title_justify="left")
    for column in ("platform", "settings", "machine", "time", "USD", "reason to choose it"):
        kinds.add_column(column)
    for name, pair in advice.platforms.items():
        cells = ("", "none fits", "", "") if pair is None else (_told(pair[0]), *_shown(pair[1]))
        kinds.add_row(name, *cells, compared.platforms[name].reason)
    kinds.add_row(
        "local", "", "this machine", "`hallmark plan --measure`", "", "data do not leave it; no price is known"
    )
    console.print(kinds)
    for reason in advice.excluded:
        console.print(f"excluded: {reason}")
    if advice.chosen is None:
        console.print("nothing fits: allow more time or money, or choose a smaller model or context")
        return
    option, offer = advice.chosen
    console.print(f"cheapest: {machine(offer)}, {hours(offer)}, {usd(offer)} USD")
    chosen = " ".join([*settings, *option.settings])
    told = f'make repro S="{chosen}"' if chosen else "make repro"
    console.print(f"take it up: {told}{f', with the weights of {model} as model.initial_checkpoint' if model else ''}")
    console.print("note: costs are compared, not what each learns: compare that by `make experiments`")
    console.print("note: several GPUs are taken to be as fast as their number; what they exchange was not measured")
    prices = {id(offer.price): offer.price for o in advice.options for offer in o.offers}.values()
    if old := old_prices(prices, today, OLD_DAYS):
        console.print(
            f"note: {old} of {len(prices)} prices are older than {OLD_DAYS} days (hallmark plan prices import)"
        )
    if any(run.cost.flop < LAUNCHED for o in advice.options for run in o.runs):
        console.print(f"note: {SMALL}")
    if any(setting.endswith("=qlora") for o in advice.options for setting in o.settings):
        console.print(f"note: {FOUR_BIT}")


def _told(option: Option) -> str:
    """Name a configuration shortly: chosen groups by their value, keys by their last part."""
    pairs = [setting.split("=", 1) for setting in option.settings]
    short = (
        value if "@" in key or value in ("ddp", "fsdp2") else f"{key.rpartition('.')[2]}={value}"
        for key, value in pairs
    )
    return " ".join(short) or "as it is"


def _shown(offer: Offer) -> tuple[str, str, str]:
    return machine(offer), hours(offer), usd(offer)


def plain_advice(advice: Advice, settings: Sequence[str]) -> dict[str, Any]:
    """Return advice as JSON values."""
    options = [
        {
            "settings": list(option.settings),
            "refused": option.refused,
            "peak": max((run.cost.peak for run in option.runs), default=None),
            "cheapest": next((plain(offer) for offer in option.offers if offer.fits), None),
        }
        for option in advice.options
    ]

    def pair(found: tuple[Option, Offer] | None) -> Any:
        return None if found is None else {"settings": [*settings, *found[0].settings], "offer": plain(found[1])}

    return {
        "options": options,
        "chosen": pair(advice.chosen),
        "excluded": list(advice.excluded),
        "platforms": {name: pair(found) for name, found in advice.platforms.items()},
    }
