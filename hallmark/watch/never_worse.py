"""Never worse: may a subject's adapter go on serving, or does the base model serve instead?

Every day on which outcomes arrive adds a pair: the loss of the adapter's answers, and of the base model's to the same
requests. Three tests watch, each an e-detector: it sums bets over all days since which its hypothesis may be wrong, so
that an adapter that was good for months is stopped as fast as a new one. It is valid however often it is looked at, and
raises a false alarm after as many days as its threshold says, on average, or later.

- A serving adapter is stopped when it is not "no worse than the base", or when its intervals do not cover what they
  promise, less a tolerance. A budget stops it as well: the losses beyond the base model's, less what was gained, may
  not pass a share of a year's.
- A stopped one is scored on, and serves again when it is not "no better than the base" and half of the budget is left.

Source: Shin, Ramdas and Rinaldo 2022 (e-detectors); Waudby-Smith and Ramdas 2024 (bets on bounded means).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from hallmark.arrays import Array
from hallmark.build import InnerShare, configuration

State = Literal["serving", "stopped"]
BETS = np.asarray([0.05, 0.1, 0.2, 0.4, 0.8])
"""Shares of the wealth that a bet risks: small ones find small differences, large ones find large differences early."""
DAYS_A_YEAR = 365
FEWEST_DAYS = 3
"""Days before which the budget stops nothing: a year's loss cannot be told from less."""


@configuration
class NeverWorseRule:
    """When an adapter stops serving and when it starts again.

    Attributes:
        false_alarms_a_year: share of adapters as good as the base that a test stops within a year, at most, and of
            stopped ones that it lets serve again. The budget stops more of them, which costs nothing.
        largest_difference: relative difference of a day's losses, (adapter - base) / (adapter + base), that counts in
            full; a larger one counts as this one, so that a single day decides nothing.
        budget: loss beyond the base model's that a subject may have, as a share of the base model's loss of a year.
        nominal_coverage: of the interval that is watched.
        coverage_tolerance: by how much its coverage may be lower.
    """

    false_alarms_a_year: InnerShare
    largest_difference: InnerShare
    budget: InnerShare
    nominal_coverage: InnerShare
    coverage_tolerance: InnerShare

    @property
    def threshold(self) -> float:
        """Evidence at which an e-detector decides: the days until a false alarm are at least as many on average."""
        return DAYS_A_YEAR / self.false_alarms_a_year


@dataclass(frozen=True)
class Day:
    """A subject's answers of one day whose outcomes are known.

    Attributes:
        day: in days since 1970.
        adapter: mean loss of the adapter's answers, at least 0.
        base: of the base model's answers to the same requests.
        covered: share of the outcomes within the adapter's interval; None if there are no intervals.
        served: whether the adapter's answers were the ones that were given.
    """

    day: int
    adapter: float
    base: float
    covered: float | None = None
    served: bool = True


@dataclass(frozen=True)
class Ledger:
    """What is known about one subject's adapter.

    Attributes:
        state: whether the adapter serves.
        reason: why it was stopped or serves again; empty if it was never stopped.
        worse: e-detector of "no worse", one value per bet.
        uncovered: e-detector of "covers enough", one value per bet.
        better: e-detector of "no better", one value per bet.
        excess: loss of what served beyond the base model's, summed over days.
        base: loss of the base model, summed over days.
        days: number of days.
        last_day: the last day that was added.
    """

    state: State = "serving"
    reason: str = ""
    worse: Array = field(default_factory=lambda: np.zeros(len(BETS)))
    uncovered: Array = field(default_factory=lambda: np.zeros(len(BETS)))
    better: Array = field(default_factory=lambda: np.zeros(len(BETS)))
    excess: float = 0.0
    base: float = 0.0
    days: int = 0
    last_day: int = -1

    @property
    def evidence(self) -> dict[str, float]:
        """e-values by hypothesis that they speak against: means over the bets."""
        return {
            "no_worse": float(self.worse.mean()),
            "covers": float(self.uncovered.mean()),
            "no_better": float(self.better.mean()),
        }


def update(ledger: Ledger, days: Iterable[Day], rule: NeverWorseRule) -> Ledger:
    """Add days to a ledger.

    Args:
        ledger: of one subject's adapter.
        days: in order; one that is not after the last day is left out, so that adding it twice changes nothing.
        rule: error rates and budget.

    Raises:
        ValueError: a loss is negative or not finite.
    """
    for day in days:
        if day.day > ledger.last_day:
            ledger = _add(ledger, day, rule)
    return ledger


def _add(ledger: Ledger, day: Day, rule: NeverWorseRule) -> Ledger:
    if not (np.isfinite([day.adapter, day.base]).all() and min(day.adapter, day.base) >= 0):
        raise ValueError(f"losses of day {day.day} must be finite and at least 0: {day.adapter} and {day.base}")
    total = day.adapter + day.base
    relative = (day.adapter - day.base) / total if total > 0 else 0.0
    difference = float(np.clip(relative / rule.largest_difference, -1, 1))
    serving = ledger.state == "serving"
    known = replace(
        ledger,
        worse=(ledger.worse + 1) * (1 + BETS * difference) if serving else ledger.worse,
        better=ledger.better if serving else (ledger.better + 1) * (1 - BETS * difference),
        excess=ledger.excess + (day.adapter - day.base if day.served else 0.0),
        base=ledger.base + day.base,
        days=ledger.days + 1,
        last_day=day.day,
    )
    if serving and day.covered is not None:
        known = replace(known, uncovered=(ledger.uncovered + 1) * _coverage_bet(day.covered, rule))
    return _decide(known, rule)


def _coverage_bet(covered: float, rule: NeverWorseRule) -> Array:
    """Bet on more misses than allowed; a bet of all wealth loses it when nothing was missed."""
    allowed = 1 - rule.nominal_coverage + rule.coverage_tolerance
    return np.asarray(1 + BETS * ((1 - covered) - allowed) / max(allowed, 1 - allowed))


def _decide(ledger: Ledger, rule: NeverWorseRule) -> Ledger:
    evidence, year = ledger.evidence, ledger.base / ledger.days * DAYS_A_YEAR
    if ledger.state == "stopped":
        if evidence["no_better"] < rule.threshold or ledger.excess > 0.5 * rule.budget * year:
            return ledger
        reason = f"better than the base again (e-value {evidence['no_better']:.0f})"
        return replace(_fresh(ledger), state="serving", reason=reason)
    if evidence["no_worse"] >= rule.threshold:
        return _stopped(ledger, f"worse than the base (e-value {evidence['no_worse']:.0f})")
    if evidence["covers"] >= rule.threshold:
        return _stopped(ledger, f"its intervals cover too little (e-value {evidence['covers']:.0f})")
    if ledger.days >= FEWEST_DAYS and ledger.excess > rule.budget * year:
        return _stopped(ledger, f"its losses beyond the base's passed {rule.budget:.1%} of a year's")
    return ledger


def refitted(ledger: Ledger, rule: NeverWorseRule) -> Ledger:
    """Return the ledger of an adapter that was fitted again: all tests begin anew.

    One that was stopped serves again if half of its subject's budget is left, as after `better`.
    """
    year = ledger.base / max(ledger.days, 1) * DAYS_A_YEAR
    if ledger.state == "serving" or ledger.excess > 0.5 * rule.budget * year:
        return _fresh(ledger) if ledger.state == "serving" else ledger
    return replace(_fresh(ledger), state="serving", reason="it was fitted again, and is better on held-out days")


def _stopped(ledger: Ledger, reason: str) -> Ledger:
    return replace(_fresh(ledger), state="stopped", reason=reason)


def _fresh(ledger: Ledger) -> Ledger:
    """Begin all tests anew; what was lost and gained stays in the budget."""
    zeros = np.zeros(len(BETS))
    return replace(ledger, worse=zeros, uncovered=zeros, better=zeros)
