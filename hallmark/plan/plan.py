"""A plan: memory, time and money of an experiment's training runs on each machine that has a price."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from hallmark.plan.prices import UNKNOWN_MFU, Gpu, Price
from hallmark.plan.runs import PlannedRun

USABLE = 0.92  # of a GPU's memory: its driver, its libraries and the gaps of the allocator take the rest
EAGER_MFU = 0.12  # the lowest that PEFT's own runs reached with small batches
MARGIN = 0.05  # of the traced memory: the largest error against measured runs, without those that decompose weights


@dataclass(frozen=True)
class Offer:
    """What a training costs on one kind of machine.

    Attributes:
        price: of the machine; None for this one.
        gpu: its kind.
        fits: whether every run fits into the memory of each GPU.
        needs_gb: of the largest run, with margin.
        hours: from, to.
        usd: from, to; None if there is no price.
    """

    price: Price
    gpu: Gpu
    fits: bool
    needs_gb: float
    hours: tuple[float, float]
    usd: tuple[float, float]


def offers(
    runs: Sequence[PlannedRun],
    prices: Iterable[Price],
    gpus: dict[str, Gpu],
    count: int = 1,
    nodes: int = 1,
    fp32: bool = False,
) -> list[Offer]:
    """Return what the runs cost, one after the other, on every kind of machine with so many GPUs; the cheapest first.

    Args:
        runs: of the experiment.
        prices: of machines.
        gpus: what each kind can do.
        count: GPUs of a machine.
        nodes: machines that train together.
        fp32: whether the configuration forbids bf16; a GPU without bf16 trains in fp32 anyway.
    """
    needs = max(max(run.cost.peak, run.begin) for run in runs) * (1 + MARGIN) / 1e9
    flop = sum(run.flop for run in runs)
    found = []
    for price in prices:
        if price.gpus != count:
            continue
        gpu = gpus[price.gpu]
        if not fp32 and not gpu.bf16:  # it would train in fp32, and the runs were traced in bf16
            continue
        peak = gpu.tflops_fp32 if fp32 else gpu.tflops
        low, high = gpu.mfu or UNKNOWN_MFU
        if any(run.cost.trainable < run.cost.parameters for run in runs):
            low = min(low, EAGER_MFU)
        hours = tuple(flop / (peak * 1e12 * share * count * nodes) / 3600 for share in (high, low))
        usd = tuple(nodes * price.usd_per_hour * h for h in hours)
        fits = needs <= USABLE * gpu.memory_gb
        found.append(Offer(price, gpu, fits, needs, (hours[0], hours[1]), (usd[0], usd[1])))
    return sorted(found, key=lambda offer: (not offer.fits, offer.usd[1]))


def choose(
    found: Sequence[Offer], deadline_hours: float | None, budget_usd: float | None
) -> tuple[Offer | None, list[str]]:
    """Return the cheapest offer that fits memory, deadline and budget at their upper ends, and why others do not.

    Returns:
        The offer, None if none fits; and one sentence per reason, with how many it excludes.
    """
    reasons: dict[str, Callable[[Offer], bool]] = {
        "do not hold the largest run in memory": lambda o: not o.fits,
        f"may take longer than {deadline_hours:g} h" if deadline_hours is not None else "": lambda o: bool(
            deadline_hours is not None and o.hours[1] > deadline_hours
        ),
        f"may cost more than {budget_usd:g} USD" if budget_usd is not None else "": lambda o: bool(
            budget_usd is not None and o.usd[1] > budget_usd
        ),
    }
    excluded = [f"{sum(map(test, found))} of {len(found)} offers {text}" for text, test in reasons.items() if text]
    fitting = [offer for offer in found if not any(test(offer) for test in reasons.values())]
    return (fitting[0] if fitting else None), [text for text in excluded if not text.startswith("0 ")]


def old_prices(prices: Iterable[Price], today: date, days: int) -> int:
    """Count prices that were read more than so many days ago."""
    return sum(price.age_days(today) > days for price in prices)
