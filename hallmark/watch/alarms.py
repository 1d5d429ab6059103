"""Alarms: a figure that has left what is usual, or passed a bound, and what to do about it."""

import fnmatch
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from hallmark.build import Count, configuration

Severity = Literal["info", "warning", "critical"]
NAMESPACE = uuid.UUID("6f6b3a0e-5a5e-4a8c-9b39-0b8f3c1d7a52")


SURE = 4.0
"""Standard errors of the reference days by which the mean of a stretch of days must be above theirs (`worse_by`)."""


@dataclass(frozen=True)
class Raised:
    """An alarm.

    Attributes:
        kind: which rule has raised it: `drift`, `bound`, `never_worse`, `succession` or `retrain`.
        figure: which it is about.
        severity: of the rule.
        day: on which it was raised, UTC.
        since: first day of what it is about.
        message: what happened, since when, how sure that is, and what to do.
    """

    kind: Literal["drift", "bound", "never_worse", "succession", "retrain"]
    figure: str
    severity: Severity
    day: date
    since: date
    message: str

    def id(self, task: str) -> str:
        """Return an id that is the same whenever the same alarm is found again."""
        return str(uuid.uuid5(NAMESPACE, f"{task}/{self.kind}/{self.figure}/{self.since}"))

    def row(self, task: str, now: datetime) -> dict[str, Any]:
        """Return the row of the table `alarms`, which no sink has taken yet."""
        return {"id": self.id(task), "task": task, **asdict(self), "raised_at": now, "told_at": None}


@configuration
class Bound:
    """A figure that must stay on one side of a number, or near its mean of the reference days.

    Set exactly one of `above`, `below` and `worse_by`.

    Attributes:
        figure: name of the daily figures that are meant, with `*` as in file names.
        days: days in a row, with values, on which the bound must be passed.
        severity: of the alarm.
        advice: what to do, one sentence.
        above: the largest value that is fine.
        below: the smallest value that is fine.
        worse_by: share by which the figure may be above its mean of the reference days, for errors; it must also be
            above by more than days vary, see `SURE`.
    """

    figure: str
    days: Count
    severity: Severity
    advice: str
    above: float | None = None
    below: float | None = None
    worse_by: float | None = None

    def __post_init__(self) -> None:
        if sum(bound is not None for bound in (self.above, self.below, self.worse_by)) != 1:
            raise ValueError(f"bound of {self.figure!r}: set exactly one of above, below, worse_by")

    def find(self, figures: pd.DataFrame, reference_days: int) -> list[Raised]:
        """Return an alarm for every stretch of days that passes the bound.

        Args:
            figures: one row per day, in order; a day without a value neither begins nor ends a stretch.
            reference_days: so many first days are the reference of `worse_by`, which judges the days after them.
        """
        names = fnmatch.filter(map(str, figures.columns), self.figure)
        return [
            alarm for name in names for alarm in self._of_one(figures[name].dropna(), reference_days, figures.index)
        ]

    def _of_one(self, values: "pd.Series[float]", reference_days: int, index: "pd.Index[date]") -> list[Raised]:
        usual: pd.Series[float] = values[:0]
        if self.worse_by is not None:
            if len(index) <= reference_days:
                return []
            begin = index[reference_days - 1]
            usual, values = values[values.index <= begin], values[values.index > begin]
            if len(usual) < 2:
                return []
        limit, text = self._limit(usual)
        numbers = values.to_numpy(dtype=np.float64)
        over = numbers < limit if self.below is not None else numbers > limit
        found, start = [], 0
        while start < len(over):
            length = int(np.argmin(np.append(over[start:], False)))  # of the stretch that begins here
            for days in range(self.days, length + 1):
                mean = float(numbers[start : start + days].mean())
                if self.worse_by is None or mean > usual.mean() + SURE * usual.std(ddof=1) / np.sqrt(days):
                    since, day = values.index[start], values.index[start + days - 1]
                    on = "on one day" if days == 1 else f"on {days} days in a row"
                    message = f"{values.name}: {mean:.4g} since {since}, {text}, {on}. {self.advice}"
                    found.append(Raised("bound", str(values.name), self.severity, day, since, message))
                    break
            start += max(length, 1)
        return found

    def _limit(self, usual: "pd.Series[float]") -> tuple[float, str]:
        if self.above is not None:
            return self.above, f"above {self.above:g}"
        if self.below is not None:
            return self.below, f"below {self.below:g}"
        assert self.worse_by is not None
        mean = float(usual.mean())
        text = f"more than {self.worse_by:.0%} above {mean:.4g} of the reference days, and by {SURE:g} standard errors"
        return mean * (1 + self.worse_by), text


def news(found: Sequence[Raised], known: Sequence[tuple[str, str, date]], debounce_days: int) -> list[Raised]:
    """Leave out alarms of which the same was raised shortly before.

    Args:
        found: all alarms that the figures give.
        known: kind, figure and first day of those that were raised.
        debounce_days: an alarm whose first day is at most so many days from that of a known one is no news.
    """
    told, fresh = list(known), []
    for alarm in sorted(found, key=lambda alarm: (alarm.day, alarm.figure)):
        near = timedelta(days=debounce_days)
        if not any((k, f) == (alarm.kind, alarm.figure) and abs(alarm.since - s) <= near for k, f, s in told):
            fresh.append(alarm)
            told.append((alarm.kind, alarm.figure, alarm.since))
    return fresh
