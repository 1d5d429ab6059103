"""Make the plan of an experiment, and print it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hallmark.errors import ConfigError
from hallmark.learn.precision import resolve
from hallmark.learn.trainer import Run
from hallmark.plan.measure import measure
from hallmark.plan.plan import MARGIN, Offer, choose, offers, old_prices
from hallmark.plan.prices import OLD_DAYS, read_gpus, read_prices
from hallmark.plan.review import keep_plan
from hallmark.plan.runs import PlannedRun, prepare, run_of_model, runs_of, trace
from hallmark.plan.told import hours, plain, usd

if TYPE_CHECKING:
    from rich.console import Console

LAUNCHED = 1e12
"""Floating-point operations of a step; below, a GPU of today is done before its next kernel is launched."""
SMALL = (
    "a step is so small that launches of kernels take longer than its operations: times on GPUs are lower bounds, and "
    "this machine may do (hallmark plan --measure tells its time)"
)


@dataclass(frozen=True)
class Plan:
    """What an experiment needs.

    Attributes:
        task: of the experiment.
        here: runs as this machine would make them; empty if there are no weights.
        on_gpu: the same on a GPU, in bf16 where the configuration allows it.
        seconds: name of a run → seconds of a step and of a validation pass, measured here.
        offers: machines with a price, the cheapest first.
        chosen: the cheapest that fits memory, deadline and budget; None if none does.
        excluded: why others do not, with their number.
        notes: what to know about the figures.
    """

    task: str
    here: Sequence[PlannedRun]
    on_gpu: Sequence[PlannedRun]
    seconds: Mapping[str, tuple[float, float]]
    offers: Sequence[Offer]
    chosen: Offer | None
    excluded: Sequence[str]
    notes: Sequence[str] = field(default_factory=tuple)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        runs = {
            where: [
                {"name": r.name, **asdict(r.cost), "peak": r.cost.peak, "steps": r.steps, "flop": r.flop} for r in found
            ]
            for where, found in (("here", self.here), ("on_gpu", self.on_gpu))
        }
        return {
            "task": self.task,
            **runs,
            "seconds": self.seconds,
            "offers": [plain(offer) for offer in self.offers],
            "chosen": None if self.chosen is None else plain(self.chosen),
            "excluded": list(self.excluded),
            "notes": list(self.notes),
        }


def make_plan(
    built: Mapping[str, Any],
    model: Path | None,
    gpus: int | None,
    deadline: float | None,
    budget: float | None,
    measured: bool,
    today: date,
) -> Plan:
    """Plan an experiment, and keep the plan for `hallmark plan review`.

    Args:
        built: the experiment.
        model: configuration file of a language model without weights; None for the experiment's own networks.
        gpus: of one machine; None for as many as the configuration has processes.
        deadline: hours that training may take; None for no limit.
        budget: US dollars that training may cost; None for no limit.
        measured: whether to train a few steps here.
        today: from which the age of prices is counted.

    Raises:
        ConfigError: there is nothing to train, a model cannot be built, or the tables of conf/plan are wrong.
    """
    known, train = read_gpus(), built["train"]
    prices = read_prices(known=known)
    if gpus is not None and gpus != train.processes:
        raise ConfigError(
            f"--gpus {gpus} with train.processes={train.processes}: a process trains on one GPU; add "
            f"-S train.distributed=ddp -S train.processes={gpus}"
            if gpus > 1
            else f"--gpus 1 with train.processes={train.processes}: every process needs a GPU of its own"
        )
    gpus = train.processes
    if not any(price.gpus == gpus for price in prices):
        counts = sorted({price.gpus for price in prices})
        raise ConfigError(f"no machine of conf/plan/prices.csv has {gpus} GPUs: train.processes may be {counts}")
    if measured and model:
        raise ConfigError("--measure needs the weights, and --model has none: leave one of them out")
    runs, planned, single = on_gpu(built, model)
    here: list[PlannedRun] = []
    if not model:
        mixed = torch.bfloat16 if resolve(built["train"].precision) == "bf16" else None
        on_cpu = not torch.cuda.is_available()
        here = [trace(name, run, mixed, on_cpu) for name, run in runs.items()]
    seconds = {run.name: measure(runs[run.name], run) for run in here} if measured else {}
    keep_plan(built["task"].name, here or planned, seconds)
    found = offers(planned, prices, known, gpus, train.nodes, single)
    chosen, excluded = choose(found, deadline, budget)
    notes = _notes(found, prices, today)
    if any(run.cost.flop < LAUNCHED for run in planned):
        notes.append(SMALL)
    return Plan(built["task"].name, here, planned, seconds, found, chosen, excluded, notes)


def on_gpu(built: Mapping[str, Any], model: Path | None) -> tuple[dict[str, Run], list[PlannedRun], bool]:
    """Return the runs of an experiment, what each needs on a GPU, and whether they are in fp32.

    Raises:
        ConfigError: there is nothing to train, or a step cannot be traced without the weights.
    """
    runs = {"causal_lm": run_of_model(built, model)} if model else runs_of(built, prepare(built))
    if not runs:
        raise ConfigError(f"{built['task'].name} trains no network: seconds on this machine, and nothing to plan")
    single = built["train"].precision == "fp32"
    try:
        traced = [trace(name, run, None if single else torch.bfloat16, on_cpu=False) for name, run in runs.items()]
    except (RuntimeError, ValueError) as error:
        if model is None:
            raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{model}: a step of this model cannot be traced without its weights: {reason}") from error
    return runs, traced, single


def _notes(found: Sequence[Offer], prices: Sequence[Any], today: date) -> list[str]:
    notes = [
        f"memory has a margin of {MARGIN:.0%}: the largest error against measured training steps of adapters",
        "times span the share of a GPU's peak that training was seen to reach (conf/plan/gpus.yaml)",
    ]
    if old := old_prices(prices, today, OLD_DAYS):
        notes.append(
            f"{old} of {len(prices)} prices are older than {OLD_DAYS} days: renew them by "
            "`hallmark plan prices import FILE`"
        )
    unknown = sorted({offer.gpu.name for offer in found if offer.gpu.mfu is None})
    if unknown:
        notes.append(f"what training reaches on {', '.join(unknown)} was not measured: 20 to 50% are assumed")
    return notes


def show(console: "Console", plan: Plan, rows: int = 8) -> None:
    """Print a plan."""
    from rich.table import Table

    for title, runs in (("on this machine", plan.here), ("on a GPU", plan.on_gpu)):
        if not runs:
            continue
        table = Table(title=f"{plan.task}: memory of a training step {title}, MB", title_justify="left")
        for column in (
            "network",
            "weights",
            "gradients",
            "optimizer",
            "activations",
            "peak",
            "learn",
            "steps",
            "TFLOP",
        ):
            table.add_column(column, justify="left" if column == "network" else "right")
        for run in runs:
            cost = run.cost
            sizes = [f"{size / 1e6:,.0f}" for size in (cost.weights, cost.gradients, cost.optimizer, cost.activations)]
            share = f"{cost.trainable:,} of {cost.parameters:,}"
            table.add_row(
                run.name, *sizes, f"{cost.peak / 1e6:,.0f}", share, f"≤ {run.steps:,}", f"{run.flop / 1e12:,.2f}"
            )
        console.print(table)
    for run in plan.here:
        if run.name in plan.seconds:
            step, evaluation = plan.seconds[run.name]
            total = run.steps * step + run.evaluations * evaluation
            console.print(
                f"{run.name} here: {step:.3f} s a step, {evaluation:.2f} s a validation pass, measured; "
                f"at most {total:,.0f} s"
            )
    table = Table(title="Machines, the cheapest first", title_justify="left")
    for column in ("provider", "GPUs", "fits", "time", "USD", "price read"):
        table.add_column(column)
    for offer in plan.offers[:rows]:
        price = offer.price
        table.add_row(
            f"{price.provider} {price.product}, {price.tier}",
            f"{price.gpus} × {price.gpu}",
            f"{offer.needs_gb:.1f} of {offer.gpu.memory_gb:g} GB" if offer.fits else f"no: {offer.needs_gb:.1f} GB",
            hours(offer),
            usd(offer),
            f"{price.read}",
        )
    console.print(table)
    if plan.chosen is None:
        console.print("no machine fits: " + "; ".join(plan.excluded))
    if plan.chosen is None and not any(offer.fits for offer in plan.offers):
        console.print(
            "less memory: -S train.gradient_checkpointing=true, or half of train.batch_size and twice the accumulation"
        )
    if plan.chosen is not None:
        price = plan.chosen.price
        console.print(f"cheapest: {price.provider} {price.product}, {price.gpus} × {price.gpu}, {price.tier}")
        for reason in plan.excluded:
            console.print(f"excluded: {reason}")
    for note in plan.notes:
        console.print(f"note: {note}")
