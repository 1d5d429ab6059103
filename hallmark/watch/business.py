"""Figures of the business, computed from those of a day: named in conf/monitor, shown and bounded like all others."""

from collections.abc import Sequence

import pandas as pd

from hallmark.build import configuration


@configuration
class Derived:
    """A figure made of others.

    Attributes:
        name: begins with `business.`.
        figure: a daily figure; `subjects` is how many were answered.
        times: another one that it is multiplied by; None for none.
        over: another one that it is divided by; None for none. A day on which it is 0 has no value.
        factor: such as a price.
    """

    name: str
    figure: str
    times: str | None = None
    over: str | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.startswith("business."):
            raise ValueError(f"name={self.name!r} must begin with business.")


def with_business(days: pd.DataFrame, derived: Sequence[Derived]) -> pd.DataFrame:
    """Return the days with the derived figures; one whose figures are not known is left out."""
    made = {}
    for one in derived:
        needed = [name for name in (one.figure, one.times, one.over) if name is not None]
        if all(name in days for name in needed):
            value = one.factor * days[one.figure]
            value = value if one.times is None else value * days[one.times]
            made[one.name] = value if one.over is None else value / days[one.over].where(days[one.over] != 0)
    return days.assign(**made)
