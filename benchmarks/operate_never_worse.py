"""python -m benchmarks.operate_never_worse: a simulated year in which adapters help, do not help, or turn harmful.

A day's losses of adapter and base differ by a person's mean (3% better on average, standard deviation 4.8%) and by a
day's noise (11%), as measured on the simulated cohort without the gate of the training. The adapters of one person in
five become 10% worse on some day, as after a change of the sensor. Outcomes arrive two days late. Beside our rule: the
adapter always, the base always, and the better of both over the whole year, which nobody can know in advance.
"""

import argparse
import time

import numpy as np

from benchmarks.bounds import interval
from hallmark.arrays import Array
from hallmark.watch.never_worse import DAYS_A_YEAR, Day, Ledger, NeverWorseRule, update

GAIN, PEOPLE_SD, DAY_SD = 0.03, 0.048, 0.11
CHANGED, WORSE = 0.2, 0.10
DELAY = 2
RULE = NeverWorseRule(
    false_alarms_a_year=0.1,
    largest_difference=0.15,
    budget=0.005,
    nominal_coverage=0.9,
    coverage_tolerance=0.05,
)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=2000)
    options = parser.parse_args()
    generator, start = np.random.default_rng(0), time.process_time()
    year = simulate(generator, options.people)
    serves = np.stack([ours(adapter, base)[0] for adapter, base in zip(*year, strict=True)])
    spent = time.process_time() - start
    adapter, base = (losses.sum(axis=1) for losses in year)
    served = {
        "ours": np.where(serves, *year).sum(axis=1),
        "adapter always": adapter,
        "base always": base,
        "better of both": np.minimum(adapter, base),
    }
    for name, losses in served.items():
        relative = losses / base - 1
        worse = interval(int((relative > 0.01).sum()), options.people)
        print(f"{name:15} mean {relative.mean():+.2%}; over 1% worse {worse:22}; the worst {relative.max():+.2%}")
    harmless = simulate(np.random.default_rng(1), options.people, harmless=True)
    reasons = [ours(a, b)[1] for a, b in zip(*harmless, strict=True)]
    print("adapters that are exactly as good as the base, stopped within the year")
    for name, text in (("by a test", "e-value"), ("by the budget", "passed")):
        print(f"  {name:15} {interval(sum(text in reason for reason in reasons), options.people)}")
    print(f"{1e6 * spent / (options.people * DAYS_A_YEAR):.0f} CPU µs a person-day")


def simulate(generator: np.random.Generator, people: int, harmless: bool = False) -> tuple[Array, Array]:
    """Return the losses of adapter and base, (people, days) each."""
    shape = (people, DAYS_A_YEAR)
    base = np.exp(generator.normal(0, 0.3, shape))
    mean = np.zeros(people) if harmless else generator.normal(-GAIN, PEOPLE_SD, people)
    changed = np.zeros(shape) if harmless else WORSE * (np.arange(DAYS_A_YEAR) >= _days_of_change(generator, people))
    noise = generator.normal(0, DAY_SD, shape)
    return base * np.exp(mean[:, None] + changed + noise - DAY_SD**2 / 2), base


def _days_of_change(generator: np.random.Generator, people: int) -> Array:
    days = generator.integers(0, DAYS_A_YEAR, (people, 1))
    return np.where(generator.random((people, 1)) < CHANGED, days, DAYS_A_YEAR)


def ours(adapter: Array, base: Array) -> tuple[Array, str]:
    """Return on which days the adapter serves, and why it was first stopped."""
    ledger, serves, reason = Ledger(), np.ones(len(adapter), dtype=bool), ""
    for day in range(len(adapter)):
        if day >= DELAY:
            known = day - DELAY
            ledger = update(ledger, [Day(known, adapter[known], base[known], served=bool(serves[known]))], RULE)
        serves[day] = ledger.state == "serving"
        reason = reason or ledger.reason
    return serves, reason


if __name__ == "__main__":
    main()
