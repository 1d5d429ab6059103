"""Which configuration of an experiment costs least and fits: strategies, ways to save memory, and numbers of GPUs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hallmark.build import Count, Tuple, configuration
from hallmark.errors import ConfigError
from hallmark.plan.plan import Offer, choose, offers
from hallmark.plan.prices import Gpu, Price
from hallmark.plan.runs import PlannedRun, of_copies

ADVICE = Path("conf/plan/advice.yaml")


@configuration
class Platform:
    """A kind of platform.

    Attributes:
        reason: to choose it.
        providers: who rents it, as in the table of prices.
    """

    reason: str
    providers: Tuple[str]


@configuration
class Compared:
    """What is compared; every entry is a list of settings.

    Attributes:
        strategies: of experiments that adapt a pretrained language model.
        memory: ways to save memory.
        copies: numbers of GPUs that hold the model each.
        shards: number of GPUs that share the model, where no single one holds it.
        platforms: kinds of platforms by name.
    """

    strategies: Tuple[Tuple[str]]
    memory: Tuple[Tuple[str]]
    copies: Tuple[Count]
    shards: Count
    platforms: Mapping[str, Platform]


@dataclass(frozen=True)
class Option:
    """One configuration.

    Attributes:
        settings: that make it of the experiment, as `make repro S=…` takes them.
        runs: its training runs on a GPU; empty if they cannot be planned.
        offers: of all machines; empty if they cannot be planned.
        refused: why they cannot be planned; empty if they can.
    """

    settings: tuple[str, ...]
    runs: Sequence[PlannedRun] = ()
    offers: Sequence[Offer] = ()
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether any machine holds it."""
        return any(offer.fits for offer in self.offers)


@dataclass(frozen=True)
class Advice:
    """What is advised.

    Attributes:
        options: all that was compared.
        chosen: the configuration and the machine that cost least and fit memory, deadline and budget, or None.
        excluded: why other pairs of configuration and machine do not, with their number.
        platforms: kind of platform → its cheapest pair that fits; None if it has none.
    """

    options: Sequence[Option]
    chosen: tuple[Option, Offer] | None
    excluded: Sequence[str]
    platforms: Mapping[str, tuple[Option, Offer] | None]


def read_advice(file: Path = ADVICE) -> Compared:
    """Read what is compared.

    Raises:
        ConfigError: the file is missing, or a key or value is wrong.
    """
    import yaml

    from hallmark.build import build

    if not file.is_file():
        raise ConfigError(f"{file} is not there: run this in the repository")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        kinds = {
            name: {"_target_": f"{__name__}.Platform", **entry} for name, entry in dict(values["platforms"]).items()
        }
        found: Compared = build({**values, "_target_": f"{__name__}.Compared", "platforms": kinds}, str(file))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} is wrong: {' '.join(str(error).split())[:200]}") from error
    return found


def compare(
    planned: Callable[[Sequence[str]], tuple[Sequence[PlannedRun], bool]],
    compared: Compared,
    adapts: bool,
    prices: Sequence[Price],
    gpus: Mapping[str, Gpu],
) -> Iterator[Option]:
    """Plan every configuration; yields each when it is planned.

    Copies of a model need no trace of their own: each holds gradients once more, to exchange them.

    Args:
        planned: returns the runs of settings on a GPU, and whether they are in fp32.
        compared: what is compared.
        adapts: whether the experiment adapts a pretrained language model.
        prices: of machines.
        gpus: what each kind can do.
    """
    for strategy in compared.strategies if adapts else ((),):
        for memory in compared.memory:
            yield from _with_gpus(planned, (*strategy, *memory), compared, prices, dict(gpus))


def _with_gpus(
    planned: Callable[[Sequence[str]], tuple[Sequence[PlannedRun], bool]],
    settings: tuple[str, ...],
    compared: Compared,
    prices: Sequence[Price],
    gpus: dict[str, Gpu],
) -> Iterator[Option]:
    try:
        runs, single = planned(settings)
    except ConfigError as error:
        yield Option(settings, refused=" ".join(str(error).split()))
        return
    yield (alone := Option(settings, runs, offers(runs, prices, gpus, 1, 1, single)))
    if alone.fits:
        for count in compared.copies:
            copies = [replace(run, cost=of_copies(run.cost)) for run in runs]
            found = offers(copies, prices, gpus, count, 1, single)
            yield Option((*settings, "train.distributed=ddp", f"train.processes={count}"), copies, found)
        return
    sharded = (*settings, "train.distributed=fsdp2", f"train.processes={compared.shards}")
    try:
        runs, single = planned(sharded)
    except ConfigError as error:
        yield Option(sharded, refused=" ".join(str(error).split()))
        return
    yield Option(sharded, runs, offers(runs, prices, gpus, compared.shards, 1, single))


def advise(
    options: Sequence[Option], compared: Compared, deadline_hours: float | None, budget_usd: float | None
) -> Advice:
    """Choose the cheapest configuration and machine that fit memory, deadline and budget at their upper ends."""
    of_offer = {id(offer): option for option in options for offer in option.offers}
    every = sorted((offer for option in options for offer in option.offers), key=lambda offer: offer.usd[1])

    def cheapest(found: Sequence[Offer]) -> tuple[tuple[Option, Offer] | None, list[str]]:
        chosen, excluded = choose(found, deadline_hours, budget_usd)
        return (None if chosen is None else (of_offer[id(chosen)], chosen)), excluded

    kinds = {
        name: cheapest([offer for offer in every if offer.price.provider in kind.providers])[0]
        for name, kind in compared.platforms.items()
    }
    chosen, excluded = cheapest(every)
    return Advice(options, chosen, excluded, kinds)
